// Which rows a loss is asked for, and what is refused: by name, before anything is written.

#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/cases.hpp"
#include "cpu/rows.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"
#include "refusals.hpp"
#include "special_numbers.hpp"

namespace {

using prospect::normaliser;
using prospect::paired_batch;
using prospect::paired_outputs;
using prospect::strided_span;
using prospect::unpaired_batch;
using prospect::unpaired_outputs;
using prospect::cpu::evaluate;
using testing::near;
using testing::paired_case;
using testing::random_source;
using testing::refuses;
using testing::same_bits;
using testing::unpaired_case;

using testing::not_a_number;

// Reads no reference and no token counts.
struct reference_free_odds {
  double beta = 0.5;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::softplus(beta * (p.rejected.policy - p.chosen.policy));
  }
};

struct mean_reading {
  template <class T>
  T operator()(const prospect::unpaired<T>& e) const {
    return prospect::square(e.answer.mean_policy() + 1);
  }
};

}  // namespace

TEST_CASE("a user's loss is asked for the rows it reads, and no others", "[sequences]") {
  const std::vector<float> chosen{-1, -2}, rejected{-3, -1};
  const std::vector<std::uint8_t> up{1, 0};
  const std::vector<std::int32_t> tokens{2, 4};
  std::vector<float> d(2);
  const auto m = evaluate(reference_free_odds{},
                          paired_batch<float>{.policy_chosen = chosen, .policy_rejected = rejected},
                          {.d_policy_chosen = d});
  CHECK(near(m.loss.sum, oracle::softplus(-1.0L) + oracle::softplus(0.5L), 1e-6L));
  CHECK(near(d[0], -0.5L * oracle::sigmoid(-1.0L) / 2, 1e-6L));
  evaluate(mean_reading{},
           unpaired_batch<float>{.policy = chosen, .desirable = up, .tokens = tokens},
           prospect::zero_point(), {.d_policy = d});
  CHECK(near(d[1], 2 * (-0.5L + 1) / 4 / 2, 1e-6L));
  CHECK(refuses("tokens", [&] {
    evaluate(mean_reading{}, unpaired_batch<float>{.policy = chosen, .desirable = up},
             prospect::zero_point(), {});
  }));
}

TEST_CASE("what is wrong with a paired batch is named, before anything is written",
          "[sequences][errors]") {
  using batch = paired_batch<float>;
  using outputs = paired_outputs<float>;
  random_source random{77};
  paired_case<float> c{random, 4, false, false};
  const auto refused = [&](const std::string& name, const auto& loss, const batch& in,
                           const outputs& out, normaliser by = normaliser::mean()) {
    CAPTURE(name);
    CHECK(refuses(name, [&] { evaluate(loss, in, out, by); }));
  };
  // Reads every row there is.
  const prospect::ipo loss;

  const std::vector<std::pair<std::string, strided_span<const float> batch::*>> inputs{
      {"policy_rejected", &batch::policy_rejected},
      {"reference_chosen", &batch::reference_chosen},
      {"reference_rejected", &batch::reference_rejected}};
  for (const auto& [name, member] : inputs) {
    for (const std::int64_t size : {0, 3}) {
      batch in = c.in();
      in.*member = (in.*member).slice(0, size);
      refused(name, loss, in, c.out());
    }
  }
  const std::vector<std::pair<std::string, strided_span<const std::int32_t> batch::*>> counts{
      {"chosen_tokens", &batch::chosen_tokens}, {"rejected_tokens", &batch::rejected_tokens}};
  const std::vector<std::int32_t> negative{3, 1, -1, 2};
  for (const auto& [name, member] : counts) {
    batch in = c.in();
    in.*member = negative;
    refused(name, loss, in, c.out());
    for (const std::int64_t size : {0, 3}) {
      in.*member = c.in().chosen_tokens.slice(0, size);
      refused(name, loss, in, c.out());
    }
    // A sum needs no token counts.
    in.*member = {};
    CHECK_NOTHROW(evaluate(prospect::dpo{}, in, outputs{}));
  }
  const std::vector<std::pair<std::string, strided_span<float> outputs::*>> results{
      {"loss", &outputs::loss},
      {"d_policy_chosen", &outputs::d_policy_chosen},
      {"d_policy_rejected", &outputs::d_policy_rejected},
      {"reward_chosen", &outputs::reward_chosen},
      {"reward_rejected", &outputs::reward_rejected}};
  for (const auto& [name, member] : results) {
    outputs out = c.out();
    out.*member = (out.*member).slice(0, 3);
    refused(name, loss, c.in(), out);
    out.*member = {c.loss.view().data(), 4, 0};  // every result on top of the last
    refused(name, loss, c.in(), out);
  }
  batch headless = c.in();
  headless.policy_chosen = {};
  refused("policy", loss, headless, c.out());

  refused("normaliser", loss, c.in(), c.out(), normaliser::over(0));
  refused("normaliser", loss, c.in(), c.out(), normaliser::over(not_a_number));
  refused("tau", prospect::ipo{.tau = -1}, c.in(), c.out());
  refused("beta", prospect::dpo{.beta = 0}, c.in(), c.out());
  refused("label_smoothing", prospect::robust_dpo{.label_smoothing = 0.5}, c.in(), c.out());

  for (auto* row : c.outputs()) {
    for (const float x : row->elements()) CHECK(same_bits(x, testing::poison<float>()));
  }
}

TEST_CASE("what is wrong with an unpaired batch is named, before anything is written",
          "[sequences][errors]") {
  using batch = unpaired_batch<float>;
  using outputs = unpaired_outputs<float>;
  random_source random{78};
  unpaired_case<float> c{random, 4, false, false};
  const auto refused = [&](const std::string& name, const prospect::kto& loss, const batch& in,
                           const outputs& out, normaliser by = normaliser::mean()) {
    CAPTURE(name);
    CHECK(refuses(name, [&] { evaluate(loss, in, prospect::zero_point(), out, by); }));
    CHECK(refuses(name, [&] { evaluate(loss, in, prospect::cross_class{}, out, by); }));
  };
  const prospect::kto loss;
  for (const std::int64_t size : {0, 3}) {
    batch in = c.in();
    in.reference = in.reference.slice(0, size);
    refused("reference", loss, in, c.out());
    in = c.in();
    in.desirable = in.desirable.slice(0, size);
    refused("desirable", loss, in, c.out());
  }
  const std::vector<std::int32_t> negative{3, 1, -1, 2};
  batch in = c.in();
  in.tokens = negative;
  refused("tokens", loss, in, c.out());
  in.tokens = in.tokens.slice(0, 2);
  refused("tokens", loss, in, c.out());

  const std::vector<std::pair<std::string, strided_span<float> outputs::*>> results{
      {"loss", &outputs::loss}, {"d_policy", &outputs::d_policy}, {"reward", &outputs::reward}};
  for (const auto& [name, member] : results) {
    outputs out = c.out();
    out.*member = (out.*member).slice(0, 3);
    refused(name, loss, c.in(), out);
    out.*member = {c.loss.view().data(), 4, 0};
    refused(name, loss, c.in(), out);
  }
  refused("normaliser", loss, c.in(), c.out(), normaliser::over(-2));
  refused("beta", {.beta = -1}, c.in(), c.out());
  refused("desirable_weight", {.desirable_weight = not_a_number}, c.in(), c.out());
  refused("undesirable_weight", {.undesirable_weight = -1}, c.in(), c.out());
  for (auto* row : c.outputs()) {
    for (const float x : row->elements()) CHECK(same_bits(x, testing::poison<float>()));
  }
}

namespace {

// Flat on one side, and so written that a NaN would take the flat side too.
struct branching_loss {
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    const T margin = p.log_ratio_margin();
    if (margin < T(1)) return 1 - margin;
    return T(0);
  }
};

}  // namespace

TEST_CASE("a missing reference is noticed even by a loss that branches", "[arguments]") {
  const std::vector<float> row{-1, -2};
  const auto run = [&] {
    prospect::cpu::evaluate<float>(branching_loss{}, {.policy_chosen = row, .policy_rejected = row},
                                   {});
  };
  CHECK(testing::refuses("reference_chosen", run));
}

TEST_CASE("rows that describe no memory are refused by name", "[sequences][errors]") {
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  random_source random{79};
  paired_case<float> c{random, 4, false, false};
  unpaired_case<float> u{random, 4, false, false};
  const prospect::ipo loss;
  const auto refused = [&](const std::string& name, const auto& call) {
    CAPTURE(name);
    CHECK(refuses(name, call));
  };
  // All rows at once, so that no size differs from another.
  const auto all = [](const float* data, std::int64_t size, std::int64_t stride) {
    const strided_span<const float> row{data, size, stride};
    return paired_batch<float>{.policy_chosen = row,
                               .policy_rejected = row,
                               .reference_chosen = row,
                               .reference_rejected = row};
  };
  const float one = 1;
  const auto* const shifted =
      reinterpret_cast<const float*>(reinterpret_cast<const char*>(c.loss.block().data()) + 2);
  for (const auto& in :
       {all(&one, -1, 1), all(&one, most / 2, 0), all(&one, 2, most), all(&one, 2, -most - 1),
        all(&one, std::int64_t{1} << 62, 1), all(nullptr, 4, 1), all(shifted, 4, 1)}) {
    refused("policy_chosen", [&] { evaluate(prospect::dpo{}, in, paired_outputs<float>{}); });
    const unpaired_batch<float> completions{.policy = in.policy_chosen,
                                            .reference = in.reference_chosen,
                                            .desirable = u.in().desirable};
    refused("policy", [&] { evaluate(prospect::kto{}, completions, prospect::zero_point(), {}); });
    refused("policy", [&] { evaluate(prospect::kto{}, completions, prospect::cross_class{}, {}); });
    refused("policy", [&] { prospect::cpu::cross_class_points(completions); });
    refused("policy",
            [&] { prospect::cpu::mismatched_kl<float>(in.policy_chosen, in.reference_chosen); });
  }
  // One row alone.
  const auto each = [&](const auto& members, const auto& spoil) {
    for (const auto& [name, member] : members) {
      auto in = c.in();
      in.weight = c.in().policy_chosen;
      in.margin = c.in().policy_chosen;
      spoil(in.*member);
      refused(name, [&] { evaluate(loss, in, c.out()); });
    }
  };
  using batch = paired_batch<float>;
  const std::vector<std::pair<std::string, strided_span<const float> batch::*>> numbers{
      {"policy_rejected", &batch::policy_rejected},
      {"reference_chosen", &batch::reference_chosen},
      {"reference_rejected", &batch::reference_rejected},
      {"weight", &batch::weight},
      {"margin", &batch::margin}};
  const std::vector<std::pair<std::string, strided_span<const std::int32_t> batch::*>> counts{
      {"chosen_tokens", &batch::chosen_tokens}, {"rejected_tokens", &batch::rejected_tokens}};
  const auto spoil_all = [&](const auto& members) {
    each(members, [](auto& row) { row = {nullptr, 4}; });
    each(members, [](auto& row) { row = {row.data(), 4, most}; });
    each(members, [](auto& row) { row = {row.data(), -4}; });
    each(members, [](auto& row) {
      using element = std::remove_reference_t<decltype(row[0])>;
      row = {reinterpret_cast<element*>(reinterpret_cast<const char*>(row.data()) + 1), 4};
    });
  };
  spoil_all(numbers);
  spoil_all(counts);
  using outputs = paired_outputs<float>;
  const std::vector<std::pair<std::string, strided_span<float> outputs::*>> results{
      {"loss", &outputs::loss},
      {"d_policy_chosen", &outputs::d_policy_chosen},
      {"d_policy_rejected", &outputs::d_policy_rejected},
      {"reward_chosen", &outputs::reward_chosen},
      {"reward_rejected", &outputs::reward_rejected}};
  for (const auto& [name, member] : results) {
    for (const strided_span<float> row :
         {strided_span<float>{nullptr, 4}, strided_span<float>{c.loss.view().data(), 4, most},
          strided_span<float>{c.loss.view().data(), -4}}) {
      auto out = c.out();
      out.*member = row;
      refused(name, [&] { evaluate(loss, c.in(), out); });
    }
  }
  auto in = u.in();
  in.desirable = {nullptr, 4};
  refused("desirable", [&] { evaluate(prospect::kto{}, in, prospect::zero_point(), u.out()); });
  in = u.in();
  in.weight = {nullptr, 4};
  refused("weight", [&] { evaluate(prospect::kto{}, in, prospect::zero_point(), u.out()); });
  for (auto* row : c.outputs()) {
    for (const float x : row->elements()) CHECK(same_bits(x, testing::poison<float>()));
  }
}
