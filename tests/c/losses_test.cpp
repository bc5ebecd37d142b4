// Losses, parameters and metrics by name through C.
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"
#include "closeness.hpp"

namespace {

using testing::c_loss;
using testing::c_metrics;
using testing::refused;

}  // namespace

TEST_CASE("the list of losses is that of the headers, with their kinds and parameters") {
  std::int32_t i = 0;
  prospect::for_each_loss([&]<class L>(const L& loss) {
    CHECK(std::string{prospect_loss_name(i++)} == L::name);
    const prospect_loss c = c_loss(L::name);
    prospect_kind kind = 77;
    REQUIRE(prospect_loss_kind(&c, &kind, nullptr) == PROSPECT_OK);
    CHECK(kind == (prospect::paired_loss<L>     ? PROSPECT_PAIRED_LOSS
                   : prospect::unpaired_loss<L> ? PROSPECT_UNPAIRED_LOSS
                                                : PROSPECT_TOKEN_LOSS));
    std::int32_t k = 0;
    for (const auto& p : L::parameters) {
      REQUIRE(prospect_loss_parameter(&c, k) != nullptr);
      CHECK(prospect_loss_parameter(&c, k++) == p.name);
      double value = std::nan("");
      REQUIRE(prospect_loss_get(&c, std::string{p.name}.c_str(), &value, nullptr) == PROSPECT_OK);
      CHECK(value == loss.*p.member);
    }
    CHECK(prospect_loss_parameter(&c, k) == nullptr);
    CHECK(prospect_loss_parameter(&c, -1) == nullptr);
  });
  CHECK(prospect_loss_count() == i);
  CHECK(prospect_loss_name(i) == nullptr);
  CHECK(prospect_loss_name(-1) == nullptr);
}

TEST_CASE("each parameter is set alone, and keeps what it was set to in a copy") {
  prospect_loss loss = c_loss("kto");
  REQUIRE(prospect_loss_set(&loss, "desirable_weight", 1.25, nullptr) == PROSPECT_OK);
  REQUIRE(prospect_loss_set(&loss, "undesirable_weight", 0.75, nullptr) == PROSPECT_OK);
  const prospect_loss copy = loss;
  const auto get = [&](const char* name) {
    double value = std::nan("");
    REQUIRE(prospect_loss_get(&copy, name, &value, nullptr) == PROSPECT_OK);
    return value;
  };
  CHECK(get("beta") == 0.1);
  CHECK(get("desirable_weight") == 1.25);
  CHECK(get("undesirable_weight") == 0.75);
}

TEST_CASE("what is refused changes nothing and names the argument") {
  prospect_loss loss = c_loss("dpo");
  const prospect_loss before = loss;
  prospect_error error{};
  refused(prospect_loss_init(&loss, "dop", &error), PROSPECT_UNKNOWN_NAME, error,
          "no loss \"dop\"; there are dpo");
  refused(prospect_loss_init(nullptr, "dpo", &error), PROSPECT_INVALID_ARGUMENT, error,
          "loss is NULL");
  refused(prospect_loss_init(&loss, nullptr, &error), PROSPECT_INVALID_ARGUMENT, error,
          "name is NULL");
  refused(prospect_loss_set(&loss, "gamma", 1, &error), PROSPECT_UNKNOWN_NAME, error,
          "no parameter \"gamma\"; it has beta");
  for (const double bad : {-1.0, 0.0, std::nan(""), std::numeric_limits<double>::infinity()}) {
    refused(prospect_loss_set(&loss, "beta", bad, &error), PROSPECT_INVALID_ARGUMENT, error,
            "beta");
  }
  refused(prospect_loss_set(&loss, nullptr, 1, &error), PROSPECT_INVALID_ARGUMENT, error,
          "parameter is NULL");
  refused(prospect_loss_get(&loss, "beta", nullptr, &error), PROSPECT_INVALID_ARGUMENT, error,
          "value is NULL");
  refused(prospect_loss_kind(&loss, nullptr, &error), PROSPECT_INVALID_ARGUMENT, error,
          "kind is NULL");
  CHECK(testing::same_bits(loss, before));
}

TEST_CASE("a loss that nobody made, or another version, is none") {
  prospect_error error{};
  const prospect_loss good = c_loss("dpo");
  std::vector<prospect_loss> foreign(3, good);
  foreign[0] = {};
  // The first eight bytes carry the version, the next eight the place in its list.
  reinterpret_cast<unsigned char*>(&foreign[1])[0] ^= 1;
  reinterpret_cast<unsigned char*>(&foreign[2])[8] = 200;
  for (prospect_loss& loss : foreign) {
    const prospect_loss before = loss;
    prospect_kind kind = 77;
    double value = 42;
    refused(prospect_loss_kind(&loss, &kind, &error), PROSPECT_INVALID_ARGUMENT, error,
            "loss was not made by prospect_loss_init");
    refused(prospect_loss_set(&loss, "beta", 0.5, &error), PROSPECT_INVALID_ARGUMENT, error,
            "prospect_loss_init");
    refused(prospect_loss_get(&loss, "beta", &value, &error), PROSPECT_INVALID_ARGUMENT, error,
            "prospect_loss_init");
    CHECK(prospect_loss_parameter(&loss, 0) == nullptr);
    CHECK(kind == 77);
    CHECK(value == 42);
    CHECK(testing::same_bits(loss, before));
  }
  CHECK(prospect_loss_parameter(nullptr, 0) == nullptr);
}

TEST_CASE("a long message is cut, not overrun") {
  prospect_loss loss;
  struct {
    prospect_error error;
    char behind = 7;
  } guarded{};
  const std::string name(4000, 'x');
  CHECK(prospect_loss_init(&loss, name.c_str(), &guarded.error) == PROSPECT_UNKNOWN_NAME);
  CHECK(std::strlen(guarded.error.message) == sizeof guarded.error.message - 1);
  CHECK(guarded.behind == 7);
}

TEST_CASE("metrics by name: the mean, absence, and names that are none") {
  c_metrics m{3};
  m.room[0] = {"loss", 3, 2};
  m.room[1] = {"kl", 0, 0};
  m.room[2] = {"beyond", 1, 1};
  m.metrics.size = 2;
  double mean = 42;
  CHECK(prospect_metric_get(&m, "loss", &mean) == PROSPECT_OK);
  CHECK(mean == 1.5);
  mean = 42;
  CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_ABSENT);
  CHECK(prospect_metric_get(&m, "beyond", &mean) == PROSPECT_UNKNOWN_NAME);
  CHECK(prospect_metric_get(&m, "los", &mean) == PROSPECT_UNKNOWN_NAME);
  CHECK(prospect_metric_get(nullptr, "loss", &mean) == PROSPECT_INVALID_ARGUMENT);
  CHECK(prospect_metric_get(&m, nullptr, &mean) == PROSPECT_INVALID_ARGUMENT);
  CHECK(prospect_metric_get(&m, "loss", nullptr) == PROSPECT_INVALID_ARGUMENT);
  CHECK(mean == 42);
  // More metrics than there is room for: those that are there are found, no other is looked for.
  m.metrics.capacity = 1;
  CHECK(prospect_metric_get(&m, "loss", &mean) == PROSPECT_OK);
  CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_UNKNOWN_NAME);
  m.metrics.struct_size = 16;
  CHECK(prospect_metric_get(&m, "loss", &mean) == PROSPECT_INVALID_ARGUMENT);
}

TEST_CASE("scores by name: what they do to losses and not to rewards, and who takes them") {
  const std::vector<double> policy_chosen{-3, -5, -9.5}, policy_rejected{-4, -4.5, -2};
  const std::vector<double> reference_chosen{-2, -7, -9.5}, reference_rejected{-4.25, -3, -2.5};
  const std::vector<std::int32_t> tokens{3, 7, 4};
  std::vector<double> loss(3), d(3), reward(3);
  auto args = testing::sized<prospect_pairs>();
  args.policy_chosen = testing::c_row(policy_chosen);
  args.policy_rejected = testing::c_row(policy_rejected);
  args.reference_chosen = testing::c_row(reference_chosen);
  args.reference_rejected = testing::c_row(reference_rejected);
  args.chosen_tokens = args.rejected_tokens = testing::c_row(tokens);
  args.loss = testing::c_row(loss);
  args.d_policy_chosen = testing::c_row(d);
  args.reward_chosen = testing::c_row(reward);
  args.normaliser = PROSPECT_SUM;

  prospect_loss dpo = c_loss("dpo");
  const auto set = [&](const char* score, double alpha) {
    REQUIRE(prospect_loss_set_score(&dpo, score, alpha, nullptr) == PROSPECT_OK);
    REQUIRE(prospect_loss_set(&dpo, "beta", 0.25, nullptr) == PROSPECT_OK);
    REQUIRE(prospect_pairs_cpu(&dpo, &args, nullptr, nullptr, nullptr) == PROSPECT_OK);
    return loss;
  };
  const auto logistic = [&](auto score) {
    std::vector<double> want;
    for (std::size_t i = 0; i < 3; ++i) {
      const double chosen = policy_chosen[i] - reference_chosen[i];
      want.push_back(std::log1p(
          std::exp(-0.25 * (score(chosen) - score(policy_rejected[i] - reference_rejected[i])))));
      CHECK(reward[i] == 0.25 * chosen);
    }
    return want;
  };
  const auto check = [&](const char* name, double alpha, auto score) {
    const std::vector<double> got = set(name, alpha), want = logistic(score);
    for (std::size_t i = 0; i < 3; ++i) CHECK(testing::near(got[i], want[i], 1e-14L));
  };
  check("forward_kl", std::nan(""), [](double u) { return -std::exp(-u); });
  check("js_divergence", 7, [](double u) { return -std::log1p(std::exp(-u)); });
  check("alpha_divergence", 1.5, [](double u) { return std::exp(u / 2) / 0.5; });
  check("alpha_divergence", 1, [](double u) { return u; });
  check("alpha_divergence", 0, [](double u) { return -std::exp(-u); });
  check("reverse_kl", 0, [](double u) { return u; });
  CHECK(testing::same_bits(dpo, [] {
    prospect_loss fresh = c_loss("dpo");
    REQUIRE(prospect_loss_set(&fresh, "beta", 0.25, nullptr) == PROSPECT_OK);
    return fresh;
  }()));

  prospect_error error{};
  const prospect_loss before = dpo;
  refused(prospect_loss_set_score(&dpo, "forward", 0, &error), PROSPECT_UNKNOWN_NAME, error,
          "no score \"forward\"; there are reverse_kl, forward_kl");
  refused(prospect_loss_set_score(&dpo, nullptr, 0, &error), PROSPECT_INVALID_ARGUMENT, error,
          "score is NULL");
  refused(prospect_loss_set_score(nullptr, "forward_kl", 0, &error), PROSPECT_INVALID_ARGUMENT,
          error, "loss is NULL");
  for (const double bad : {std::nan(""), std::numeric_limits<double>::infinity(), 1e31}) {
    refused(prospect_loss_set_score(&dpo, "alpha_divergence", bad, &error),
            PROSPECT_INVALID_ARGUMENT, error, "alpha");
  }
  CHECK(testing::same_bits(dpo, before));
  prospect::for_each_loss([&]<class L>(const L&) {
    prospect_loss one = c_loss(L::name);
    CHECK(prospect_loss_set_score(&one, "reverse_kl", 0, nullptr) == PROSPECT_OK);
    const prospect_status status = prospect_loss_set_score(&one, "js_divergence", 0, &error);
    if (prospect::score_taking_loss<L>) {
      CHECK(status == PROSPECT_OK);
    } else {
      refused(status, PROSPECT_UNSUPPORTED, error,
              "scores are taken by dpo, robust_dpo, ipo, ipo_sum, hinge, sigmoid_norm, exo, "
              "discopop");
      CHECK(testing::same_bits(one, c_loss(L::name)));
    }
  });
}
