// Options of the head path: a temperature for each token, masks, zeroed padding; and layouts that
// leave tokens out.

#include <prospect/cpu/head.hpp>

#include <cstdint>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

/// What each schedule leaves: after log-probs without and with kept gradients, after a step, and
/// the frozen head's. Of each, what is right was checked.
template <class S>
std::vector<head_results<S>> every_schedule(head_case<S>& c, std::int64_t bytes) {
  using R = compute_t<S>;
  const head_answer want{c};
  std::vector<head_results<S>> all;
  head_workspace<R> workspace{bytes};
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    auto& r = all.emplace_back(c.shape);
    const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                              workspace, keep, c.options);
    check_scores(c, r, want);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  ticket, workspace, c.options);
    check_gradients(c, r, want);
  }
  auto& step = all.emplace_back(c.shape);
  head_workspace<R> enough{plenty};
  prospect::serial_executor on;
  REQUIRE(run_step(c, step, sequence_layout::padded(c.shape.tokens / 4, 4), 1, enough, on));
  check_scores(c, step, want);
  check_gradients(c, step, want);
  auto& frozen = all.emplace_back(c.shape);
  head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, frozen.scores(),
                              frozen.hidden.view(), workspace, c.options);
  check_scores(c, frozen, want);
  check_hidden(c, frozen, want.d_hidden_unit, false);
  return all;
}

template <class S>
bool same(std::vector<head_results<S>> a, std::vector<head_results<S>> b) {
  bool equal = a.size() == b.size();
  for (std::size_t i = 0; equal && i < a.size(); ++i) equal = a[i].same_as(b[i]);
  return equal;
}

/// Nothing outside the rows was written, and their padding is 0.
template <class S>
bool padding_zeroed(logits_matrix<S>& m) {
  const auto view = m.view();
  std::size_t wrong = 0, inside = 0;
  for (std::int64_t i = 0; i < view.rows; ++i) {
    for (std::int64_t j = view.columns; j < view.pitch; ++j) {
      wrong += same_bits(m.at(i, j), stored<S>(0)) ? 0 : 1;
    }
    inside += static_cast<std::size_t>(view.pitch);
  }
  std::size_t poisoned = 0;
  for (const S& x : m.block()) poisoned += same_bits(x, poison<S>()) ? 1 : 0;
  return wrong == 0 && poisoned == m.block().size() - inside;
}

}  // namespace

TEMPLATE_TEST_CASE("each token of the head path has a temperature of its own", "[head]", float,
                   double, bfloat16) {
  random_source random{741};
  for (const double cap : {prospect::no_cap, 7.0}) {
    head_case<TestType> c{random, {60, 20, 1500}, true, {.temperature = 0.8, .soft_cap = cap}};
    std::vector<float> inverse;
    for (const auto y : c.targets) {
      inverse.push_back(y == ignored_target ? std::numeric_limits<float>::quiet_NaN()
                                            : static_cast<float>(random.uniform(0.3, 2)));
    }
    c.options.inverse_temperatures = inverse;
    for (const std::int64_t bytes : {2 * least_bytes(c, false), plenty}) {
      CAPTURE(cap, bytes);
      every_schedule(c, bytes);
    }
    // The same one for all is the temperature.
    inverse.assign(inverse.size(), 0.5F);
    const auto own = every_schedule(c, plenty);
    c.options.inverse_temperatures = {};
    c.options.temperature *= 2;
    CHECK(same(own, every_schedule(c, plenty)));
  }
}

TEMPLATE_TEST_CASE("a mask of the head path does what targets of -100 do", "[head]", float,
                   bfloat16) {
  random_source random{742};
  const head_shape shape = GENERATE(head_shape{60, 20, 1500}, head_shape{4, 3, 7});
  head_case<TestType> c{random, shape, true};
  const auto by_target = every_schedule(c, plenty);
  std::vector<std::uint8_t> bytes;
  std::vector<std::int32_t> numbers;
  std::vector<float> shares;
  auto targets = c.targets;
  for (auto& y : targets) {
    const bool scored = y != ignored_target;
    bytes.push_back(scored ? 1 : 0);
    numbers.push_back(scored ? -3 : 0);
    shares.push_back(scored ? 0.25F : 0.0F);
    if (!scored) y = std::numeric_limits<std::int64_t>::max();  // whatever a host leaves there
  }
  c.targets = targets;
  for (const prospect::mask_row& mask :
       {prospect::mask_row{bytes}, prospect::mask_row{numbers}, prospect::mask_row{shares}}) {
    c.options.mask = mask;
    CHECK(same(by_target, every_schedule(c, plenty)));
  }
  // Nothing left: zeros.
  bytes.assign(bytes.size(), 0);
  c.options.mask = bytes;
  for (auto& r : every_schedule(c, plenty))
    CHECK(r.log_prob == std::vector<compute_t<TestType>>(r.log_prob.size()));
}

TEMPLATE_TEST_CASE("a step leaves out the tokens of no sequence", "[head]", float, bfloat16) {
  using R = compute_t<TestType>;
  random_source random{743};
  head_case<TestType> c{random, {50, 20, 1500}, true};
  const std::vector<std::int32_t> begins{3, 10, 10, 31}, ends{10, 10, 24, 47};
  const auto layout = sequence_layout::ranges(begins, ends);
  prospect::serial_executor on;
  for (const std::int64_t group : {1, 2}) {
    head_workspace<R> workspace{plenty};
    head_results<TestType> got{c.shape};
    REQUIRE(run_step(c, got, layout, group, workspace, on));
    head_case<TestType> masked = c;
    for (std::size_t t = 0; t < 50; ++t) {
      if (t < 3 || (t >= 24 && t < 31) || t >= 47) masked.targets[t] = ignored_target;
    }
    const head_answer want{masked};
    check_scores(masked, got, want);
    check_gradients(masked, got, want);
  }
}

TEMPLATE_TEST_CASE("the padding of gradients becomes 0, if asked", "[head]", float, double,
                   bfloat16) {
  using R = compute_t<TestType>;
  random_source random{744};
  enum { apart, in_one_step, frozen };
  for (const auto& [tokens, masked] :
       {std::pair<std::int64_t, double>{40, 0.2}, {1, 0.0}, {5, 1.0}, {0, 0.0}}) {
    for (const int schedule : {apart, in_one_step, frozen}) {
      for (const bool accumulate : {false, true}) {
        CAPTURE(tokens, masked, schedule, accumulate);
        head_case<TestType> c{random, {tokens, 7, 1100}, true, {.zero_padding = true}, masked};
        const head_answer want{c};
        head_workspace<R> workspace{plenty};
        head_results<TestType> r{c.shape};
        for (std::int64_t v = 0; accumulate && v < 1100; ++v) {
          r.weight.fill_row(v, [](std::int64_t) { return 0; });
          r.bias[v] = 0;
        }
        if (schedule == apart) {
          const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets,
                                                    r.scores(), workspace, true, c.options);
          head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                        r.gradients(accumulate), ticket, workspace, c.options);
        } else if (schedule == in_one_step) {
          head_step(
              c.hidden.view(), c.head(), c.targets, sequence_layout::padded(tokens, 1), 1,
              r.scores(), [](std::int64_t, std::int64_t) {},
              prospect::strided_span<const R>{c.d_token}, r.gradients(accumulate), workspace,
              c.options);
        } else {
          head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(),
                                      r.hidden.view(), workspace, c.options);
        }
        CHECK(padding_zeroed(r.hidden));
        CHECK(distance(r.hidden.elements(),
                       schedule == frozen ? want.d_hidden_unit : want.d_hidden) <=
              stored_tolerance<TestType>);
        if (schedule == frozen) continue;
        CHECK(padding_zeroed(r.weight));
        CHECK(distance(r.weight.elements(), want.d_weight) <= sum_tolerance<R>);
      }
    }
  }
}

TEST_CASE("padding that no memory has is refused only where it would be written",
          "[head][errors]") {
  random_source random{745};
  head_case<float> c{random, {1, 24, 1}, false, {}, 0};
  head_results<float> r{c.shape}, untouched{c.shape};
  head_workspace<float> workspace{plenty};
  auto g = r.gradients();
  g.hidden.pitch = std::int64_t{1} << 60;
  const std::vector<double> lse(1);
  const auto backward = [&](const head_options& options) {
    return testing::refusal([&] {
      head_gradient(c.hidden.view(), c.head(), c.targets, c.d_token, lse, c.d_token, g, {},
                    workspace, options);
    });
  };
  CHECK(backward({.zero_padding = true}).find("prospect: gradients.hidden is larger") == 0);
  CHECK(r.same_as(untouched));
  CHECK(backward({}) == "accepted");
}
