// The head path in C against the C++ one, to the bit: this file is compiled for the instruction set
// that the archive chooses on this machine (CMakeLists.txt).
#include <prospect/cpu/head.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "c/surface.hpp"
#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/head_checks.hpp"
#include "random.hpp"

namespace {

using namespace testing;
using namespace prospect::cpu;

void ok(prospect_status status, const prospect_error& error) {
  CAPTURE(std::string{error.message});
  REQUIRE(status == PROSPECT_OK);
}

/// A handle of the C surface.
struct c_workspace {
  prospect_head_workspace* handle = nullptr;

  explicit c_workspace(std::int64_t bytes) {
    REQUIRE(prospect_head_workspace_create(bytes, &handle, nullptr) == PROSPECT_OK);
  }
  ~c_workspace() { prospect_head_workspace_destroy(handle); }
  c_workspace(const c_workspace&) = delete;
  c_workspace& operator=(const c_workspace&) = delete;
};
struct c_ticket {
  prospect_head_ticket* handle = nullptr;

  c_ticket() { REQUIRE(prospect_head_ticket_create(&handle, nullptr) == PROSPECT_OK); }
  ~c_ticket() { prospect_head_ticket_destroy(handle); }
  c_ticket(const c_ticket&) = delete;
  c_ticket& operator=(const c_ticket&) = delete;
  std::int64_t kept() const { return prospect_head_ticket_kept(handle); }
};

/// A case and its results as C has them.
template <class S>
struct c_arguments {
  using R = compute_t<S>;

  prospect_matrix hidden;
  prospect_layout layout = sized<prospect_layout>();
  prospect_head head = sized<prospect_head>();
  prospect_tokens tokens = sized<prospect_tokens>();
  prospect_token_results results = sized<prospect_token_results>();
  prospect_token_coefficients coefficients = sized<prospect_token_coefficients>();
  prospect_head_gradients gradients = sized<prospect_head_gradients>();
  prospect_matrix d_hidden;
  prospect_error error{};

  c_arguments(head_case<S>& c, head_results<S>& r)
      : hidden{c_matrix(c.hidden.view())}, d_hidden{c_matrix(r.hidden.view())} {
    head.weight = c_matrix(c.weight.view());
    head.bias = c_row(c.bias);
    if (c.shape.rank > 0) {
      head.lora = {c_matrix(c.lora_a.view()), c_matrix(c.lora_b.view()), c.lora_scale};
      gradients.lora_a = c_matrix(r.lora_a.view());
      gradients.lora_b = c_matrix(r.lora_b.view());
    }
    layout.sequences = c.shape.tokens;
    layout.length = 1;
    tokens.targets = c_row(c.targets);
    tokens.layout = &layout;
    tokens.temperature = c.options.temperature;
    if (std::isfinite(c.options.soft_cap)) tokens.soft_cap = c.options.soft_cap;
    results.log_prob = coefficients.log_prob = c_row(r.log_prob);
    results.lse = coefficients.lse = c_row(r.lse);
    results.entropy = c_row(r.entropy);
    coefficients.d_token = c_row(c.d_token);
    gradients.hidden = d_hidden;
    gradients.weight = c_matrix(r.weight.view());
    gradients.bias = c_row(r.bias);
  }

  prospect_status log_probs(prospect_head_ticket* ticket, bool keep, const c_workspace& in,
                            const prospect_context* context = nullptr) {
    return prospect_head_log_probs_cpu(hidden, &head, &tokens, &results, ticket, keep, in.handle,
                                       context, &error);
  }
  prospect_status log_probs_and_gradient(const c_workspace& in) {
    return prospect_head_log_probs_and_gradient_cpu(hidden, &head, &tokens, &results, d_hidden,
                                                    in.handle, nullptr, &error);
  }
  prospect_status gradient(const prospect_head_ticket* ticket, const c_workspace& in,
                           const prospect_context* context = nullptr) {
    return prospect_head_gradient_cpu(hidden, &head, &tokens, &coefficients, &gradients, ticket,
                                      in.handle, context, &error);
  }
  /// Coefficients of more than one, whose rows go into `softmax`.
  void with_entropy(std::vector<R>& softmax, std::vector<R>& d_entropy, head_results<S>& r) {
    coefficients.d_token = {};
    coefficients.softmax = coefficients.onehot = c_row(softmax);
    coefficients.d_entropy = c_row(d_entropy);
    coefficients.entropy = c_row(r.entropy);
  }
};

/// A case of each kind: bare and adapted, biased and not.
template <class S>
std::vector<head_case<S>> cases(random_source& random) {
  std::vector<head_case<S>> all;
  for (const std::int64_t rank : {0, 3}) {
    for (const head_variant& variant : variants) {
      all.emplace_back(random, head_shape{60, 20, 1500, rank}, variant.bias, variant.options);
    }
  }
  return all;
}

}  // namespace

TEMPLATE_TEST_CASE("the head path in C is the one in C++, to the bit", "[c][head]", float, double,
                   bfloat16, float16) {
  using R = compute_t<TestType>;
  random_source random{901};
  CAPTURE(random.seed());
  std::int64_t some_kept = 0;
  for (auto& c : cases<TestType>(random)) {
    const std::int64_t least = least_bytes(c, false);
    for (const std::int64_t bytes :
         {2 * least, least + 30 * 1536 * std::int64_t{sizeof(R)}, plenty}) {
      for (const bool keep : {false, true}) {
        CAPTURE(c.shape.rank, c.bias.empty(), c.options.soft_cap, bytes, keep);
        head_results<TestType> want{c.shape}, got{c.shape};
        head_workspace<R> workspace{bytes};
        const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets,
                                                  want.scores(), workspace, keep, c.options);
        c_arguments<TestType> given{c, got};
        const c_workspace theirs{bytes};
        const c_ticket ours;
        ok(given.log_probs(ours.handle, keep, theirs), given.error);
        CHECK(got.same_as(want));
        CHECK(ours.kept() == ticket.kept());
        some_kept += ours.kept() > 0 ? 1 : 0;
        head_gradient(c.hidden.view(), c.head(), c.targets, want.log_prob, want.lse, c.d_token,
                      want.gradients(), ticket, workspace, c.options);
        ok(given.gradient(ours.handle, theirs), given.error);
        CHECK(got.same_as(want));
        CHECK(ours.kept() == 0);
        check_gradients(c, got, head_answer{c});
        // Again, added to what is there, without a ticket.
        head_gradient(c.hidden.view(), c.head(), c.targets, want.log_prob, want.lse, c.d_token,
                      want.gradients(true), {}, workspace, c.options);
        given.gradients.accumulate = 1;
        ok(given.gradient(nullptr, theirs), given.error);
        CHECK(got.same_as(want));
      }
    }
    head_results<TestType> want{c.shape}, got{c.shape};
    head_workspace<R> workspace{plenty};
    const c_workspace theirs{plenty};
    head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, want.scores(),
                                want.hidden.view(), workspace, c.options);
    c_arguments<TestType> given{c, got};
    ok(given.log_probs_and_gradient(theirs), given.error);
    CHECK(got.same_as(want));
  }
  CHECK(some_kept > 0);
}

TEMPLATE_TEST_CASE("a head's entropies have coefficients in C", "[c][head]", float, bfloat16) {
  using R = compute_t<TestType>;
  random_source random{902};
  head_case<TestType> c{random, {60, 20, 1500, 2}, true};
  std::vector<R> softmax, d_entropy;
  for (const R d : c.d_token) {
    softmax.push_back(-d);
    d_entropy.push_back(static_cast<R>(random.normal(0.3)));
  }
  head_results<TestType> want{c.shape}, got{c.shape};
  head_workspace<R> workspace{plenty};
  const head_ticket ticket =
      head_log_probs(c.hidden.view(), c.head(), c.targets, want.scores(), workspace);
  head_gradient(
      c.hidden.view(), c.head(), c.targets, want.log_prob, want.lse,
      {.softmax = softmax, .onehot = softmax, .d_entropy = d_entropy, .entropy = want.entropy},
      want.gradients(), ticket, workspace);
  c_arguments<TestType> given{c, got};
  given.with_entropy(softmax, d_entropy, got);
  const c_workspace theirs{plenty};
  ok(given.log_probs(nullptr, false, theirs), given.error);
  ok(given.gradient(nullptr, theirs), given.error);
  CHECK(got.same_as(want));
}

namespace {

/// What a host's callback writes, a few sequences at a time.
struct coefficients_to_come {
  std::vector<float> values, row;
  std::int64_t length, next = 0, calls = 0, stop_at = -1;

  static prospect_status ready(void* context, std::int64_t first, std::int64_t last) {
    auto& self = *static_cast<coefficients_to_come*>(context);
    if (first != self.next) return PROSPECT_INTERNAL_ERROR;
    self.next = last;
    ++self.calls;
    if (self.stop_at >= 0 && first >= self.stop_at) return PROSPECT_ABSENT;
    const auto begin = self.values.begin();
    std::copy(begin + first * self.length, begin + last * self.length,
              self.row.begin() + first * self.length);
    return PROSPECT_OK;
  }
};

}  // namespace

TEMPLATE_TEST_CASE("a trained head in one go, in C", "[c][head]", float, bfloat16) {
  random_source random{903};
  for (const std::int64_t rank : {0, 3}) {
    head_case<TestType> c{random, {64, 20, 1500, rank}, true, {.temperature = 0.7}};
    const auto layout = sequence_layout::padded(16, 4);
    // Room for a few sequences at a time.
    head_results<TestType> unused{c.shape};
    head_workspace<float> none{1};
    const std::int64_t bytes = needed_bytes([&] {
      head_step(
          c.hidden.view(), c.head(), c.targets, layout, 2, unused.scores(),
          [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{c.d_token},
          unused.gradients(), none, c.options);
    });
    head_results<TestType> want{c.shape}, got{c.shape};
    head_workspace<float> workspace{bytes};
    const std::vector<float> poisoned(c.d_token.size(), poison<float>());
    coefficients_to_come cpp{c.d_token, poisoned, 4};
    head_step(
        c.hidden.view(), c.head(), c.targets, layout, 2, want.scores(),
        [&](std::int64_t first, std::int64_t last) {
          CHECK(coefficients_to_come::ready(&cpp, first, last) == PROSPECT_OK);
        },
        prospect::strided_span<const float>{cpp.row}, want.gradients(), workspace, c.options);
    check_gradients(c, want, head_answer{c});

    c_arguments<TestType> given{c, got};
    given.layout.sequences = 16;
    given.layout.length = 4;
    given.coefficients.log_prob = given.coefficients.lse = {};
    coefficients_to_come come{c.d_token, poisoned, 4};
    given.coefficients.d_token = c_row(come.row);
    const c_workspace theirs{bytes};
    auto step = sized<prospect_head_step>();
    step.hidden = given.hidden;
    step.head = &given.head;
    step.tokens = &given.tokens;
    step.group = 2;
    step.results = &given.results;
    step.ready = {&come, coefficients_to_come::ready};
    step.coefficients = &given.coefficients;
    step.gradients = &given.gradients;
    step.workspace = theirs.handle;
    ok(prospect_head_step_cpu(&step, nullptr, &given.error), given.error);
    CHECK(come.next == 16);
    CHECK(come.calls > 1);
    CHECK(come.calls == cpp.calls);
    CHECK(got.same_as(want));

    // A host that gives up says so with a status of its own.
    coefficients_to_come stopped{c.d_token, poisoned, 4};
    stopped.stop_at = 1;
    step.ready.context = &stopped;
    refused(prospect_head_step_cpu(&step, nullptr, &given.error), PROSPECT_ABSENT, given.error,
            "ready answered 5 for sequences ");
    step.ready.ready = nullptr;
    refused(prospect_head_step_cpu(&step, nullptr, &given.error), PROSPECT_INVALID_ARGUMENT,
            given.error, "step.ready.ready is NULL");
    step.ready.ready = coefficients_to_come::ready;
    given.coefficients.lse = c_row(got.lse);
    refused(prospect_head_step_cpu(&step, nullptr, &given.error), PROSPECT_INVALID_ARGUMENT,
            given.error, "a step reads its own");
  }
}

TEST_CASE("a ticket in C is of one pass", "[c][head]") {
  random_source random{904};
  head_case<float> c{random, {60, 20, 1500, 3}, true};
  head_results<float> r{c.shape};
  c_arguments<float> given{c, r};
  const c_ticket ticket;
  CHECK(ticket.kept() == 0);
  CHECK(prospect_head_ticket_kept(nullptr) == 0);
  {
    const c_workspace workspace{plenty};
    ok(given.log_probs(ticket.handle, true, workspace), given.error);
    CHECK(ticket.kept() > 0);
    given.head.lora.scale *= 2;
    refused(given.gradient(ticket.handle, workspace), PROSPECT_INVALID_ARGUMENT, given.error,
            "ticket is of another adapter");
    given.head.lora.scale /= 2;
    CHECK(ticket.kept() > 0);
    // The same memory for the other arithmetic, which forgets.
    head_case<double> d{random, {9, 4, 30}, true};
    head_results<double> of_d{d.shape};
    c_arguments<double> other{d, of_d};
    ok(other.log_probs(nullptr, false, workspace), other.error);
    CHECK(ticket.kept() == 0);
    ok(given.gradient(ticket.handle, workspace), given.error);
    check_gradients(c, r, head_answer{c});
    ok(given.log_probs(ticket.handle, true, workspace), given.error);
    CHECK(ticket.kept() > 0);
  }
  CHECK(ticket.kept() == 0);  // its workspace is gone
  const c_workspace workspace{plenty};
  ok(given.gradient(ticket.handle, workspace), given.error);
  check_gradients(c, r, head_answer{c});
  refused(given.log_probs(nullptr, true, workspace), PROSPECT_INVALID_ARGUMENT, given.error,
          "ticket is NULL");
}

TEST_CASE("a head in C runs where its context says, and takes no scratch", "[c][head]") {
  random_source random{905};
  head_case<float> c{random, {60, 20, 1500, 3}, true};
  head_results<float> want{c.shape}, got{c.shape}, untouched{c.shape};
  c_arguments<float> first{c, want}, second{c, got};
  const c_workspace workspace{plenty};
  std::size_t needed = 0;
  auto context = sized<prospect_context>();
  context.query = &needed;
  ok(second.log_probs(nullptr, false, workspace, &context), second.error);
  ok(second.gradient(nullptr, workspace, &context), second.error);
  CHECK(needed == 0);
  CHECK(got.same_as(untouched));
  context.query = nullptr;
  std::int64_t calls = 0;
  const prospect_executor backwards{
      &calls, [](void* count, std::int64_t n, void (*body)(void*, std::int64_t), void* argument) {
        ++*static_cast<std::int64_t*>(count);
        while (n-- > 0) body(argument, n);
      }};
  context.executor = &backwards;
  ok(first.log_probs(nullptr, false, workspace), first.error);
  ok(first.gradient(nullptr, workspace), first.error);
  CHECK(calls == 0);
  ok(second.log_probs(nullptr, false, workspace, &context), second.error);
  ok(second.gradient(nullptr, workspace, &context), second.error);
  CHECK(calls > 0);
  CHECK(got.same_as(want));
}

TEST_CASE("arguments of the head path in C are refused by name", "[c][head]") {
  random_source random{906};
  head_case<bfloat16> c{random, {6, 8, 9, 3}, true, {}, 0};
  head_results<bfloat16> r{c.shape}, untouched{c.shape};
  const c_workspace workspace{plenty};
  c_arguments<bfloat16> given{c, r};
  const auto with = [&](prospect_status expected, const char* words, const auto& change) {
    c_arguments<bfloat16> a = given;
    a.tokens.layout = &a.layout;
    change(a);
    refused(a.gradient(nullptr, workspace), expected, a.error, words);
  };
  const prospect_status wrong = PROSPECT_INVALID_ARGUMENT, unknown = PROSPECT_UNSUPPORTED;
  with(unknown, "hidden.dtype must be", [](auto& a) { a.hidden.dtype = PROSPECT_I32; });
  with(unknown, "head.weight.dtype must be PROSPECT_BF16, as the hidden states are",
       [](auto& a) { a.head.weight.dtype = PROSPECT_F16; });
  with(unknown, "head.bias.dtype must be PROSPECT_BF16",
       [](auto& a) { a.head.bias.dtype = PROSPECT_F32; });
  with(unknown, "head.lora.a.dtype must be PROSPECT_BF16",
       [](auto& a) { a.head.lora.a.dtype = PROSPECT_F32; });
  with(unknown, "gradients.hidden.dtype must be PROSPECT_BF16",
       [](auto& a) { a.gradients.hidden.dtype = PROSPECT_F32; });
  with(unknown, "gradients.weight.dtype must be PROSPECT_F32",
       [](auto& a) { a.gradients.weight.dtype = PROSPECT_BF16; });
  with(unknown, "gradients.lora_b.dtype must be PROSPECT_F32",
       [](auto& a) { a.gradients.lora_b.dtype = PROSPECT_F64; });
  with(unknown, "head.weight.reserved must be 0", [](auto& a) { a.head.weight.reserved = 1; });
  with(unknown, "gradients.reserved must be 0", [](auto& a) { a.gradients.reserved = 1; });
  with(wrong, "head.weight has no data", [](auto& a) { a.head.weight.data = nullptr; });
  with(wrong, "head.lora.a has 7 columns, hidden has 8",
       [](auto& a) { a.head.lora.a.columns = 7; });
  with(wrong, "head.lora.a has no rows", [](auto& a) { a.head.lora.a = {}; });
  with(wrong, "head.lora.b has 0 rows, head.weight has 9", [](auto& a) { a.head.lora.b = {}; });
  with(wrong, "head.lora.scale is 0", [](auto& a) { a.head.lora.scale = 0; });
  with(wrong, "gradients.lora_a is given, and the head has no adapter",
       [](auto& a) { a.head.lora = {}; });
  with(unknown, "the head path takes the whole vocabulary",
       [](auto& a) { a.tokens.first_token = 1; });
  with(unknown, "the head path takes the whole vocabulary",
       [](auto& a) { a.tokens.vocabulary = 10; });
  with(wrong, "targets", [](auto& a) { a.tokens.targets.size = 5; });
  with(wrong, "d_token has 5 elements", [](auto& a) { a.coefficients.d_token.size = 5; });
  CHECK(prospect_head_gradient_cpu(given.hidden, nullptr, &given.tokens, &given.coefficients,
                                   &given.gradients, nullptr, workspace.handle, nullptr,
                                   &given.error) == wrong);
  refused(prospect_head_gradient_cpu(given.hidden, &given.head, &given.tokens, &given.coefficients,
                                     &given.gradients, nullptr, nullptr, nullptr, &given.error),
          wrong, given.error, "workspace is NULL");
  const c_workspace small{100};
  refused(given.gradient(nullptr, small), wrong, given.error,
          "workspace of 100 bytes is too small");
  refused(prospect_head_workspace_create(1, nullptr, &given.error), wrong, given.error,
          "workspace is NULL");
  refused(prospect_head_ticket_create(nullptr, &given.error), wrong, given.error, "ticket is NULL");
  prospect_head_workspace_destroy(nullptr);
  prospect_head_ticket_destroy(nullptr);
  CHECK(r.same_as(untouched));
  given.tokens.vocabulary = 9;
  CHECK(given.log_probs(nullptr, false, workspace) == PROSPECT_OK);
}
