// The synthetic source: the claimed reward is the real one, and no bag of words.
#include "data/grammar.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <set>
#include <utility>
#include <vector>

#include "catch.hpp"

using namespace align;

namespace {

double reward(const dataset& data, std::string_view prompt, std::string_view completion) {
  return data.true_reward(data.text.prompt(std::vector<message>{{"user", std::string(prompt)}}),
                          data.text.completion(completion));
}

// FNV-1a over everything the source draws.
std::uint64_t digest(const dataset& data) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto mix = [&](std::uint64_t x) { hash = (hash ^ x) * 0x100000001b3u; };
  const auto mix_words = [&](const std::vector<token>& text) {
    for (const token t : text) {
      if (t >= vocabulary::specials) mix(static_cast<std::uint64_t>(t));
    }
  };
  for (const row& r : data.train.rows) {
    mix_words(r.prompt);
    mix_words(r.completion);
    mix(r.desirable ? 1 : 0);
  }
  return hash;
}

}  // namespace

TEST_CASE("thumbs come as often as the true reward says") {
  const dataset data = synthetic_feedback(false, {40000, 2});
  std::array<double, 10> rows{}, ups{}, claimed{};
  for (const row& r : data.train.rows) {
    const double p = data.true_reward(r.prompt, r.completion);
    const auto bin = std::min<std::size_t>(9, static_cast<std::size_t>(p * 10));
    rows[bin] += 1;
    ups[bin] += r.desirable ? 1 : 0;
    claimed[bin] += p;
  }
  for (std::size_t bin = 0; bin < 10; ++bin) {
    CAPTURE(bin);
    REQUIRE(rows[bin] > 1000);
    const double p = claimed[bin] / rows[bin];
    const double deviation = std::sqrt(p * (1 - p) / rows[bin]);
    CHECK_THAT(ups[bin] / rows[bin], WithinAbs(p, 4 * deviation));
  }
}

TEST_CASE("choices follow the odds of the two true rewards") {
  const dataset data = synthetic_feedback(true, {40000, 2});
  // Weighted by the margin, which is how a wrong scale of the odds would show most.
  double surplus = 0, variance = 0;
  for (const duel& d : data.train.duels) {
    REQUIRE(d.chosen != d.rejected);
    const double chosen = data.true_reward(d.prompt, d.chosen);
    const double rejected = data.true_reward(d.prompt, d.rejected);
    const double margin =
        std::abs(std::log(chosen / (1 - chosen)) - std::log(rejected / (1 - rejected)));
    const double better_wins = 1 / (1 + std::exp(-margin));
    surplus += margin * ((chosen >= rejected ? 1 : 0) - better_wins);
    variance += margin * margin * better_wins * (1 - better_wins);
  }
  CHECK_THAT(surplus / std::sqrt(variance), WithinAbs(0, 4));
}

TEST_CASE("the taste is no bag of words") {
  const dataset data = synthetic_feedback(false);
  const auto p = [&](std::string_view prompt, std::string_view completion) {
    return reward(data, prompt, completion);
  };
  CHECK(p("the comedy", "is clever .") > 0.7);
  CHECK(p("the comedy", "is not clever .") < 0.3);
  CHECK(p("the comedy", "never drags .") > 0.7);
  // The same words in another order: the negation reaches to the end of its clause only.
  CHECK(p("the comedy", "is not fresh and it drags .") < 0.2);
  CHECK(p("the comedy", "is fresh and it not drags .") > 0.8);
  CHECK(p("the comedy", "is very clever .") > p("the comedy", "is clever ."));
  CHECK(p("the comedy", "is slightly clever .") < p("the comedy", "is clever ."));
  // Only the prompt tells whether a tense film is a good one.
  CHECK(p("the thriller", "is tense .") > 0.8);
  CHECK(p("the comedy", "is tense .") < 0.3);
}

TEST_CASE("the taste cannot be fooled by repeating a word or by never ending") {
  const dataset data = synthetic_feedback(false);
  CHECK(reward(data, "the farce", "is clever and clever and clever .") ==
        reward(data, "the farce", "is clever ."));
  CHECK(reward(data, "the farce", "is clever") < reward(data, "the farce", "is clever ."));
  CHECK(reward(data, "the farce", "") < 0.2);
  std::vector<token> ended = data.text.completion("is clever .");
  const auto prompt = data.text.prompt(std::vector<message>{{"user", "the farce"}});
  const double without_end = data.true_reward(prompt, ended);
  ended.push_back(data.text.end);
  CHECK(data.true_reward(prompt, ended) == without_end);
}

TEST_CASE("reviews have the promised size and form") {
  const dataset data = synthetic_feedback(false);
  CHECK(data.train.rows.size() == 3000);
  CHECK(data.held_out.rows.size() == 600);
  CHECK(data.corpus.size() == 3000);
  CHECK(data.text.vocabulary <= 150);
  const token full_stop = data.text.completion(".").front();
  for (const auto* part : {&data.train.rows, &data.held_out.rows}) {
    for (const row& r : *part) {
      const std::size_t length = r.prompt.size() + r.completion.size();
      // With begin, separator and end.
      REQUIRE(r.prompt.size() == 4);
      REQUIRE(length >= 8);
      REQUIRE(length <= 17);
      REQUIRE(r.completion.back() == data.text.end);
      REQUIRE(r.completion[r.completion.size() - 2] == full_stop);
      REQUIRE(std::ranges::count(r.completion, vocabulary::unknown) == 0);
    }
  }
  const auto up = std::ranges::count_if(data.train.rows, &row::desirable);
  CHECK(up > 1350);
  CHECK(up < 1650);
}

TEST_CASE("no review is both learnt from and held out") {
  for (const bool paired : {false, true}) {
    const dataset data = synthetic_feedback(paired);
    const auto rows_of = [&](const split& part) {
      return paired ? split_duels(part.duels) : part.rows;
    };
    std::set<std::pair<std::vector<token>, std::vector<token>>> known;
    for (const row& r : rows_of(data.train)) known.emplace(r.prompt, r.completion);
    for (const row& r : rows_of(data.held_out)) {
      REQUIRE_FALSE(known.contains({r.prompt, r.completion}));
    }
  }
}

TEST_CASE("the source draws the same on every platform") {
  CHECK(digest(synthetic_feedback(false)) == digest(synthetic_feedback(false)));
  CHECK(digest(synthetic_feedback(false)) == 0xc3822b114b6988a7u);
}
