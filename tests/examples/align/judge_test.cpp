// Naive Bayes on a set small enough to do by hand.
#include "judge.hpp"

#include <stdexcept>
#include <vector>

#include "catch.hpp"

using namespace align;

namespace {

constexpr token good = 4, bad = 5, film = 6;
constexpr int size = 7;

const std::vector<row> toy = {{{film}, {good, film}, true},
                              {{film}, {good, good}, true},
                              {{film}, {bad, film}, false},
                              {{film}, {bad}, false}};

}  // namespace

TEST_CASE("the judge gives the probabilities of naive Bayes") {
  const judge j(toy, size);
  // Desirable: 3 good and 1 film of 4 tokens; undesirable: 2 bad and 1 film of 3; 7 smoothed in.
  const double up = 4.0 / 11, down = 1.0 / 10;
  CHECK_THAT(j.probability_desirable(std::vector{good}), WithinAbs(up / (up + down), 1e-14));
  const double neutral_up = 2.0 / 11, neutral_down = 2.0 / 10;
  CHECK_THAT(j.probability_desirable(std::vector{film}),
             WithinAbs(neutral_up / (neutral_up + neutral_down), 1e-14));
  CHECK(j.probability_desirable(std::vector<token>{}) == 0.5);
  CHECK(j.accuracy(toy) == 1);
}

TEST_CASE("the frame of a text is no evidence") {
  const judge j(toy, size);
  CHECK(j.probability_desirable(std::vector{good, vocabulary::end}) ==
        j.probability_desirable(std::vector{good}));
}

TEST_CASE("more rows of a class raise its prior") {
  std::vector<row> more = toy;
  more.push_back({{film}, {film}, true});
  more.push_back({{film}, {film}, true});
  const std::vector<token> nothing;
  CHECK_THAT(judge(more, size).probability_desirable(nothing), WithinAbs(4.0 / 6, 1e-14));
}

TEST_CASE("the judge needs both classes and knows its vocabulary") {
  const std::vector<row> one_class = {toy[0], toy[1]};
  CHECK_THROWS_AS(judge(one_class, size), std::invalid_argument);
  CHECK_THROWS_AS(judge(toy, size).probability_desirable(std::vector<token>{99}),
                  std::out_of_range);
}
