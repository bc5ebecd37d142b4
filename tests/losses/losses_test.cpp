// What every line of losses.def is held to, without a word about which losses there are: its oracle
// where it has one, finite differences always, and a complete table of parameters.

#include <prospect/losses/losses.hpp>

#include <cmath>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "losses/finite_differences.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"

namespace {

using testing::agrees;
using testing::random_source;
using testing::sample;
using testing::textbook_answer;
using testing::textbook_pair;
using testing::token_point;

/// The loss with its defaults, and with each parameter moved in turn.
template <class L>
std::vector<L> variants() {
  std::vector<L> losses{L{}};
  for (const auto& parameter : L::parameters) {
    L moved;
    moved.*parameter.member = 1.5 * moved.*parameter.member + 0.05;
    losses.push_back(moved);
  }
  return losses;
}

/// Scaled margins that matter: at rest, almost at rest, ordinary, saturated, and far beyond.
const std::vector<double> margins{0, 1e-8, 0.3, 1, 3, 20, 90, 1e3};

template <class L>
std::vector<textbook_pair> pairs_for(const L& loss, random_source& random) {
  std::vector<textbook_pair> pairs;
  for (const double margin : margins) {
    for (const double sign : {-1.0, 1.0}) {
      const double difference = sign * margin / prospect::reward_scale(loss);
      const double rejected = random.normal(3);
      pairs.push_back({rejected + difference, rejected, static_cast<double>(random.integer(1, 40)),
                       static_cast<double>(random.integer(1, 40))});
    }
  }
  return pairs;
}

template <class L>
std::vector<textbook_answer> answers_for(const L& loss, random_source& random) {
  std::vector<textbook_answer> answers;
  for (const double margin : margins) {
    for (const double sign : {-1.0, 1.0}) {
      const double z = random.chance(0.5) ? 0.0 : random.uniform(0, 4);
      const double log_ratio = z + sign * margin / prospect::reward_scale(loss);
      answers.push_back({log_ratio, true, z});
      answers.push_back({log_ratio, false, z});
    }
  }
  return answers;
}

/// Inside of every clip and outside; advantages of either sign.
std::vector<token_point> tokens_for(random_source& random) {
  std::vector<token_point> tokens;
  for (const double log_ratio : {0.0, 1e-8, 0.05, 0.15, 0.3, 0.4, 1.0, 3.0}) {
    for (const double sign : {-1.0, 1.0}) {
      for (const double advantage : {-1.5, 0.75}) {
        const auto n = static_cast<double>(random.integer(1, 40));
        tokens.push_back({-std::abs(random.normal(random.chance(0.5) ? 0.2 : 4)), sign * log_ratio,
                          random.normal(1), advantage, sign * log_ratio * n, n});
      }
    }
  }
  return tokens;
}

/// Points for a loss of any kind.
template <class L>
auto points_for(const L& loss, random_source& random) {
  if constexpr (prospect::paired_loss<L>) {
    return pairs_for(loss, random);
  } else if constexpr (prospect::unpaired_loss<L>) {
    return answers_for(loss, random);
  } else {
    return tokens_for(random);
  }
}

/// Whether two of a kind make another number of a sample, or of what it adds to its sequence.
template <class L, class Sample>
bool differ(const L& a, const L& b, const Sample& at) {
  if constexpr (prospect::sums_tokens<L>) {
    if (prospect::contribution(a, at).value != prospect::contribution(b, at).value) return true;
  }
  return prospect::differentiate(a, at).loss != prospect::differentiate(b, at).loss;
}

template <class R>
textbook_pair rounded(textbook_pair p) {
  p.chosen = static_cast<R>(p.chosen);
  p.rejected = static_cast<R>(p.rejected);
  return p;
}
template <class R>
textbook_answer rounded(textbook_answer a) {
  a.log_ratio = static_cast<R>(a.log_ratio);
  a.z = static_cast<R>(a.z);
  return a;
}

}  // namespace

TEMPLATE_LIST_TEST_CASE("gradients agree with finite differences", "[losses]",
                        testing::every_loss) {
  random_source random{21};
  CAPTURE(random.seed());
  for (const TestType& loss : variants<TestType>()) {
    for (const auto& point : points_for(loss, random)) {
      const auto at = sample<double>(point);
      const auto value = prospect::differentiate(loss, at);
      CAPTURE(value.loss);
      if constexpr (prospect::paired_loss<TestType>) {
        CAPTURE(at.chosen.ratio, at.rejected.ratio, value.d_chosen, value.d_rejected);
        CHECK(testing::gradient_matches_differences(loss, at));
      } else if constexpr (prospect::unpaired_loss<TestType>) {
        CAPTURE(at.answer.ratio, at.z, at.desirable, value.d_policy, value.d_z);
        CHECK(testing::gradient_matches_differences(loss, at));
      } else if constexpr (!testing::holds_a_part<TestType>()) {
        CAPTURE(at.ratio, at.reference_ratio, at.advantage, value.d_policy, value.d_sum);
        CHECK(testing::gradient_matches_differences(loss, at));
      }
    }
  }
}

TEMPLATE_LIST_TEST_CASE("losses and gradients agree with their oracle", "[losses]",
                        testing::every_loss) {
  random_source random{22};
  CAPTURE(random.seed());
  if constexpr (testing::in_paired_textbook<TestType> || testing::in_unpaired_textbook<TestType>) {
    for (const TestType& loss : variants<TestType>()) {
      for (int round = 0; round < 20; ++round) {
        for (const auto& point : points_for(loss, random)) {
          const auto in_double = rounded<double>(point);
          const auto in_float = rounded<float>(point);
          CHECK(agrees<double>(loss, in_double,
                               prospect::differentiate(loss, sample<double>(in_double))));
          CHECK(agrees<float>(loss, in_float,
                              prospect::differentiate(loss, sample<float>(in_float))));
        }
      }
    }
  }
}

TEST_CASE("every loss of the first release has an oracle", "[losses]") {
  STATIC_REQUIRE(testing::in_paired_textbook<prospect::dpo>);
  STATIC_REQUIRE(testing::in_paired_textbook<prospect::robust_dpo>);
  STATIC_REQUIRE(testing::in_paired_textbook<prospect::hinge>);
  STATIC_REQUIRE(testing::in_paired_textbook<prospect::ipo>);
  STATIC_REQUIRE(testing::in_paired_textbook<prospect::ipo_sum>);
  STATIC_REQUIRE(testing::in_unpaired_textbook<prospect::kto>);
  STATIC_REQUIRE(testing::in_unpaired_textbook<prospect::kto_zero>);
  std::set<std::string_view> listed;
  prospect::for_each_loss([&](const auto& loss) { listed.insert(loss.name); });
  for (const char* name : {"dpo", "robust_dpo", "hinge", "ipo", "ipo_sum", "kto", "kto_zero"}) {
    CAPTURE(name);
    CHECK(listed.contains(name));
  }
}

TEST_CASE("the list and its visitor name every loss once", "[losses]") {
  std::vector<std::string_view> visited;
  prospect::for_each_loss([&](const auto& loss) { visited.push_back(loss.name); });
  CHECK(visited.size() == std::tuple_size_v<testing::every_loss>);
  CHECK(std::set(visited.begin(), visited.end()).size() == visited.size());
}

TEMPLATE_LIST_TEST_CASE("a loss is of one kind, in fp32 and fp64", "[losses]",
                        testing::every_loss) {
  STATIC_REQUIRE(prospect::paired_loss<TestType, float> + prospect::unpaired_loss<TestType, float> +
                     prospect::token_loss<TestType, float> ==
                 1);
  STATIC_REQUIRE(prospect::paired_loss<TestType, float> == prospect::paired_loss<TestType, double>);
  STATIC_REQUIRE(prospect::token_loss<TestType, float> == prospect::token_loss<TestType, double>);
}

TEMPLATE_LIST_TEST_CASE("the parameter table is complete, and each entry matters", "[losses]",
                        testing::every_loss) {
  // Hyper-parameters are doubles and nothing else, so that a table of doubles can be complete.
  STATIC_REQUIRE((std::is_empty_v<TestType> ||
                  sizeof(TestType) == TestType::parameters.size() * sizeof(double)));
  random_source random{23};
  CAPTURE(random.seed());
  const auto points = points_for(TestType{}, random);
  for (const auto& parameter : TestType::parameters) {
    const std::string name{parameter.name};
    CAPTURE(name);
    TestType moved;
    const double other = 1.5 * moved.*parameter.member + 0.05;
    CHECK(prospect::set_parameter(moved, name, other));
    CHECK(moved.*parameter.member == other);
    // By itself, or beside the others, which may switch it on.
    TestType without, with;
    for (const auto& each : TestType::parameters) {
      with.*each.member = 1.5 * with.*each.member + 0.05;
      if (each.name != parameter.name) without.*each.member = with.*each.member;
    }
    // What weighs a next-token term is no part of the formula.
    bool matters =
        prospect::next_token_of(moved).weight != prospect::next_token_of(TestType{}).weight;
    for (const auto& point : points) {
      const auto at = sample<double>(point);
      matters = matters || differ(TestType{}, moved, at) || differ(without, with, at);
    }
    CHECK(matters);
  }
  TestType untouched;
  CHECK_FALSE(prospect::set_parameter(untouched, "no_such_parameter", 1));
  CHECK_FALSE(prospect::set_parameter(untouched, "", 1));
}

TEMPLATE_LIST_TEST_CASE("defaults are fine, nonsense is named", "[losses]", testing::every_loss) {
  STATIC_REQUIRE(prospect::problem(TestType{}) == nullptr);
  for (const auto& parameter : TestType::parameters) {
    for (const double nonsense : {std::nan(""), -1.0, static_cast<double>(INFINITY)}) {
      TestType loss;
      loss.*parameter.member = nonsense;
      const char* why = prospect::problem(loss);
      const std::string name{parameter.name};
      // A shape and a shift may have either sign.
      const bool either_sign = (TestType::name == "alphapo" && name == "alpha") ||
                               (TestType::name == "bco_pair" && name == "delta");
      if (nonsense == -1 && either_sign) continue;
      CAPTURE(name, nonsense);
      REQUIRE(why != nullptr);
      CHECK(std::string{why}.find(name) != std::string::npos);
    }
  }
}

TEMPLATE_LIST_TEST_CASE("NaN in, NaN out", "[losses]", testing::every_loss) {
  const float nan = std::nanf("");
  if constexpr (prospect::paired_loss<TestType>) {
    CHECK(
        std::isnan(prospect::differentiate(TestType{}, sample<float>(textbook_pair{nan, 1})).loss));
    CHECK(
        std::isnan(prospect::differentiate(TestType{}, sample<float>(textbook_pair{1, nan})).loss));
  } else if constexpr (prospect::token_loss<TestType>) {
    const auto at = sample<float>(token_point{nan, nan, nan, 1, nan, 2});
    CHECK(std::isnan(prospect::differentiate(TestType{}, at).loss));
  } else {
    for (const bool desirable : {true, false}) {
      const auto at = sample<float>(textbook_answer{nan, desirable});
      CHECK(std::isnan(prospect::differentiate(TestType{}, at).loss));
      CHECK(std::isnan(prospect::differentiate(TestType{}, at).d_policy));
    }
  }
}
