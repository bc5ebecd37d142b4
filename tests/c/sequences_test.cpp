// The C surface on sequences against the headers: loss by loss, dtype by dtype, rows that differ in
// dtype, pairs by index, every normaliser and every reference point.
#include <prospect/losses/losses.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "c/sequence_cases.hpp"
#include "catch.hpp"
#include "random.hpp"
#include "special_numbers.hpp"

namespace {

using testing::c_loss;
using testing::c_metrics;
using testing::c_row;
using testing::random_source;
using testing::same_bits;
using testing::sized;

using testing::not_a_number;

template <class S>
void spoil(testing::paired_case<S>& c, std::int64_t i) {
  c.policy_rejected[i] = testing::stored<S>(not_a_number);
  c.chosen_tokens[i] = c.rejected_tokens[i] = 1;
}
template <class S>
void spoil(testing::unpaired_case<S>& c, std::int64_t i) {
  c.policy[i] = testing::stored<S>(not_a_number);
  c.tokens[i] = 1;
}

/// Where a loss takes a third completion, the rejected one is given twice.
template <class S, class L>
auto run_cpp(const L& loss, testing::paired_case<S>& c, prospect::normaliser by) {
  auto in = c.in();
  if (next_token_of(loss).third) {
    in.policy_third = in.policy_rejected;
    in.third_tokens = in.rejected_tokens;
  }
  return testing::evaluate_cpp(loss, prospect::detail::any_rows(in),
                               prospect::detail::any_rows(c.out()), by);
}
void add_next_tokens(const auto& loss, prospect_pairs& args, const double* token_count_at) {
  if (args.normaliser == PROSPECT_OVER) args.token_count = *token_count_at;
  if (args.normaliser == PROSPECT_OVER_AT) args.token_count_at = token_count_at;
  if (next_token_of(loss).third) {
    args.policy_third = args.policy_rejected;
    args.third_tokens = args.rejected_tokens;
  }
}
void add_next_tokens(const auto&, prospect_completions&, const double*) {}
template <class S, class L>
auto run_cpp(const L& loss, testing::unpaired_case<S>& c, prospect::normaliser by) {
  return testing::evaluate_cpp(loss, prospect::detail::any_rows(c.in()),
                               prospect::reference_point{.z = 0.5, .raw = 0.25},
                               prospect::detail::any_rows(c.out()), by);
}

/// One batch through both surfaces: every element of every output, every metric.
template <class S, class Case>
void check_both_surfaces(const auto& loss, const prospect_loss& by_name) {
  struct {
    std::int32_t kind;
    prospect::normaliser by;
  } const normalisers[] = {{PROSPECT_MEAN, prospect::normaliser::mean()},
                           {PROSPECT_SUM, prospect::normaliser::sum()},
                           {PROSPECT_OVER, prospect::normaliser::over(7).tokens_over(90)},
                           {PROSPECT_OVER_AT, prospect::normaliser::over(7).tokens_over(90)}};
  const double count_at = 7, token_count_at = 90;
  for (const auto& normaliser : normalisers) {
    for (const bool spread_out : {false, true}) {
      for (const bool spoilt : {false, true}) {
        CAPTURE(normaliser.kind, spread_out, spoilt);
        random_source seed_of_cpp{71}, seed_of_c{71};
        Case cpp{seed_of_cpp, 12, true, spread_out}, c{seed_of_c, 12, true, spread_out};
        if (spoilt) spoil(cpp, 5), spoil(c, 5);
        if constexpr (requires { c.targets; }) {
          c.targets = cpp.targets = prospect::reads_target<double>(loss);
        }
        auto args = testing::c_args(c);
        args.normaliser = normaliser.kind;
        args.count = normaliser.kind == PROSPECT_OVER ? 7 : 0;
        args.count_at = &count_at;
        add_next_tokens(loss, args, &token_count_at);
        c_metrics metrics;
        const auto want = run_cpp(loss, cpp, normaliser.by);
        REQUIRE(testing::evaluate_c(by_name, args, &metrics) == PROSPECT_OK);
        CHECK(same_bits(testing::all_outputs<S>(c), testing::all_outputs<S>(cpp)));
        for (auto* row : c.outputs()) CHECK(row->only_elements_written());
        testing::check_metrics(metrics, want);
        CHECK(want.total != 0);
        CHECK(want.first_nonfinite == (spoilt ? 5 : -1));
      }
    }
  }
}

}  // namespace

TEMPLATE_TEST_CASE("every loss of the archive is the loss of the headers", "", float, double,
                   prospect::float16, prospect::bfloat16) {
  using S = TestType;
  // As any of their kind, so that what checks them is compiled once for each kind.
  prospect::for_each_loss([&]<class L>(const L& loss) {
    CAPTURE(std::string{L::name});
    if constexpr (prospect::paired_loss<L>) {
      check_both_surfaces<S, testing::paired_case<S>>(prospect::any_paired{loss}, c_loss(L::name));
    } else if constexpr (prospect::unpaired_loss<L>) {
      check_both_surfaces<S, testing::unpaired_case<S>>(prospect::any_unpaired{loss},
                                                        c_loss(L::name));
    }
  });
}

TEST_CASE("fp64 sums beside a stored fp32 reference, coefficients of either: DPO") {
  const std::vector<double> chosen{-10.25, -20.5}, rejected{-12, -19.75};
  const std::vector<float> reference{-11, -19};
  std::vector<double> d_chosen(2);
  std::vector<float> d_rejected(2);
  std::vector<prospect::bfloat16> weight{prospect::bfloat16{1.0F}, prospect::bfloat16{0.5F}};
  std::vector<float> margin{0, 2};
  auto args = sized<prospect_pairs>();
  args.policy_chosen = c_row(chosen);
  args.policy_rejected = c_row(rejected);
  args.reference_chosen = args.reference_rejected = c_row(reference);
  args.weight = c_row(weight);
  args.margin = c_row(margin);
  args.d_policy_chosen = c_row(d_chosen);
  args.d_policy_rejected = c_row(d_rejected);
  c_metrics m;
  const prospect_loss dpo = c_loss("dpo");
  REQUIRE(testing::evaluate_c(dpo, args, &m) == PROSPECT_OK);
  // L = w softplus(-0.1 (P_c - P_r - margin)) / 2: arithmetic in fp64, though a row is fp32.
  const double x = 0.1 * 1.75, y = 0.1 * (-0.75 - 2);
  CHECK_THAT(d_chosen[0], WithinRel(-0.1 / (1 + std::exp(x)) / 2, 1e-14));
  CHECK_THAT(d_chosen[1], WithinRel(-0.1 * 0.5 / (1 + std::exp(y)) / 2, 1e-14));
  CHECK(d_rejected[0] == static_cast<float>(-d_chosen[0]));
  CHECK(d_rejected[1] == static_cast<float>(-d_chosen[1]));
  CHECK_THAT(m.metrics.total,
             WithinRel((std::log1p(std::exp(-x)) + 0.5 * std::log1p(std::exp(-y))) / 2, 1e-14));
}

TEST_CASE("KTO with rows of four types, flags of two") {
  const std::vector<double> policy{-10, -12};
  const std::vector<float> reference{-12, -11};
  const std::vector<std::uint8_t> bytes{255, 0};
  std::vector<float> d(2);
  std::vector<prospect::float16> reward(2);
  const std::vector<float> weight{2, 0};
  auto args = sized<prospect_completions>();
  args.policy = c_row(policy);
  args.reference = c_row(reference);
  args.desirable = c_row(bytes);
  args.weight = c_row(weight);
  args.d_policy = c_row(d);
  args.reward = c_row(reward);
  args.z = args.z_raw = 0.5;
  const prospect_loss kto = c_loss("kto");
  const auto expected = [&] {
    REQUIRE(testing::evaluate_c(kto, args, nullptr) == PROSPECT_OK);
    const double u = 0.1 * (2 - 0.5), s = 1 / (1 + std::exp(u));
    CHECK_THAT(d[0], WithinRel(-2 * 0.1 * s * (1 - s) / 2, 1e-7));
    CHECK(d[1] == 0);
    CHECK(static_cast<float>(reward[0]) == static_cast<float>(prospect::float16{0.2F}));
    d = {7, 7};
  };
  expected();
  const bool flags[2] = {true, false};
  args.desirable = PROSPECT_ROW(flags, 2);
  expected();
}

TEST_CASE("pairs by index are the pairs of gathered rows") {
  const std::vector<double> policy{-10, -12, -9, -20, -5}, reference{-12, -11, -10, -18, -5};
  const std::vector<std::int32_t> tokens{3, 4, 5, 6, 7};
  const std::vector<std::int64_t> chosen{2, 0}, rejected{3, 1};
  std::vector<double> loss(2), d(5, 7), d_chosen(2), d_rejected(2);
  auto args = sized<prospect_pairs>();
  args.policy = c_row(policy);
  args.reference = c_row(reference);
  args.tokens = c_row(tokens);
  args.chosen = c_row(chosen);
  args.rejected = c_row(rejected);
  args.loss = c_row(loss);
  args.d_policy = c_row(d);
  args.d_policy_chosen = c_row(d_chosen);
  args.d_policy_rejected = c_row(d_rejected);
  for (const char* name : {"dpo", "ipo"}) {
    CAPTURE(name);
    const prospect_loss l = c_loss(name);
    REQUIRE(testing::evaluate_c(l, args, nullptr) == PROSPECT_OK);

    const std::vector<double> pc{-9, -10}, pr{-20, -12}, rc{-10, -12}, rr{-18, -11};
    const std::vector<std::int32_t> nc{5, 3}, nr{6, 4};
    std::vector<double> want(2), want_c(2), want_r(2);
    auto gathered = sized<prospect_pairs>();
    gathered.policy_chosen = c_row(pc);
    gathered.policy_rejected = c_row(pr);
    gathered.reference_chosen = c_row(rc);
    gathered.reference_rejected = c_row(rr);
    gathered.chosen_tokens = c_row(nc);
    gathered.rejected_tokens = c_row(nr);
    gathered.loss = c_row(want);
    gathered.d_policy_chosen = c_row(want_c);
    gathered.d_policy_rejected = c_row(want_r);
    REQUIRE(testing::evaluate_c(l, gathered, nullptr) == PROSPECT_OK);
    CHECK(loss == want);
    CHECK(d_chosen == want_c);
    CHECK(d_rejected == want_r);
    CHECK(d == std::vector<double>{want_c[1], want_r[1], want_c[0], want_r[0], 0});
  }
}

TEST_CASE("every reference point") {
  const std::vector<float> policy{-1, -2, -3}, reference{-2, -2, -5};
  const std::vector<std::uint8_t> desirable{1, 0, 1};
  const std::vector<std::int32_t> tokens{1, 0, 2};
  const prospect_observation observed{3, 2, 0, -1};  // of the rows that have tokens
  prospect_observation seen{7, 7, 7, 7};
  const prospect_loss kto = c_loss("kto");
  std::vector<float> d(3);
  auto c = sized<prospect_completions>();
  c.z = c.z_raw = 1.5;
  c.observed = &observed;
  c.policy = c.mismatched_policy = c_row(policy);
  c.reference = c.mismatched_reference = c_row(reference);
  c.mismatched_tokens = c_row(tokens);
  c.desirable = c_row(desirable);
  c.d_policy = c_row(d);
  c.seen = &seen;
  const auto evaluated = [&](prospect_reference point, double kl) {
    c.reference_point = point;
    c_metrics m;
    prospect_error error{};
    const prospect_status status = testing::evaluate_c(kto, c, &m, &error);
    CAPTURE(std::string{error.message});
    REQUIRE(status == PROSPECT_OK);
    double mean = 42;
    CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_OK);
    CHECK(mean == kl);
    return d;
  };
  const auto want = evaluated(PROSPECT_GIVEN_POINT, 1.5);
  CHECK(evaluated(PROSPECT_OBSERVED, 1.5) == want);
  CHECK(seen.sum == 7);
  CHECK(evaluated(PROSPECT_BATCH_MEAN, 1.5) == want);
  CHECK(seen.sum == 3);
  CHECK(seen.count == 2);
  CHECK(seen.nonfinite == 0);
  CHECK(seen.first_nonfinite == -1);

  const auto cross = evaluated(PROSPECT_CROSS_CLASS, 0.75);  // means 1.5 of two rows and 0 of one
  std::vector<float> of_cpp(3);
  testing::evaluate_cpp(
      prospect::kto{}, {.policy = policy, .reference = reference, .desirable = desirable},
      prospect::cross_class{}, {.d_policy = of_cpp}, prospect::normaliser::mean());
  CHECK(cross == of_cpp);
  CHECK(cross != want);
}

TEST_CASE("mismatched rows: none given is an error, none scored is z = 0 with no kl") {
  const std::vector<float> policy{-1}, reference{-2};
  const std::vector<std::uint8_t> desirable{1};
  std::vector<float> d{7};
  const prospect_loss kto = c_loss("kto");
  prospect_error error{};
  auto c = sized<prospect_completions>();
  c.reference_point = PROSPECT_BATCH_MEAN;
  c.policy = c_row(policy);
  c.reference = c_row(reference);
  c.desirable = c_row(desirable);
  c.d_policy = c_row(d);
  testing::refused(testing::evaluate_c(kto, c, nullptr, &error), PROSPECT_INVALID_ARGUMENT, error,
                   "mismatched_policy");
  c.mismatched_policy = c_row(policy);
  testing::refused(testing::evaluate_c(kto, c, nullptr, &error), PROSPECT_INVALID_ARGUMENT, error,
                   "mismatched_reference");
  CHECK(d[0] == 7);

  const std::vector<std::int32_t> none{0};
  c.mismatched_reference = c_row(reference);
  c.mismatched_tokens = c_row(none);
  c_metrics m;
  REQUIRE(testing::evaluate_c(kto, c, &m) == PROSPECT_OK);
  double mean = 42;
  CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_ABSENT);
  const double s = 1 / (1 + std::exp(0.1));
  CHECK_THAT(d[0], WithinRel(-0.1 * s * (1 - s), 1e-6));
}

TEST_CASE("a mismatched row that is no number is left out, and counted") {
  const std::vector<double> policy{-3, not_a_number, -4, 0}, reference{-5, 0, -4.5, 0};
  const std::vector<std::int32_t> tokens{3, 5, 2, 0};
  prospect_observation seen{7, 7, 7, 7};
  REQUIRE(prospect_mismatched_kl_cpu(c_row(policy), c_row(reference), c_row(tokens), &seen, nullptr,
                                     nullptr) == PROSPECT_OK);
  CHECK(seen.sum == 2.5);
  CHECK(seen.count == 2);
  CHECK(seen.nonfinite == 1);
  CHECK(seen.first_nonfinite == 1);
  // A stored fp32 reference beside fp64 sums, and no token counts.
  const std::vector<double> sums{-3, -4};
  const std::vector<float> stored{-5, -4.5F};
  REQUIRE(prospect_mismatched_kl_cpu(c_row(sums), c_row(stored), prospect_row{}, &seen, nullptr,
                                     nullptr) == PROSPECT_OK);
  CHECK(seen.sum == 2.5);
  CHECK(seen.nonfinite == 0);
}

TEST_CASE("a loss that reads no reference point reports none") {
  const std::vector<float> policy{-1, -2}, reference{-2, -1};
  const std::vector<std::uint8_t> desirable{1, 0};
  auto c = sized<prospect_completions>();
  c.policy = c_row(policy);
  c.reference = c_row(reference);
  c.desirable = c_row(desirable);
  c.z = c.z_raw = 123;
  c_metrics m;
  const prospect_loss zero = c_loss("kto_zero");
  REQUIRE(testing::evaluate_c(zero, c, &m) == PROSPECT_OK);
  double mean = 42;
  CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_ABSENT);
}

TEST_CASE("hyper-parameters set by name reach the loss") {
  const std::vector<float> a{-1}, b{-2}, r{-1.5F};
  std::vector<float> loss{7};
  auto p = sized<prospect_pairs>();
  p.policy_chosen = c_row(a);
  p.policy_rejected = c_row(b);
  p.reference_chosen = p.reference_rejected = c_row(r);
  p.loss = c_row(loss);
  prospect_loss dpo = c_loss("dpo");
  REQUIRE(prospect_loss_set(&dpo, "label_smoothing", 0.25, nullptr) == PROSPECT_OK);
  REQUIRE(testing::evaluate_c(dpo, p, nullptr) == PROSPECT_OK);
  const double x = 0.1;
  CHECK_THAT(loss[0],
             WithinRel(0.75 * std::log1p(std::exp(-x)) + 0.25 * std::log1p(std::exp(x)), 1e-6));
}

TEST_CASE("third completions: coefficients, and what is refused by name") {
  std::vector<double> a{-10, -12, -9}, b{-20, -21, -5}, gold{-6, -8, -7};
  const std::vector<std::int32_t> tokens{3, 0, 5}, gold_tokens{2, 9, 6};
  std::vector<double> loss(3, 7), third(3, 7);
  auto p = sized<prospect_pairs>();
  p.policy_chosen = c_row(a);
  p.policy_rejected = c_row(b);
  p.chosen_tokens = p.rejected_tokens = c_row(tokens);
  p.loss = c_row(loss);
  prospect_error error{};
  const auto refused = [&](const char* name, const char* words) {
    testing::refused(testing::evaluate_c(c_loss(name), p, nullptr, &error),
                     PROSPECT_INVALID_ARGUMENT, error, words);
    CHECK(loss == std::vector<double>(3, 7));
  };
  refused("tpo", "policy_third");
  p.d_policy_third = c_row(third);
  refused("orpo", "d_policy_third");
  p.policy_third = c_row(gold);
  refused("tpo", "third_tokens");
  refused("cpo", "policy_third");
  p.third_tokens = c_row(gold_tokens);
  p.normaliser = PROSPECT_OVER;
  p.count = 2;
  refused("tpo", "normaliser");
  p.token_count = -8;
  refused("tpo", "token_count");
  const double count = 8;
  p.token_count_at = &count;
  refused("tpo", "token_count");
  p.token_count = 0;
  p.third = c_row(tokens);
  refused("tpo", "third is given");
  p.third = {};
  REQUIRE(testing::evaluate_c(c_loss("tpo"), p, nullptr, &error) == PROSPECT_OK);
  // 8 tokens: the second pair has no chosen ones.
  CHECK(third == std::vector<double>{-1.0 / 8, 0, -1.0 / 8});
  const double first = std::log1p(std::exp(-0.01 * 10)) + 2.0 / 8 * 6;
  CHECK_THAT(loss[0], WithinRel(first, 1e-14));
  CHECK(loss[1] == 0);
  p.normaliser = PROSPECT_MEAN;
  p.token_count_at = nullptr;
  REQUIRE(testing::evaluate_c(c_loss("tpo"), p, nullptr, &error) == PROSPECT_OK);
  CHECK_THAT(loss[0], WithinRel(first, 1e-14));
}
