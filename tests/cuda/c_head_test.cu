// The head path in C against the C++ one, to the bit: every schedule, storage, and what a caller's
// functions and memory may do.
#include <prospect/c/cublaslt.h>
#include <prospect/cuda/head.cuh>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "cuda/c_surface.hpp"
#include "cuda/device.hpp"
#include "cuda/head_device.hpp"
#include "random.hpp"

namespace {

namespace gpu = prospect::cuda;
using prospect::bfloat16;
using prospect::float16;
using testing::c_matrix;
using testing::c_row;
using testing::device_array;
using testing::head_case;
using testing::head_shape;
using testing::on_device;
using testing::random_source;
using testing::refused;
using testing::require_success;
using testing::same_bits;
using testing::sized;
using testing::test_gemm;

/// The product of the test behind a C callback.
struct c_gemm {
  const test_gemm& multiply;
  std::int64_t calls = 0;
  prospect_status answer = PROSPECT_OK;

  prospect_gemm theirs() {
    return {this, [](void* self, const prospect_gemm_product* p, CUstream_st* stream) {
              return static_cast<c_gemm*>(self)->run(*p, stream);
            }};
  }

 private:
  template <class T>
  static prospect::matrix_view<T> view(const prospect_matrix& m) {
    return {static_cast<T*>(m.data), m.rows, m.columns, m.pitch};
  }
  template <class S>
  prospect_status multiplied(const prospect_gemm_product& p, cudaStream_t stream) const {
    const auto side = [](const prospect_gemm_operand& o) {
      return gpu::gemm_operand<S>{view<const S>(o.matrix), o.transposed != 0};
    };
    const cudaError_t status = multiply(
        gpu::gemm_product<S>{.a = side(p.a),
                             .b = side(p.b),
                             .c = view<float>(p.c),
                             .alpha = p.alpha,
                             .beta = p.beta,
                             .bias = p.bias,
                             .tokens = p.tokens == PROSPECT_GEMM_INNER ? gpu::gemm_tokens::inner
                                                                       : gpu::gemm_tokens::rows},
        stream);
    return status == cudaSuccess ? PROSPECT_OK : PROSPECT_CUDA_ERROR + static_cast<int>(status);
  }
  prospect_status run(const prospect_gemm_product& p, cudaStream_t stream) {
    ++calls;
    CHECK(p.struct_size == sizeof p);
    CHECK(p.a.matrix.dtype == p.b.matrix.dtype);
    CHECK(p.c.dtype == PROSPECT_F32);
    if (answer != PROSPECT_OK) return answer;
    switch (p.a.matrix.dtype) {
      case PROSPECT_F32:
        return multiplied<float>(p, stream);
      case PROSPECT_BF16:
        return multiplied<bfloat16>(p, stream);
      case PROSPECT_F16:
        return multiplied<float16>(p, stream);
      default:
        return PROSPECT_UNSUPPORTED;
    }
  }
};

/// A case on the device as C has it.
template <class S>
struct c_arguments {
  prospect_head head = sized<prospect_head>();
  prospect_layout layout = sized<prospect_layout>();
  prospect_tokens tokens = sized<prospect_tokens>();
  prospect_head_rows rows = sized<prospect_head_rows>();
  prospect_token_results results = sized<prospect_token_results>();
  prospect_token_coefficients coefficients = sized<prospect_token_coefficients>();
  prospect_head_gradients gradients = sized<prospect_head_gradients>();
  prospect_matrix d_hidden;
  std::int64_t kept = 42;
  prospect_error error{};

  c_arguments(on_device<S>& d, c_gemm& multiply) : d_hidden{c_matrix(d.d_hidden.view())} {
    const head_case<S>& c = d.c;
    head.weight = c_matrix(d.weight.view());
    if (!c.bias.empty()) head.bias = c_row(d.bias);
    if (c.shape.rank > 0) {
      head.lora = {c_matrix(d.lora_a.view()), c_matrix(d.lora_b.view()), c.lora_scale};
      gradients.lora_a = c_matrix(d.d_a.view());
      gradients.lora_b = c_matrix(d.d_b.view());
    }
    tokens.targets = c_row(d.targets);
    tokens.temperature = c.options.temperature;
    if (std::isfinite(c.options.soft_cap)) tokens.soft_cap = c.options.soft_cap;
    if (!d.inverse.empty()) tokens.inverse_temperatures = c_row(d.inverse_temperatures);
    rows.hidden = c_matrix(d.hidden.view());
    rows.head = &head;
    rows.tokens = &tokens;
    rows.scored_at_most = d.count();
    rows.scored = d.scored.data();
    rows.gemm = multiply.theirs();
    results.log_prob = coefficients.log_prob = c_row(d.log_prob);
    results.lse = coefficients.lse = c_row(d.lse);
    results.entropy = c_row(d.entropy);
    results.sum_squares = c_row(d.squares);
    results.mean_logit = c_row(d.mean);
    results.target_is_argmax = c_row(d.argmax);
    coefficients.d_token = c_row(d.d_token);
    gradients.hidden = d_hidden;
    gradients.weight = c_matrix(d.d_weight.view());
    if (!c.bias.empty()) gradients.bias = c_row(d.d_bias);
  }
  c_arguments(const c_arguments&) = delete;
  c_arguments& operator=(const c_arguments&) = delete;

  prospect_status log_probs(const prospect_context* on, bool keep) {
    return prospect_head_log_probs_cuda(&rows, &results, keep ? &kept : nullptr, on, &error);
  }
  prospect_status log_probs_and_gradient(const prospect_context* on) {
    return prospect_head_log_probs_and_gradient_cuda(&rows, &results, d_hidden, on, &error);
  }
  prospect_status gradient(const prospect_context* on, std::int64_t of_kept = 0) {
    return prospect_head_gradient_cuda(&rows, &coefficients, &gradients, of_kept, on, &error);
  }
  prospect_device_head_step step(std::int64_t group, const prospect_device_head_ready& ready) {
    auto s = sized<prospect_device_head_step>();
    tokens.layout = &layout;
    coefficients.log_prob = coefficients.lse = {};
    s.rows = &rows;
    s.group = group;
    s.results = &results;
    s.ready = ready;
    s.coefficients = &coefficients;
    s.gradients = &gradients;
    return s;
  }
};

prospect_context in_memory(const device_array<std::byte>& memory) {
  auto context = sized<prospect_context>();
  context.scratch = memory.data();
  context.scratch_size = memory.bytes();
  return context;
}
/// What a call says that it takes.
template <class Call>
std::size_t asked(const Call& call) {
  std::size_t bytes = 0;
  auto context = sized<prospect_context>();
  context.query = &bytes;
  REQUIRE(call(&context) == PROSPECT_OK);
  return bytes;
}
void done(prospect_status status, const prospect_error& error) {
  testing::require_ok(status, error);
  testing::synchronise();
}

template <class S>
void check_same_results(on_device<S>& got, on_device<S>& want) {
  CHECK(same_bits(got.log_prob.host(), want.log_prob.host()));
  CHECK(same_bits(got.lse.host(), want.lse.host()));
  CHECK(same_bits(got.entropy.host(), want.entropy.host()));
  CHECK(same_bits(got.squares.host(), want.squares.host()));
  CHECK(same_bits(got.mean.host(), want.mean.host()));
  CHECK(got.argmax.host() == want.argmax.host());
  CHECK(got.scored.host() == want.scored.host());
}
/// Padding included.
template <class S>
void check_same_gradients(on_device<S>& got, on_device<S>& want) {
  CHECK(same_bits(got.d_hidden.fetch().block(), want.d_hidden.fetch().block()));
  CHECK(same_bits(got.d_weight.fetch().block(), want.d_weight.fetch().block()));
  CHECK(same_bits(got.d_bias.host(), want.d_bias.host()));
  CHECK(same_bits(got.d_a.fetch().block(), want.d_a.fetch().block()));
  CHECK(same_bits(got.d_b.fetch().block(), want.d_b.fetch().block()));
}

/// Log-probs and the gradient after them, with kept gradients and without, and the frozen head, in
/// a share of the memory that is of use.
template <class S>
void check_twins(head_case<S>& c, const test_gemm& multiply, double share) {
  CAPTURE(c.shape.tokens, c.shape.rank, c.bias.empty(), share);
  c_gemm theirs{multiply};
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    on_device<S> want{c}, got{c};
    c_arguments<S> given{got, theirs};
    gpu::head_ticket ticket;
    const auto forward = [&](gpu::scratch space) {
      return gpu::head_log_probs<S>(want.rows(), want.out(), multiply, space, nullptr,
                                    keep ? &ticket : nullptr);
    };
    const auto backward = [&](gpu::scratch space, bool accumulate) {
      auto gradients = want.gradients();
      gradients.accumulate = accumulate;
      return gpu::head_gradient<S>(want.rows(), want.log_prob.input(), want.lse.input(),
                                   want.d_token.input(), gradients, ticket, multiply, space,
                                   nullptr);
    };
    std::size_t forth = 0, back = 0;
    require_success(forward(gpu::scratch::size_into(forth)));
    ticket = {};
    require_success(backward(gpu::scratch::size_into(back), false));
    const std::int64_t calls = theirs.calls;
    CHECK(asked([&](const auto* on) { return given.log_probs(on, keep); }) == forth);
    CHECK(asked([&](const auto* on) { return given.gradient(on); }) == back);
    CHECK(theirs.calls == calls);
    CHECK(given.kept == 42);

    const auto bytes = static_cast<std::size_t>(share * static_cast<double>(std::max(forth, back)));
    const device_array<std::byte> ours(bytes), c_memory(bytes);
    const prospect_context on = in_memory(c_memory);
    require_success(forward({ours.data(), bytes}));
    done(given.log_probs(&on, keep), given.error);
    check_same_results(got, want);
    CHECK(theirs.calls > calls);
    CHECK(given.kept == (keep ? ticket.kept : 42));
    CHECK((!keep || ticket.kept > 0));
    require_success(backward({ours.data(), bytes}, false));
    done(given.gradient(&on, ticket.kept), given.error);
    check_same_gradients(got, want);
    if (keep) continue;
    require_success(backward({ours.data(), bytes}, true));  // and added to what is there
    given.gradients.accumulate = 1;
    done(given.gradient(&on), given.error);
    check_same_gradients(got, want);
  }
  on_device<S> want{c}, got{c};
  c_arguments<S> given{got, theirs};
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_log_probs_and_gradient<S>(want.rows(), want.out(), want.d_hidden.view(),
                                               multiply, space, nullptr);
  }));
  testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
    const prospect_status status = given.log_probs_and_gradient(on);
    *e = given.error;
    return status;
  });
  check_same_results(got, want);
  check_same_gradients(got, want);
}

TEMPLATE_TEST_CASE("the head path in C is the one in C++ on the device, to the bit", "", float,
                   bfloat16, float16) {
  random_source random{1401};
  const test_gemm multiply;
  head_case<TestType> bare{random, {40, 16, 37, 0}, false};
  check_twins(bare, multiply, 1);
  head_case<TestType> capped{random, {40, 16, 37, 0}, true, {.temperature = 0.8, .soft_cap = 6}};
  capped.options.zero_padding = false;
  check_twins(capped, multiply, 1);
  head_case<TestType> adapted{random, {300, 24, 130, 3}, true};
  check_twins(adapted, multiply, 0.7);
}

TEST_CASE("coefficients of three, options and masks of the head in C on the device") {
  random_source random{1402};
  const test_gemm multiply;
  c_gemm theirs{multiply};
  std::vector<float> inverse;
  for (int t = 0; t < 50; ++t) inverse.push_back(static_cast<float>(std::exp(random.normal(0.4))));
  head_case<bfloat16> c{random, {50, 12, 90, 2}, true, {.temperature = 0.8, .soft_cap = 6}};
  c.options.inverse_temperatures = inverse;
  for (int t = 0; t < 50; ++t) c.d_entropy.push_back(static_cast<float>(random.normal(1)));
  on_device<bfloat16> want{c}, got{c};
  c_arguments<bfloat16> given{got, theirs};
  const device_array<std::uint8_t> mask(testing::flags(random, 50));
  auto rows = want.rows();
  rows.options.mask = mask.input();
  rows.options.zero_padding = true;
  given.tokens.mask = c_row(mask);
  given.tokens.zero_padding = 1;
  prospect::token_coefficients<float> by{want.d_token.input(), want.d_token.input(),
                                         want.d_entropy.input(), want.entropy.input()};
  given.coefficients.d_token = {};
  given.coefficients.softmax = given.coefficients.onehot = c_row(got.d_token);
  given.coefficients.d_entropy = c_row(got.d_entropy);
  given.coefficients.entropy = c_row(got.entropy);
  const auto run = [&](const auto& ours, const auto& call) {
    require_success(testing::with_scratch(ours));
    testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
      const prospect_status status = call(on);
      *e = given.error;
      return status;
    });
  };
  run(
      [&](gpu::scratch space) {
        return gpu::head_log_probs<bfloat16>(rows, want.out(), multiply, space, nullptr);
      },
      [&](const auto* on) { return given.log_probs(on, false); });
  check_same_results(got, want);
  CHECK(got.scored.host()[0] < got.count());
  run(
      [&](gpu::scratch space) {
        return gpu::head_gradient<bfloat16>(rows, want.log_prob.input(), want.lse.input(), by,
                                            want.gradients(), multiply, space, nullptr);
      },
      [&](const auto* on) { return given.gradient(on, 128); });  // of kept ones none is of use
  check_same_gradients(got, want);
}

TEST_CASE("parts of a vocabulary through the head in C on the device") {
  random_source random{1403};
  const test_gemm multiply;
  c_gemm theirs{multiply};
  head_case<float16> c{random, {50, 16, 200, 0}, true};
  on_device<float16> want{c}, got{c};
  const std::int64_t cut = 77;
  const auto n = static_cast<std::int64_t>(want.n);
  const device_array<prospect::vocabulary_partial> ours(2 * want.n);
  const device_array<prospect_partial> in_c(2 * want.n);
  const auto bytes = [](const auto& partials) {
    std::vector<double> all;
    for (const auto& p : partials.host()) {
      const auto* const numbers = reinterpret_cast<const double*>(&p);
      all.insert(all.end(), numbers, numbers + sizeof p / sizeof(double));
    }
    return all;
  };
  for (const bool second : {false, true}) {
    const std::int64_t first = second ? cut : 0, size = second ? 200 - cut : cut;
    auto rows = want.rows();
    auto& w = rows.head.weight;
    w = {w.row(first), size, w.columns, w.pitch};
    rows.head.bias = {rows.head.bias.data() + first, size};
    rows.first_token = first;
    rows.vocabulary = 200;
    require_success(testing::with_scratch([&](gpu::scratch space) {
      return gpu::head_vocabulary_partials<float16>(rows, {ours.data() + (second ? n : 0), n}, true,
                                                    multiply, space, nullptr);
    }));
    c_arguments<float16> given{got, theirs};
    given.head.weight = c_matrix(w);
    given.head.bias = prospect_row_slice(given.head.bias, first, size);
    given.tokens.first_token = first;
    given.tokens.vocabulary = 200;
    testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_head_vocabulary_partials_cuda(&given.rows, 1, in_c.data() + (second ? n : 0),
                                                    on, e);
    });
    // Nothing but partials is of a part.
    refused(given.log_probs(nullptr, false), PROSPECT_INVALID_ARGUMENT, given.error,
            "vocabulary is split here");
  }
  CHECK(same_bits(bytes(in_c), bytes(ours)));
  // Together they are the whole, up to roundings.
  c_arguments<float16> given{got, theirs};
  done(prospect_combine_partials_cuda(in_c.data(), 2, &given.tokens, &given.results, nullptr,
                                      &given.error),
       given.error);
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_log_probs<float16>(want.rows(), want.out(), multiply, space, nullptr);
  }));
  testing::check_close(got.log_prob.host(), want.log_prob.host(), 1e-5L, 1e-5L);
}

/// What a host's callback puts on the stream, a few sequences at a time.
struct coefficients_to_come {
  const std::vector<std::int64_t>& offsets;
  const float* from;
  float* to;
  std::int64_t next = 0, calls = 0, stop_at = -1;

  prospect_device_head_ready theirs() {
    return {this, [](void* self, std::int64_t first, std::int64_t last, CUstream_st* stream) {
              return static_cast<coefficients_to_come*>(self)->run(first, last, stream);
            }};
  }

 private:
  prospect_status run(std::int64_t first, std::int64_t last, cudaStream_t stream) {
    if (first != next) return PROSPECT_INTERNAL_ERROR;
    next = last;
    ++calls;
    if (stop_at >= 0 && last > stop_at) return PROSPECT_ABSENT;
    const std::int64_t begin = offsets[static_cast<std::size_t>(first)];
    const std::int64_t count = offsets[static_cast<std::size_t>(last)] - begin;
    const cudaError_t status =
        cudaMemcpyAsync(to + begin, from + begin, static_cast<std::size_t>(count) * sizeof(float),
                        cudaMemcpyDeviceToDevice, stream);
    return status == cudaSuccess ? PROSPECT_OK : PROSPECT_CUDA_ERROR + static_cast<int>(status);
  }
};

TEST_CASE("a trained head in one go, in C on the device") {
  random_source random{1404};
  const test_gemm multiply;
  c_gemm theirs{multiply};
  head_case<bfloat16> c{random, {120, 16, 70, 2}, true};
  const std::vector<std::int64_t> offsets{0, 30, 30, 75, 120};
  on_device<bfloat16> want{c}, got{c};
  const device_array<std::int64_t> device_offsets(offsets);
  const device_array<float> d_want(want.n), d_got(got.n);  // full of NaN
  const auto layout = prospect::sequence_layout::packed(device_offsets.input());
  const auto ready = [&](std::int64_t first, std::int64_t last, cudaStream_t stream) {
    const std::int64_t begin = offsets[static_cast<std::size_t>(first)];
    const std::int64_t count = offsets[static_cast<std::size_t>(last)] - begin;
    return cudaMemcpyAsync(d_want.data() + begin, want.d_token.data() + begin,
                           static_cast<std::size_t>(count) * sizeof(float),
                           cudaMemcpyDeviceToDevice, stream);
  };
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_step<bfloat16>(want.rows(), layout, 2, want.out(), ready, d_want.input(),
                                    want.gradients(), multiply, space, nullptr);
  }));
  c_arguments<bfloat16> given{got, theirs};
  given.layout.offsets = c_row(device_offsets);
  given.coefficients.d_token = c_row(d_got);
  coefficients_to_come come{offsets, got.d_token.data(), d_got.data()};
  auto step = given.step(2, come.theirs());
  const std::size_t bytes =
      testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
        return prospect_head_step_cuda(&step, on, e);
      });
  CHECK(come.calls == 2);
  check_same_results(got, want);
  check_same_gradients(got, want);

  // A host that gives up says so with a status of its own, and takes nothing less than it was told.
  const device_array<std::byte> memory(bytes);
  auto on = in_memory(memory);
  coefficients_to_come stopped{offsets, got.d_token.data(), d_got.data()};
  stopped.stop_at = 2;
  step.ready = stopped.theirs();
  refused(prospect_head_step_cuda(&step, &on, &given.error), PROSPECT_ABSENT, given.error,
          "ready answered 5 for sequences 2 to 3");
  testing::synchronise();
  const auto says = [&](prospect_status expected, const char* words) {
    refused(prospect_head_step_cuda(&step, &on, &given.error), expected, given.error, words);
  };
  on.scratch_size = bytes - 1;
  says(PROSPECT_INVALID_ARGUMENT, "bytes, ");
  step.ready.ready = nullptr;
  says(PROSPECT_INVALID_ARGUMENT, "step.ready.ready is NULL");
  step.ready = stopped.theirs();
  step.group = 0;
  says(PROSPECT_INVALID_ARGUMENT, "step.group must be at least 1");
  step.group = 2;
  given.results.lse = {};
  says(PROSPECT_INVALID_ARGUMENT, "lse must have an element for each row of the batch");
  given.results.lse = c_row(got.lse);
  given.coefficients.lse = c_row(got.lse);
  says(PROSPECT_INVALID_ARGUMENT, "a step reads its own");
  given.coefficients.lse = {};
  given.tokens.layout = nullptr;
  says(PROSPECT_INVALID_ARGUMENT, "layout is NULL");
  CHECK(stopped.calls == 2);
}

TEST_CASE("memory for the head in C on the device: any that is enough for a few tokens") {
  random_source random{1405};
  const test_gemm multiply;
  c_gemm theirs{multiply};
  head_case<float> c{random, {300, 8, 60, 0}, true};
  on_device<float> want{c}, got{c};
  c_arguments<float> given{got, theirs};
  std::size_t least = 0;
  require_success(gpu::head_log_probs<float>(want.rows(), want.out(), multiply,
                                             gpu::scratch::least_into(least), nullptr));
  const std::size_t of_use = asked([&](const auto* on) { return given.log_probs(on, false); });
  CHECK(least < of_use);
  const device_array<std::byte> memory(of_use);
  prospect_context on = in_memory(memory);
  done(given.log_probs(&on, false), given.error);
  const std::vector<float> log_prob = got.log_prob.host();
  const std::int64_t calls = theirs.calls;
  on.scratch_size = least;
  done(given.log_probs(&on, false), given.error);
  CHECK(theirs.calls - calls > calls);
  CHECK(same_bits(got.log_prob.host(), log_prob));
  const auto says = [&](const std::string& words) {
    refused(given.log_probs(&on, false), PROSPECT_INVALID_ARGUMENT, given.error, words);
  };
  on.scratch_size = least - 1;
  says("context.scratch has " + std::to_string(least - 1) + " bytes, " + std::to_string(least) +
       " are needed");
  on.scratch_size = least;
  on.scratch = memory.data() + 8;
  says("context.scratch is not aligned to 256 bytes");
  on.scratch = nullptr;
  says("context.scratch has 0 bytes");

  // What a caller's product answers is the answer of the call, and nothing follows it.
  on = in_memory(memory);
  theirs.answer = PROSPECT_ABSENT;
  const std::int64_t before = theirs.calls;
  refused(given.log_probs(&on, true), PROSPECT_ABSENT, given.error, "gemm.multiply answered 5");
  CHECK(theirs.calls == before + 1);
  CHECK(given.kept == 42);
  theirs.answer = PROSPECT_CUDA_ERROR + static_cast<int>(cudaErrorNotSupported);
  refused(given.log_probs(&on, false), theirs.answer, given.error, "gemm.multiply answered");
  testing::synchronise();
}

TEST_CASE("arguments of the head in C on the device are refused by name") {
  random_source random{1406};
  const test_gemm multiply;
  c_gemm theirs{multiply};
  head_case<bfloat16> c{random, {6, 8, 9, 3}, true, {}, 0};
  on_device<bfloat16> d{c};
  const auto with = [&](prospect_status expected, const char* words, const auto& change) {
    c_arguments<bfloat16> a{d, theirs};
    change(a);
    CAPTURE(std::string{words});
    refused(a.gradient(nullptr, a.kept == 42 ? 0 : a.kept), expected, a.error, words);
  };
  const prospect_status wrong = PROSPECT_INVALID_ARGUMENT, unknown = PROSPECT_UNSUPPORTED;
  with(wrong, "rows.struct_size is 7", [](auto& a) { a.rows.struct_size = 7; });
  with(wrong, "rows.gemm.multiply is NULL", [](auto& a) { a.rows.gemm.multiply = nullptr; });
  with(wrong, "head is NULL", [](auto& a) { a.rows.head = nullptr; });
  with(wrong, "tokens is NULL", [](auto& a) { a.rows.tokens = nullptr; });
  with(unknown, "hidden of PROSPECT_F64 are for the CPU",
       [](auto& a) { a.rows.hidden.dtype = PROSPECT_F64; });
  with(unknown, "hidden.dtype must be", [](auto& a) { a.rows.hidden.dtype = PROSPECT_I32; });
  with(unknown, "head.weight.dtype must be PROSPECT_BF16, as the hidden states are",
       [](auto& a) { a.head.weight.dtype = PROSPECT_F16; });
  with(unknown, "gradients.weight.dtype must be PROSPECT_F32",
       [](auto& a) { a.gradients.weight.dtype = PROSPECT_BF16; });
  with(wrong, "head.weight has other columns than hidden",
       [](auto& a) { a.head.weight.columns = 7; });
  with(wrong, "head.lora.b has other rows than head.weight", [](auto& a) { a.head.lora.b = {}; });
  with(wrong, "head.lora.scale is 0", [](auto& a) { a.head.lora.scale = 0; });
  with(wrong, "gradients of an adapter are asked for, and the head has none",
       [](auto& a) { a.head.lora = {}; });
  with(wrong, "scored_at_most is negative", [](auto& a) { a.rows.scored_at_most = -1; });
  with(wrong, "scored_at_most is more than there are tokens",
       [](auto& a) { a.rows.scored_at_most = 7; });
  with(wrong, "targets", [](auto& a) { a.tokens.targets.size = 5; });
  with(wrong, "d_token must have an element for each row of the batch",
       [](auto& a) { a.coefficients.d_token.size = 5; });
  with(wrong, "d_token is given as well as softmax and onehot",
       [](auto& a) { a.coefficients.softmax = a.coefficients.d_token; });
  with(wrong, "gradients.hidden must not lie where",
       [](auto& a) { a.gradients.hidden = a.rows.hidden; });
  for (const std::int64_t kept : {-128, 6, 256}) {
    with(wrong, "ticket is of no forward pass of these rows", [&](auto& a) { a.kept = kept; });
  }
  c_arguments<bfloat16> given{d, theirs};
  given.d_hidden = {};
  refused(given.log_probs_and_gradient(nullptr), wrong, given.error, "d_hidden is missing");
  refused(prospect_head_vocabulary_partials_cuda(&given.rows, 0, nullptr, nullptr, &given.error),
          wrong, given.error, "partials is NULL");
  const prospect_executor nobody{};
  auto context = sized<prospect_context>();
  context.executor = &nobody;
  refused(given.log_probs(&context, false), unknown, given.error, "context.executor must be NULL");
  CHECK(theirs.calls == 0);
}

TEST_CASE("cuBLASLt's product in C") {
  prospect_error error{};
  refused(prospect_cublaslt_create(nullptr, nullptr, 0, 0, nullptr, &error),
          PROSPECT_INVALID_ARGUMENT, error, "created is NULL");
  prospect_cublaslt* cublaslt = nullptr;
  refused(prospect_cublaslt_create(nullptr, nullptr, 1, 0, &cublaslt, &error),
          PROSPECT_INVALID_ARGUMENT, error, "workspace is NULL");
  CHECK(cublaslt == nullptr);
  prospect_cublaslt_destroy(nullptr);
  const test_gemm multiply;
  if (!multiply.on_device()) return;  // an emulator has no cuBLASLt
  const device_array<std::byte> workspace(std::size_t{32} << 20);
  REQUIRE(prospect_cublaslt_create(nullptr, workspace.data(), workspace.bytes(), 0, &cublaslt,
                                   &error) == PROSPECT_OK);
  random_source random{1407};
  head_case<bfloat16> c{random, {300, 24, 130, 3}, true};
  on_device<bfloat16> want{c}, got{c};
  c_gemm unused{multiply};
  c_arguments<bfloat16> given{got, unused};
  given.rows.gemm = prospect_cublaslt_gemm(cublaslt);
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_log_probs<bfloat16>(want.rows(), want.out(), multiply, space, nullptr);
  }));
  testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_head_log_probs_cuda(&given.rows, &given.results, nullptr, on, e);
  });
  check_same_results(got, want);
  require_success(testing::with_scratch([&](gpu::scratch space) {
    return gpu::head_gradient<bfloat16>(want.rows(), want.log_prob.input(), want.lse.input(),
                                        want.d_token.input(), want.gradients(), {}, multiply, space,
                                        nullptr);
  }));
  testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_head_gradient_cuda(&given.rows, &given.coefficients, &given.gradients, 0, on,
                                       e);
  });
  check_same_gradients(got, want);
  prospect_cublaslt_destroy(cublaslt);
}

}  // namespace
