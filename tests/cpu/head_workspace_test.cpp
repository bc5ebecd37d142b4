// Tickets: gradients kept in a workspace serve the pass they were made by, and no other.

#include <prospect/cpu/head.hpp>

#include <algorithm>
#include <cstdint>
#include <stdexcept>
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

/// Two batches that share the head and the targets, and what is right for each.
struct two_batches {
  random_source random{731};
  head_case<float> a{random, {60, 8, 1100, 3}, true, {.temperature = 0.8, .soft_cap = 20}};
  head_case<float> b = a;
  head_workspace<float> workspace{plenty};

  two_batches() {
    for (std::int64_t t = 0; t < 60; ++t) {
      if (b.targets[static_cast<std::size_t>(t)] == ignored_target) continue;
      b.hidden.fill_row(t, [&](std::int64_t) { return random.normal(1); });
    }
  }
  head_ticket forward(head_case<float>& c, head_results<float>& r, head_workspace<float>& in,
                      bool keep = true) {
    return head_log_probs(c.hidden.view(), a_head(), c.targets, r.scores(), in, keep, c.options);
  }
  void backward(head_case<float>& c, head_results<float>& r, const head_ticket& ticket,
                head_workspace<float>& in) {
    head_gradient(c.hidden.view(), a_head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  ticket, in, c.options);
  }
  /// The same weight for both, where it lies too.
  lm_head<float> a_head() { return a.head(); }

  bool right(head_case<float>& c, head_results<float>& r) {
    const head_answer want{c};
    return distance(r.hidden.elements(), want.d_hidden) <= 1e-5 &&
           distance(r.weight.elements(), want.d_weight) <= 1e-5 &&
           distance(r.bias.elements(), want.d_bias) <= 1e-5 &&
           distance(r.lora_a.elements(), want.d_lora_a) <= 1e-5 &&
           distance(r.lora_b.elements(), want.d_lora_b) <= 1e-5;
  }
};

}  // namespace

TEST_CASE("a backward pass never takes the gradients of another forward pass", "[head][ticket]") {
  two_batches x;
  head_results<float> a{x.a.shape}, b{x.a.shape};
  const head_ticket first = x.forward(x.a, a, x.workspace);
  const std::int64_t kept = first.kept();
  REQUIRE(kept > 0);
  const head_ticket second = x.forward(x.b, b, x.workspace);
  CHECK(first.kept() == 0);
  CHECK(second.kept() == kept);
  SECTION("the older one first") {
    x.backward(x.a, a, first, x.workspace);
    CHECK(x.right(x.a, a));
    x.backward(x.b, b, second, x.workspace);
    CHECK(x.right(x.b, b));
  }
  SECTION("the newer one first") {
    x.backward(x.b, b, second, x.workspace);
    CHECK(x.right(x.b, b));
    x.backward(x.a, a, first, x.workspace);
    CHECK(x.right(x.a, a));
  }
  SECTION("the wrong one") {
    head_results<float> before = a;
    CHECK(testing::refusal([&] { x.backward(x.a, a, second, x.workspace); }) ==
          "prospect: ticket is of other hidden states");
    CHECK(a.same_as(before));
    CHECK(second.kept() == kept);
    x.backward(x.b, b, second, x.workspace);
    CHECK(x.right(x.b, b));
  }
}

TEST_CASE("a ticket can be used again, and anywhere", "[head][ticket]") {
  two_batches x;
  head_results<float> once{x.a.shape};
  const head_ticket ticket = x.forward(x.a, once, x.workspace);
  const head_ticket copy = ticket;
  CHECK(copy.kept() == ticket.kept());
  x.backward(x.a, once, ticket, x.workspace);
  CHECK(x.right(x.a, once));
  CHECK(ticket.kept() == 0);
  CHECK(copy.kept() == 0);
  head_results<float> again = once;
  x.backward(x.a, again, copy, x.workspace);
  CHECK(x.right(x.a, again));
  // In a workspace that holds gradients of its own, which it thereby loses.
  head_workspace<float> other{plenty};
  head_results<float> b{x.a.shape};
  const head_ticket of_other = x.forward(x.b, b, other);
  x.backward(x.a, again, ticket, other);
  CHECK(x.right(x.a, again));
  CHECK(of_other.kept() == 0);
  x.backward(x.b, b, of_other, other);
  CHECK(x.right(x.b, b));
}

TEST_CASE("a default ticket has everything computed again", "[head][ticket]") {
  two_batches x;
  head_results<float> a{x.a.shape}, b{x.a.shape};
  CHECK(head_ticket{}.kept() == 0);
  x.forward(x.a, a, x.workspace, false);
  const head_ticket of_b = x.forward(x.b, b, x.workspace);
  REQUIRE(of_b.kept() > 0);
  x.backward(x.a, a, {}, x.workspace);
  CHECK(x.right(x.a, a));
  CHECK(of_b.kept() == 0);
}

TEST_CASE("whatever a workspace is used for in between, the ticket knows", "[head][ticket]") {
  two_batches x;
  head_results<float> a{x.a.shape}, other{x.a.shape};
  const head_ticket ticket = x.forward(x.a, a, x.workspace);
  REQUIRE(ticket.kept() > 0);
  enum { log_probs, frozen_head, step, no_tokens };
  const int between = GENERATE(int{log_probs}, int{frozen_head}, int{step}, int{no_tokens});
  CAPTURE(between);
  if (between == log_probs) x.forward(x.b, other, x.workspace, false);
  if (between == frozen_head) {
    head_log_probs_and_gradient(x.b.hidden.view(), x.a_head(), x.b.targets, other.scores(),
                                other.hidden.view(), x.workspace);
  }
  if (between == step) {
    head_step(
        x.b.hidden.view(), x.a_head(), x.b.targets, sequence_layout::padded(60, 1), 1,
        other.scores(), [](std::int64_t, std::int64_t) {},
        prospect::strided_span<const float>{x.b.d_token}, other.gradients(), x.workspace);
  }
  if (between == no_tokens) {
    const std::vector<std::int64_t> none(60, ignored_target);
    head_log_probs(x.b.hidden.view(), x.a_head(), none, other.scores(), x.workspace, true);
  }
  CHECK(ticket.kept() == 0);
  x.backward(x.a, a, ticket, x.workspace);
  CHECK(x.right(x.a, a));
}

TEST_CASE("a forward pass that fails leaves nothing to a ticket", "[head][ticket]") {
  two_batches x;
  head_results<float> a{x.a.shape}, b{x.a.shape};
  const head_ticket ticket = x.forward(x.a, a, x.workspace);
  struct failing_gemm {
    void operator()(gemm_operand<float>, gemm_operand<float>, prospect::matrix_view<float>,
                    bool) const {
      throw std::runtime_error{"no"};
    }
  };
  CHECK_THROWS_AS(head_log_probs(x.b.hidden.view(), x.a_head(), x.b.targets, b.scores(),
                                 x.workspace, true, x.b.options, failing_gemm{}),
                  std::runtime_error);
  CHECK(ticket.kept() == 0);
  x.backward(x.a, a, ticket, x.workspace);
  CHECK(x.right(x.a, a));
  // And a backward pass that fails has used them up.
  const head_ticket next = x.forward(x.a, a, x.workspace);
  CHECK_THROWS_AS(
      head_gradient(x.a.hidden.view(), x.a_head(), x.a.targets, a.log_prob, a.lse, x.a.d_token,
                    a.gradients(), next, x.workspace, x.a.options, failing_gemm{}),
      std::runtime_error);
  CHECK(next.kept() == 0);
  x.backward(x.a, a, next, x.workspace);
  CHECK(x.right(x.a, a));
}

TEST_CASE("a ticket of other arguments is refused by what differs", "[head][ticket]") {
  two_batches x;
  const bool keep = GENERATE(true, false);
  CAPTURE(keep);
  head_results<float> a{x.a.shape};
  const auto inverse = std::vector<float>(60, 0.5F);
  auto options = x.a.options;
  options.inverse_temperatures = inverse;
  const auto pass = [&] {
    return head_log_probs(x.a.hidden.view(), x.a_head(), x.a.targets, a.scores(), x.workspace, keep,
                          options);
  };
  const head_ticket ticket = pass();
  head_results<float> before = a;
  const auto refused = [&](const auto& change) {
    auto hidden = x.a.hidden.view();
    auto head = x.a_head();
    auto targets = x.a.targets;
    auto o = options;
    change(hidden, head, targets, o);
    return testing::refusal([&] {
      const auto first = [&](auto row) { return row.slice(0, hidden.rows); };
      using prospect::strided_span;
      head_gradient<float>(hidden, head, targets, first(strided_span<const float>{a.log_prob}),
                           first(strided_span<const double>{a.lse}),
                           first(strided_span<const float>{x.a.d_token}), {.bias = a.bias.view()},
                           ticket, x.workspace, o);
    });
  };
  const std::string hidden_states = "prospect: ticket is of other hidden states";
  CHECK(refused([&](auto& h, auto&, auto&, auto&) { h.data = x.b.hidden.view().data; }) ==
        hidden_states);
  CHECK(refused([&](auto& h, auto&, auto&, auto&) { ++h.pitch; }) == hidden_states);
  CHECK(refused([&](auto& h, auto&, auto& t, auto& o) {
          t.resize(static_cast<std::size_t>(--h.rows));
          o.inverse_temperatures = o.inverse_temperatures.slice(0, h.rows);
        }) == hidden_states);
  const std::string another_head = "prospect: ticket is of another head";
  CHECK(refused([&](auto&, auto& head, auto&, auto&) {
          head.weight.data = x.b.weight.view().data;
        }) == another_head);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) { head.bias = {}; }) == another_head);
  const std::string another_adapter = "prospect: ticket is of another adapter";
  CHECK(refused([&](auto&, auto& head, auto&, auto&) { head.lora = {}; }) == another_adapter);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) {
          head.lora.a.data = x.b.lora_a.view().data;
        }) == another_adapter);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) {
          head.lora.b.data = x.b.lora_b.view().data;
        }) == another_adapter);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) { --head.lora.a.pitch; }) == another_adapter);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) { --head.lora.b.pitch; }) == another_adapter);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) {
          head.lora.a.rows = head.lora.b.columns = 2;
        }) == another_adapter);
  CHECK(refused([&](auto&, auto& head, auto&, auto&) { head.lora.scale = 2; }) == another_adapter);
  const std::string other_targets = "prospect: ticket is of other targets";
  CHECK(refused([](auto&, auto&, auto& t, auto&) {
          for (auto& y : t) {
            if (y != ignored_target) return static_cast<void>(y = (y + 1) % 1100);
          }
        }) == other_targets);
  CHECK(refused([](auto&, auto&, auto& t, auto&) {
          std::swap(*std::find(t.begin(), t.end(), ignored_target),
                    *std::find_if(t.begin(), t.end(), [](auto y) { return y != ignored_target; }));
        }) == other_targets);
  CHECK(refused([](auto&, auto&, auto&, auto& o) { o.temperature = 0.81; }) ==
        "prospect: ticket is of another temperature");
  CHECK(refused([](auto&, auto&, auto&, auto& o) { o.inverse_temperatures = {}; }) ==
        "prospect: ticket is of another temperature");
  CHECK(refused([](auto&, auto&, auto&, auto& o) { o.soft_cap = 21; }) ==
        "prospect: ticket is of another soft cap");
  CHECK(refused([](auto&, auto&, auto&, auto& o) { o.soft_cap = prospect::no_cap; }) ==
        "prospect: ticket is of another soft cap");
  CHECK(a.same_as(before));
  // A mask that leaves out what the targets leave out is no difference.
  std::vector<std::uint8_t> mask;
  for (const auto y : x.a.targets) mask.push_back(y == ignored_target ? 0 : 1);
  CHECK(refused([&](auto&, auto&, auto& t, auto& o) {
          for (auto& y : t) y = y == ignored_target ? 1 << 30 : y;
          o.mask = mask;
        }) == "accepted");
}

TEST_CASE("a moved workspace takes along what it keeps", "[head][ticket]") {
  two_batches x;
  head_results<float> a{x.a.shape}, b{x.a.shape};
  const head_ticket ticket = x.forward(x.a, a, x.workspace);
  const std::int64_t kept = ticket.kept();
  head_workspace<float> moved{std::move(x.workspace)};
  CHECK(ticket.kept() == kept);
  x.backward(x.a, a, ticket, moved);
  CHECK(ticket.kept() == 0);
  CHECK(x.right(x.a, a));
  // What is left is a workspace like any other.
  CHECK(x.workspace.bytes() == plenty);
  const head_ticket next = x.forward(x.b, b, x.workspace);
  CHECK(next.kept() == kept);
  // One that is moved into forgets what it kept.
  head_workspace<float> target{1};
  const head_ticket of_moved = x.forward(x.a, a, moved);
  moved = std::move(x.workspace);
  CHECK(of_moved.kept() == 0);
  CHECK(next.kept() == kept);
  x.backward(x.a, a, of_moved, moved);  // computed again, and the memory is needed for it
  CHECK(x.right(x.a, a));
  x.backward(x.b, b, next, moved);
  CHECK(x.right(x.b, b));
}

TEST_CASE("a ticket outlives its workspace", "[head][ticket]") {
  two_batches x;
  head_results<float> a{x.a.shape};
  head_ticket ticket;
  {
    head_workspace<float> short_lived{plenty};
    ticket = x.forward(x.a, a, short_lived);
    CHECK(ticket.kept() > 0);
  }
  CHECK(ticket.kept() == 0);
  // The next one may well lie where it lay.
  head_workspace<float> next{plenty};
  head_results<float> b{x.a.shape};
  x.forward(x.b, b, next);
  x.backward(x.a, a, ticket, next);
  CHECK(x.right(x.a, a));
}
