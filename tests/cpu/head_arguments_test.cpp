// What the head path refuses, by name and before any work.

#include <prospect/cpu/head.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

}  // namespace

TEST_CASE("a workspace that is too small is refused with the size that is enough",
          "[head][errors]") {
  random_source random{710};
  for (const head_shape shape : {head_shape{1, 1, 1}, {9, 64, 961}, {100, 7, 5000}}) {
    head_case<bfloat16> c{random, shape, false, {}, 0};
    CAPTURE(shape.tokens, shape.vocabulary);
    head_results<bfloat16> r{shape}, untouched{shape};
    const auto log_probs = [&](bool keep) {
      return [&, keep](head_workspace<float>& workspace) {
        head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
      };
    };
    const auto frozen = [&](head_workspace<float>& workspace) {
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                  workspace);
    };
    const auto least_of = [&](const auto& call) {
      head_workspace<float> none{1};
      const std::int64_t least = needed_bytes([&] { call(none); });
      CHECK(least > 0);
      for (const std::int64_t bytes : {std::int64_t{-5}, std::int64_t{0}, least - 1, least}) {
        CAPTURE(bytes, least);
        head_workspace<float> workspace{bytes};
        CHECK(needed_bytes([&] { call(workspace); }) == (bytes < least ? least : 0));
        if (bytes < least) CHECK(r.same_as(untouched));
      }
      r = head_results<bfloat16>{shape};
      return least;
    };
    // Log-probs alone need no room for gradients of hidden states.
    const std::int64_t alone = least_of(log_probs(false));
    CHECK(alone < least_of(log_probs(true)));
    CHECK(alone < least_of(frozen));
  }
}

TEST_CASE("a step whose groups do not fit is refused before any work", "[head][errors]") {
  random_source random{711};
  head_case<float> c{random, {40, 7, 1100}, true, {}, 0};
  // The last pair is the longest.
  const std::vector<std::int64_t> offsets{0, 3, 6, 20, 40};
  const auto layout = sequence_layout::packed(offsets);
  const auto bytes = [&] {
    head_workspace<float> none{1};
    head_results<float> r{c.shape};
    return needed_bytes([&] {
      head_step(
          c.hidden.view(), c.head(), c.targets, layout, 2, r.scores(),
          [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{c.d_token},
          r.gradients(), none);
    });
  }();
  prospect::serial_executor on;
  head_results<float> r{c.shape}, untouched{c.shape};
  // Enough for the twenty-four rows that are the least, not for the thirty-four of the last pair.
  head_workspace<float> workspace{bytes};
  REQUIRE_FALSE(run_step(c, r, layout, 2, workspace, on));
  CHECK(r.same_as(untouched));
}

TEST_CASE("arguments of the head path are refused by name", "[head][errors]") {
  random_source random{712};
  head_case<float> c{random, {6, 4, 9}, true, {}, 0};
  head_results<float> r{c.shape}, untouched{c.shape};
  head_workspace<float> workspace{plenty};
  using prospect::matrix_view;
  const auto h = c.hidden.view();
  const matrix_view<float> fewer_rows{h.data, 5, 4, h.pitch}, narrow{h.data, 6, 3, h.pitch};
  const matrix_view<float> bad_pitch{h.data, 6, 4, 3};
  const std::vector<float> five(5, 1.0F), six(6, 1.0F);
  const std::vector<double> lse(6), five_lse(5);
  std::vector<float> out_five(5);
  const auto layout = sequence_layout::padded(3, 2);
  const prospect::strided_span<const float> d{six};
  const auto nothing = [](std::int64_t, std::int64_t) {};

  const auto log_probs = [&](matrix_view<const float> hidden, prospect::cpu::lm_head<float> head,
                             std::vector<std::int64_t> targets, head_options options = {}) {
    return testing::refusal(
        [&] { head_log_probs(hidden, head, targets, r.scores(), workspace, false, options); });
  };
  const auto backward = [&](const head_gradients<float>& g, std::size_t rows = 6) {
    return testing::refusal([&] {
      head_gradient(h, c.head(), c.targets, rows == 6 ? six : five, lse, six, g, {}, workspace);
    });
  };
  const auto step = [&](const sequence_layout& l, std::int64_t group,
                        const prospect::token_outputs<float>& out) {
    return testing::refusal([&] {
      head_step(h, c.head(), c.targets, l, group, out, nothing, d, r.gradients(), workspace);
    });
  };
  const auto names = [](const std::string& message, const std::string& argument) {
    CAPTURE(message, argument);
    CHECK(message.find("prospect: " + argument) != std::string::npos);
  };
  names(log_probs(fewer_rows, c.head(), c.targets), "targets");
  names(log_probs(narrow, c.head(), c.targets), "head.weight");
  names(log_probs(bad_pitch, c.head(), c.targets), "hidden has a pitch");
  names(log_probs(h, {.weight = c.weight.view(), .bias = five}, c.targets), "head.bias");
  names(log_probs(h, {.weight = {c.weight.view().data, 9, 4, 2}}, c.targets),
        "head.weight has a pitch");
  auto targets = c.targets;
  for (const std::int64_t bad : {std::int64_t{9}, std::int64_t{-1}, std::int64_t{1} << 32}) {
    targets[3] = bad;
    names(log_probs(h, c.head(), targets), "targets[3]");
    names(log_probs(h, c.head(), targets), "targets[3] = " + std::to_string(bad));
  }
  names(log_probs(h, c.head(), c.targets, {.temperature = 0}), "temperature");
  names(log_probs(h, c.head(), c.targets, {.temperature = 1e-300}), "temperature");
  names(log_probs(h, c.head(), c.targets, {.soft_cap = -1}), "soft_cap");
  names(log_probs(h, c.head(), c.targets, {.inverse_temperatures = five}), "inverse_temperatures");
  auto inverse = six;
  for (const float bad : {0.0F, -1.0F, 1e-38F, std::numeric_limits<float>::infinity(),
                          std::numeric_limits<float>::quiet_NaN()}) {
    inverse[5] = bad;
    names(log_probs(h, c.head(), c.targets, {.inverse_temperatures = inverse}),
          "inverse_temperatures[5]");
  }
  const std::vector<std::uint8_t> seen(5, 1);
  names(log_probs(h, c.head(), c.targets, {.mask = seen}), "mask");
  names(testing::refusal(
            [&] { head_log_probs(h, c.head(), c.targets, {.log_prob = out_five}, workspace); }),
        "log_prob");
  names(backward(r.gradients(), 5), "log_prob");
  names(testing::refusal([&] {
          head_gradient(h, c.head(), c.targets, six, five_lse, six, r.gradients(), {}, workspace);
        }),
        "lse");
  names(testing::refusal([&] {
          head_gradient(h, c.head(), c.targets, six, lse, five, r.gradients(), {}, workspace);
        }),
        "d_token");
  auto g = r.gradients();
  g.hidden.rows = 5;
  names(backward(g), "gradients.hidden");
  g = r.gradients();
  g.weight.columns = 3;
  names(backward(g), "gradients.weight");
  g = r.gradients();
  g.bias = out_five;
  names(backward(g), "gradients.bias");
  g = r.gradients();
  g.hidden = h;
  names(backward(g), "gradients.hidden must not be hidden itself");
  g = r.gradients();
  g.weight = c.weight.view();
  names(backward(g), "gradients.weight must not be head.weight itself");
  names(step(sequence_layout::padded(2, 2), 1, r.scores()), "layout");
  for (const std::int64_t bad : {0, -1, 2}) names(step(layout, bad, r.scores()), "group");
  names(step(layout, 1, {.log_prob = r.log_prob}), "lse");
  names(step(layout, 1, {.lse = r.lse}), "log_prob");
  // More than one coefficient.
  const auto with = [&](const prospect::token_coefficients<float>& by) {
    const std::string refused = testing::refusal(
        [&] { head_gradient(h, c.head(), c.targets, six, lse, by, r.gradients(), {}, workspace); });
    CHECK(testing::refusal([&] {
            head_step(h, c.head(), c.targets, layout, 1, r.scores(), nothing, by, r.gradients(),
                      workspace);
          }) == refused);
    return refused;
  };
  names(with({.softmax = five, .onehot = six}), "coefficients.softmax");
  names(with({.softmax = six, .onehot = five}), "coefficients.onehot");
  names(with({.softmax = six, .onehot = six, .d_entropy = six}), "coefficients.entropy");
  names(with({.softmax = six, .onehot = six, .entropy = six}), "coefficients.d_entropy");
  names(testing::refusal([&] {
          head_step(h, c.head(), c.targets, layout, 1, r.scores(), nothing,
                    {.softmax = six, .onehot = six, .d_entropy = six, .entropy = six},
                    r.gradients(), workspace);
        }),
        "coefficients.entropy must be the row that out.entropy is");
  CHECK(r.same_as(untouched));
}

TEST_CASE("the head path multiplies no sizes that overflow, and reads nothing that is no memory",
          "[head][errors]") {
  random_source random{713};
  head_case<float> c{random, {6, 4, 9}, true, {}, 0};
  head_results<float> r{c.shape}, untouched{c.shape};
  using prospect::matrix_view;
  constexpr std::int64_t huge = std::int64_t{1} << 62;
  constexpr std::int64_t most = std::numeric_limits<std::int64_t>::max();
  const std::vector<float> rows(6, 1.0F);
  const std::vector<double> lse(6, 1.0);

  struct call {
    matrix_view<const float> hidden;
    prospect::cpu::lm_head<float> head;
    prospect::index_row targets;
    prospect::strided_span<const float> log_prob, d_token;
    prospect::strided_span<const double> lse;
    head_gradients<float> gradients;
    head_options options = {};
    std::int64_t bytes = plenty;
  };
  const auto refused = [&](const auto& change) {
    call x{c.hidden.view(), c.head(), c.targets, rows, rows, lse, r.gradients()};
    change(x);
    head_workspace<float> workspace{x.bytes};
    return testing::refusal([&] {
      head_gradient(x.hidden, x.head, x.targets, x.log_prob, x.lse, x.d_token, x.gradients, {},
                    workspace, x.options);
    });
  };
  const auto names = [&](const std::string& argument, const auto& change) {
    const std::string message = refused(change);
    CAPTURE(message, argument);
    CHECK(message.find("prospect: " + argument) == 0);
  };
  const auto not_aligned = [](const float* p) {
    return reinterpret_cast<float*>(reinterpret_cast<std::uintptr_t>(p) + 1);
  };
  CHECK(refused([](call&) {}) == "accepted");
  r = untouched;

  names("hidden has no data", [](call& x) { x.hidden.data = nullptr; });
  names("hidden is not aligned", [&](call& x) { x.hidden.data = not_aligned(x.hidden.data); });
  names("hidden has a negative size", [](call& x) { x.hidden.rows = -6; });
  names("hidden has a negative size", [](call& x) { x.hidden.columns = -4; });
  names("hidden has no columns", [](call& x) { x.hidden.columns = x.head.weight.columns = 0; });
  names("head.weight has no data", [](call& x) { x.head.weight.data = nullptr; });
  names("head.weight has a negative size", [](call& x) { x.head.weight.rows = -9; });
  for (const std::int64_t size : {huge, most, most / 2}) {
    CAPTURE(size);
    names("hidden is larger", [&](call& x) { x.hidden.pitch = size; });
    names("hidden is larger", [&](call& x) { x.hidden.rows = size; });
    names("hidden is larger", [&](call& x) { x.hidden.columns = x.hidden.pitch = size; });
    names("head.weight is larger", [&](call& x) { x.head.weight.rows = size; });
    names("head.weight is larger", [&](call& x) { x.head.weight.pitch = size; });
    names("targets", [&](call& x) { x.targets = {c.targets.data(), size, 0}; });
    names("targets is larger", [&](call& x) { x.targets = {c.targets.data(), 6, size}; });
    names("head.bias is larger", [&](call& x) { x.head.bias = {rows.data(), 9, size}; });
    names("log_prob is larger", [&](call& x) { x.log_prob = {rows.data(), 6, size}; });
    names("lse is larger", [&](call& x) { x.lse = {lse.data(), 6, size}; });
    names("d_token is larger", [&](call& x) { x.d_token = {rows.data(), 6, -size}; });
    names("gradients.hidden is larger", [&](call& x) { x.gradients.hidden.pitch = size; });
    names("gradients.weight is larger", [&](call& x) { x.gradients.weight.pitch = size; });
    names("gradients.weight", [&](call& x) { x.gradients.weight.rows = size; });
    names("inverse_temperatures is larger", [&](call& x) {
      x.options.inverse_temperatures = {rows.data(), 6, size};
    });
  }
  names("targets has no data", [](call& x) {
    x.targets = {static_cast<const std::int64_t*>(nullptr), 6};
  });
  names("log_prob has no data", [](call& x) { x.log_prob = {nullptr, 6}; });
  names("lse has no data", [](call& x) { x.lse = {nullptr, 6}; });
  names("d_token has no data", [](call& x) { x.d_token = {nullptr, 6}; });
  names("head.bias has no data", [](call& x) { x.head.bias = {nullptr, 9}; });
  names("gradients.hidden has no data", [](call& x) { x.gradients.hidden.data = nullptr; });
  names("gradients.weight has no data", [](call& x) { x.gradients.weight.data = nullptr; });
  names("gradients.bias has no data", [](call& x) { x.gradients.bias = {nullptr, 9}; });
  names("gradients.bias is not aligned", [&](call& x) {
    x.gradients.bias = {not_aligned(rows.data()), 9};
  });
  for (const std::int64_t bytes : {-most - 1, std::int64_t{-1}, std::int64_t{0}}) {
    names("workspace", [&](call& x) { x.bytes = bytes; });
  }
  CHECK(r.same_as(untouched));
  // As much as one likes is no more than is needed.
  CHECK(refused([](call& x) { x.bytes = most; }) == "accepted");
}

TEST_CASE("sizes that could be memory, but no workspace holds, are refused as such",
          "[head][errors]") {
  // Nothing of these is read: there are no tokens, but a plan is made all the same.
  const float x = 0;
  head_workspace<float> workspace{std::numeric_limits<std::int64_t>::max()};
  const std::int64_t wide = std::int64_t{1} << 44;
  const prospect::matrix_view<const float> hidden{nullptr, 0, wide};
  CHECK(testing::refuses("workspace", [&] {
    head_log_probs<float>(hidden, {.weight = {&x, 2, wide}}, prospect::index_row{}, {}, workspace);
  }));
  CHECK(testing::refuses("workspace", [&] {
    head_step<float>(
        hidden, {.weight = {&x, 2, wide}}, prospect::index_row{}, sequence_layout::padded(0, 1), 1,
        {}, [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{}, {},
        workspace);
  }));
  const std::int64_t tall = std::int64_t{1} << 45;
  head_workspace<float> small{1 << 20};
  CHECK(testing::refuses("workspace", [&] {
    head_step<float>(
        {nullptr, 0, 1}, {.weight = {&x, tall, 1}}, prospect::index_row{},
        sequence_layout::padded(0, 1), 1, {}, [](std::int64_t, std::int64_t) {},
        prospect::strided_span<const float>{}, {}, small);
  }));
}

TEST_CASE("a matrix of one row has no pitch in the head path", "[head]") {
  random_source random{714};
  for (const std::int64_t pitch : {std::int64_t{1}, std::numeric_limits<std::int64_t>::max()}) {
    CAPTURE(pitch);
    head_case<float> c{random, {1, 24, 1}, true, {}, 0};
    const head_answer want{c};
    head_results<float> r{c.shape};
    auto hidden = c.hidden.view();
    auto head = c.head();
    auto g = r.gradients();
    hidden.pitch = head.weight.pitch = g.hidden.pitch = g.weight.pitch = pitch;
    head_workspace<float> workspace{plenty};
    const head_ticket ticket = head_log_probs(hidden, head, c.targets, r.scores(), workspace, true);
    head_gradient(hidden, head, c.targets, r.log_prob, r.lse, c.d_token, g, ticket, workspace);
    check_scores(c, r, want);
    check_gradients(c, r, want);
  }
}
