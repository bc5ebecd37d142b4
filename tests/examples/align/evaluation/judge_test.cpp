// Naive Bayes on a set small enough to do by hand.
#include "evaluation/judge.hpp"

#include <stdexcept>
#include <vector>

#include "catch.hpp"

using namespace align;

namespace {

constexpr token the_end = 3, good = 4, bad = 5, film = 6;
constexpr int judged_words = 8;  // one more than anybody has written

const std::vector<row> toy = {{{film}, {good, film, the_end}, true},
                              {{film}, {good, good, the_end}, true},
                              {{film}, {bad, film, the_end}, false},
                              {{film}, {bad, the_end}, false}};

}  // namespace

TEST_CASE("the judge gives the probabilities of naive Bayes") {
  const judge j(toy, judged_words, the_end);
  // Desirable: 3 good and 1 film of 4 tokens; undesirable: 2 bad and 1 film of 3; 8 smoothed in.
  const double up = 4.0 / 12, down = 1.0 / 11;
  CHECK_THAT(j.probability_desirable(std::vector{good}), WithinAbs(up / (up + down), 1e-14));
  const double neutral_up = 2.0 / 12, neutral_down = 2.0 / 11;
  CHECK_THAT(j.probability_desirable(std::vector{film}),
             WithinAbs(neutral_up / (neutral_up + neutral_down), 1e-14));
  CHECK(j.probability_desirable(std::vector<token>{}) == 0.5);
  CHECK(j.accuracy(toy) == 1);
}

TEST_CASE("the frame of a text is no evidence") {
  const judge j(toy, judged_words, the_end);
  CHECK(j.probability_desirable(std::vector{good, the_end}) ==
        j.probability_desirable(std::vector{good}));
}

TEST_CASE("a token that nobody has written is no evidence") {
  const judge j(toy, judged_words, the_end);
  CHECK(j.probability_desirable(std::vector<token>{7}) == 0.5);
  CHECK(j.probability_desirable(std::vector{good, vocabulary::separator}) ==
        j.probability_desirable(std::vector{good}));
}

TEST_CASE("more rows of a class raise its prior") {
  std::vector<row> more = toy;
  more.push_back({{film}, {film}, true});
  more.push_back({{film}, {film}, true});
  const std::vector<token> nothing;
  CHECK_THAT(judge(more, judged_words, the_end).probability_desirable(nothing),
             WithinAbs(4.0 / 6, 1e-14));
}

TEST_CASE("the judge needs both classes and knows its vocabulary") {
  const std::vector<row> one_class = {toy[0], toy[1]};
  CHECK_THROWS_AS(judge(one_class, judged_words, the_end), std::invalid_argument);
  CHECK_THROWS_AS(judge(toy, judged_words, the_end).probability_desirable(std::vector<token>{99}),
                  std::out_of_range);
}
