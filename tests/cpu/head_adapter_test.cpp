// A low-rank adapter of the head: every schedule leaves what a head does whose weight it was added
// to, and its own gradients beside.

#include <prospect/cpu/head.hpp>

#include <atomic>
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

TEMPLATE_TEST_CASE("every schedule of an adapted head, in every workspace", "[head][adapter]",
                   float, double, bfloat16, float16) {
  random_source random{761};
  CAPTURE(random.seed());
  const std::vector<head_shape> shapes{{0, 7, 5, 2},       {1, 1, 1, 1},      {9, 7, 5, 16},
                                       {9, 1, 2500, 3},    {33, 7, 17000, 1}, {300, 7, 960, 3},
                                       {70, 64, 2500, 16}, {30, 9, 1100, 600}};
  check_shapes<TestType>(random, shapes);
}

TEMPLATE_TEST_CASE("an adapted head's frozen gradient is the same bits in every workspace",
                   "[head][adapter]", float, bfloat16) {
  random_source random{762};
  CAPTURE(random.seed());
  for (const std::int64_t rank : {1, 3, 16}) {
    head_case<TestType> c{random, {50, 24, 6000, rank}, true};
    for (std::size_t v = 0; v < c.bias.size(); ++v) {  // references are raised on the way
      c.bias[v] = stored<TestType>(90 * static_cast<double>(v) / 6000);
    }
    const head_answer want{c};
    head_results<TestType> first{c.shape};
    const std::int64_t least = least_bytes(c, true);
    for (const std::int64_t bytes : {least, 4 * least, plenty}) {
      CAPTURE(rank, bytes);
      head_workspace<compute_t<TestType>> workspace{bytes};
      head_results<TestType> r{c.shape};
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                  workspace);
      check_scores(c, r, want);
      check_hidden(c, r, want.d_hidden_unit, false);
      if (bytes == least) first = r;
      CHECK(r.same_as(first));
    }
  }
}

TEMPLATE_TEST_CASE("an adapter's gradients add to what is there, if asked", "[head][adapter]",
                   float, bfloat16) {
  using R = compute_t<TestType>;
  random_source random{763};
  CAPTURE(random.seed());
  for (const auto& [tokens, masked] :
       {std::pair<std::int64_t, double>{40, 0.2}, {5, 1.0}, {0, 0.0}}) {
    for (const head_schedule which : trained_schedules) {
      for (const bool zero_padding : {false, true}) {
        CAPTURE(tokens, masked, which, zero_padding);
        head_case<TestType> c{
            random, {tokens, 7, 1100, 3}, false, {.zero_padding = zero_padding}, masked};
        const head_answer want{c};
        head_results<TestType> r{c.shape};
        std::vector<double> a = want.d_lora_a, b = want.d_lora_b;
        std::size_t n = 0;
        for (std::int64_t i = 0; i < 3; ++i) {
          r.lora_a.fill_row(i, [&](std::int64_t) { return a[n++] += 0.5, 0.5; });
        }
        n = 0;
        for (std::int64_t v = 0; v < 1100; ++v) {
          r.lora_b.fill_row(v, [&](std::int64_t) { return b[n++] += -2, -2; });
          r.weight.fill_row(v, [](std::int64_t) { return 0; });
        }
        run(c, r, which, r.gradients(true));
        CHECK(testing::distance(r.lora_a.elements(), a) <= sum_tolerance<R>);
        CHECK(testing::distance(r.lora_b.elements(), b) <= sum_tolerance<R>);
        CHECK(testing::distance(r.weight.elements(), want.d_weight) <= sum_tolerance<R>);
        std::int64_t not_zero = 0;
        for (std::int64_t i = 0; i < 3; ++i) not_zero += r.lora_a.view().row(i)[7] == 0 ? 0 : 1;
        for (std::int64_t v = 0; v < 1100; ++v) not_zero += r.lora_b.view().row(v)[3] == 0 ? 0 : 1;
        CHECK(not_zero == (zero_padding ? 0 : 1103));
      }
    }
  }
}

TEST_CASE("of an adapted head, too, what is not wanted is not written", "[head][adapter]") {
  random_source random{764};
  head_case<float> c{random, {20, 7, 1500, 3}, true};
  head_results<float> untouched{c.shape};
  for (const head_schedule which : trained_schedules) {
    head_results<float> whole{c.shape};
    run(c, whole, which, whole.gradients());
    check_gradients(c, whole, head_answer{c});
    for (int wanted = 0; wanted < 16; ++wanted) {
      CAPTURE(which, wanted);
      head_results<float> r{c.shape};
      head_gradients<float> g = r.gradients();
      g.bias = {};
      if (!(wanted & 1)) g.hidden = {};
      if (!(wanted & 2)) g.weight = {};
      if (!(wanted & 4)) g.lora_a = {};
      if (!(wanted & 8)) g.lora_b = {};
      run(c, r, which, g);
      const auto is_of = [&](bool is_wanted, auto part) {
        auto& from = is_wanted ? whole : untouched;
        return same_bits((r.*part).elements(), (from.*part).elements());
      };
      CHECK(is_of(wanted & 1, &head_results<float>::hidden));
      CHECK(is_of(wanted & 2, &head_results<float>::weight));
      CHECK(is_of(wanted & 4, &head_results<float>::lora_a));
      CHECK(is_of(wanted & 8, &head_results<float>::lora_b));
      CHECK(is_of(false, &head_results<float>::bias));
    }
  }
}

TEMPLATE_TEST_CASE("an adapter times 0 is none, to the bit", "[head][adapter]", float, bfloat16) {
  random_source random{765};
  head_case<TestType> c{random, {30, 12, 1100, 5}, true, {.temperature = 0.8}};
  c.lora_scale = 0;
  head_case<TestType> bare = c;
  bare.shape.rank = 0;
  for (const head_schedule which : trained_schedules) {
    CAPTURE(which);
    head_results<TestType> with{c.shape}, without{bare.shape};
    run(c, with, which, with.gradients());
    run(bare, without, which, without.gradients());
    CHECK(same_bits(with.log_prob, without.log_prob));
    CHECK(same_bits(with.lse, without.lse));
    CHECK(same_bits(with.hidden.elements(), without.hidden.elements()));
    CHECK(same_bits(with.weight.elements(), without.weight.elements()));
    CHECK(same_bits(with.bias.elements(), without.bias.elements()));
    for (const auto x : with.lora_a.elements()) CHECK(x == 0);
    for (const auto x : with.lora_b.elements()) CHECK(x == 0);
  }
}

TEST_CASE("an adapter is read in the layout it has", "[head][adapter]") {
  random_source random{766};
  head_case<float> c{random, {24, 7, 1030, 1}, false, {}, 0};
  const head_answer want{c};
  // Of one row, whose pitch is nobody's business; of one column, anywhere apart.
  auto head = c.head();
  head.lora.a.pitch = std::numeric_limits<std::int64_t>::max();
  head_results<float> r{c.shape};
  auto g = r.gradients();
  g.lora_a.pitch = -1;
  head_workspace<float> workspace{plenty};
  const head_ticket ticket =
      head_log_probs(c.hidden.view(), head, c.targets, r.scores(), workspace, true);
  head_gradient(c.hidden.view(), head, c.targets, r.log_prob, r.lse, c.d_token, g, ticket,
                workspace);
  check_scores(c, r, want);
  check_gradients(c, r, want);
}

TEST_CASE("a token of coefficient 0 stays out of an adapter's gradients", "[head][adapter]") {
  random_source random{767};
  head_case<float> c{random, {24, 7, 1030, 3}, false, {}, 0};
  c.d_token[5] = 0;
  const head_answer want{c};
  c.hidden.fill_row(5, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  for (const head_schedule which : trained_schedules) {
    CAPTURE(which);
    head_results<float> r{c.shape};
    run(c, r, which, r.gradients());
    CHECK(std::isnan(r.log_prob[5]));
    check_gradients(c, r, want);
  }
}

TEST_CASE("an adapter costs little beside the weight", "[head][adapter]") {
  random_source random{768};
  head_case<float> c{random, {72, 40, 1200, 8}, true, {}, 0};
  for (float& d : c.d_token) d = d == 0 ? 1.0F : d;
  std::atomic<std::int64_t> work{0};
  const naive_gemm multiply{&work};
  prospect::serial_executor on;
  head_workspace<float> workspace{plenty};
  head_results<float> r{c.shape};
  constexpr std::int64_t whole = 72 * 40 * 1200, of_b = 72 * 8 * 1200, of_a = 72 * 40 * 8;
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, false, c.options,
                 multiply, on);
  CHECK(work.exchange(0) == whole + of_a + of_b);
  // u again and logits, then q and the gradients of b, a and the hidden states; not of the weight.
  auto g = r.gradients();
  g.weight = {};
  head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, g, {},
                workspace, c.options, multiply, on);
  CHECK(work.exchange(0) == 2 * whole + 3 * of_a + 3 * of_b);
}

TEST_CASE("an adapter that does not fit is refused by name", "[head][adapter][errors]") {
  random_source random{769};
  head_case<float> c{random, {6, 8, 9, 3}, true, {}, 0};
  head_results<float> r{c.shape}, untouched{c.shape};
  head_workspace<float> workspace{plenty};
  using adapter = prospect::lora_adapter<float>;
  const auto refused = [&](const auto& change, const auto& change_gradients) {
    auto head = c.head();
    auto g = r.gradients();
    change(head.lora);
    change_gradients(g);
    const std::vector<double> lse(6);
    return testing::refusal([&] {
      head_gradient(c.hidden.view(), head, c.targets, c.d_token, lse, c.d_token, g, {}, workspace);
    });
  };
  const auto lora = [&](const auto& change) {
    const std::string message = refused(change, [](head_gradients<float>&) {});
    // Told before anything is made of it, and in every function.
    auto head = c.head();
    change(head.lora);
    CHECK(testing::refusal([&] {
            head_log_probs(c.hidden.view(), head, c.targets, r.scores(), workspace);
          }) == message);
    CHECK(testing::refusal([&] {
            head_log_probs_and_gradient(c.hidden.view(), head, c.targets, r.scores(),
                                        r.hidden.view(), workspace);
          }) == message);
    CHECK(testing::refusal([&] {
            head_step(
                c.hidden.view(), head, c.targets, sequence_layout::padded(6, 1), 1, r.scores(),
                [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{c.d_token},
                r.gradients(), workspace);
          }) == message);
    return message;
  };
  const auto gradient = [&](const auto& change) { return refused([](adapter&) {}, change); };
  CHECK(lora([](adapter& x) { x.a.columns = 7; }) ==
        "prospect: head.lora.a has 7 columns, hidden has 8");
  CHECK(lora([](adapter& x) { x.a = {}; }) == "prospect: head.lora.a has no rows");
  CHECK(lora([](adapter& x) { x.a.data = nullptr; }) == "prospect: head.lora.a has no data");
  CHECK(lora([](adapter& x) { x.b = {}; }) ==
        "prospect: head.lora.b has 0 rows, head.weight has 9");
  CHECK(lora([](adapter& x) { x.b.rows = 8; }) ==
        "prospect: head.lora.b has 8 rows, head.weight has 9");
  CHECK(lora([](adapter& x) { x.b.columns = 2; }) ==
        "prospect: head.lora.b has 2 columns, head.lora.a has 3 rows");
  CHECK(lora([](adapter& x) { x.b.pitch = 2; }) ==
        "prospect: head.lora.b has a pitch smaller than its columns");
  CHECK(lora([](adapter& x) { x.a.rows = std::int64_t{1} << 62; }).find("head.lora.a is larger") !=
        std::string::npos);
  for (const double bad :
       {1e31, -std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    CHECK(lora([&](adapter& x) { x.scale = bad; }) ==
          "prospect: head.lora.scale must lie within 1e30 of 0");
  }
  CHECK(refused([](adapter& x) { x = {}; }, [](auto& g) { g.lora_b = {}; }) ==
        "prospect: gradients.lora_a is given, and the head has no adapter");
  CHECK(refused([](adapter& x) { x = {}; }, [](auto& g) { g.lora_a = {}; }) ==
        "prospect: gradients.lora_b is given, and the head has no adapter");
  CHECK(gradient([](auto& g) { g.lora_a.rows = 2; }) ==
        "prospect: gradients.lora_a differs in size from head.lora.a");
  CHECK(gradient([](auto& g) { g.lora_b.columns = 2; }) ==
        "prospect: gradients.lora_b differs in size from head.lora.b");
  CHECK(gradient([&](auto& g) { g.lora_a = c.lora_a.view(); }) ==
        "prospect: gradients.lora_a must not be head.lora.a itself");
  CHECK(gradient([&](auto& g) { g.lora_b = c.lora_b.view(); }) ==
        "prospect: gradients.lora_b must not be head.lora.b itself");
  CHECK(gradient([&](auto& g) { g.lora_b.data = nullptr; }) ==
        "prospect: gradients.lora_b has no data");
  CHECK(r.same_as(untouched));
}
