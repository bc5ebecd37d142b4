// What the C surface refuses on a device: each argument by its name, before anything is launched;
// and CUDA's own errors, which keep their code.
#include <kernels/cuda/context.hpp>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "cuda/c_surface.hpp"

namespace {

using testing::c_loss;
using testing::c_row;
using testing::device_array;
using testing::sized;

/// What every function takes, right; each test spoils one thing.
struct small_batch {
  device_array<float> logits{std::vector<float>{1, 2, 3, 3, 2, 1}}, real{std::vector<float>{1, 1}},
      written{2}, gradient{6};
  device_array<double> wide{std::vector<double>{1, 1}}, sums{1}, d_sequence{std::vector<double>{1}};
  device_array<std::int32_t> target{std::vector<std::int32_t>{0, 1}},
      offset{std::vector<std::int32_t>{0, 2}}, shifted{2};
  device_array<std::uint8_t> flags{std::vector<std::uint8_t>{1, 1}};
  device_array<prospect_partial> partials{2};
  device_array<prospect_observation> seen{1};
  prospect_error error{};

  prospect_matrix x = PROSPECT_MATRIX(logits.data(), 2, 3);
  prospect_matrix to = PROSPECT_MATRIX(gradient.data(), 2, 3);
  prospect_layout layout = sized<prospect_layout>();
  prospect_tokens tokens = sized<prospect_tokens>();
  prospect_token_results results = sized<prospect_token_results>();
  prospect_token_coefficients coefficients = sized<prospect_token_coefficients>();
  prospect_pairs pairs = sized<prospect_pairs>();
  prospect_completions completions = sized<prospect_completions>();
  prospect_context context = sized<prospect_context>();
  prospect_row token_log_prob = c_row(real), sums_row = c_row(sums), d_row = c_row(d_sequence),
               d_token = c_row(written), factors = c_row(real), shifted_row = c_row(shifted);
  prospect_loss dpo = c_loss("dpo"), kto = c_loss("kto");

  small_batch() {
    layout.offsets = c_row(offset);
    tokens.targets = c_row(target);
    tokens.layout = &layout;
    results.log_prob = c_row(written);
    coefficients.log_prob = coefficients.d_token = c_row(real);
    coefficients.lse = c_row(wide);
    pairs.policy_chosen = pairs.policy_rejected = c_row(real);
    pairs.reference_chosen = pairs.reference_rejected = c_row(real);
    pairs.loss = c_row(written);
    completions.policy = completions.reference = c_row(real);
    completions.desirable = c_row(flags);
    completions.loss = c_row(written);
  }
  small_batch(const small_batch&) = delete;
};

struct function {
  const char* name;
  prospect_status (*call)(small_batch&);
};
#define FUNCTION(name, expression)                   \
  const function name {                              \
    #name, [](small_batch& b) { return expression; } \
  }
FUNCTION(forward, prospect_token_log_probs_cuda(b.x, &b.tokens, &b.results, &b.context, &b.error));
FUNCTION(deferred, prospect_token_log_probs_and_gradient_cuda(b.x, &b.tokens, &b.results,
                                                              &b.context, &b.error));
FUNCTION(gradient, prospect_logits_gradient_cuda(b.x, b.to, &b.tokens, &b.coefficients, &b.context,
                                                 &b.error));
FUNCTION(partials, prospect_vocabulary_partials_cuda(b.x, &b.tokens, 0, b.partials.data(),
                                                     &b.context, &b.error));
FUNCTION(combine, prospect_combine_partials_cuda(b.partials.data(), 1, &b.tokens, &b.results,
                                                 &b.context, &b.error));
FUNCTION(scale, prospect_scale_rows_cuda(b.x, b.factors, &b.context, &b.error));
FUNCTION(sum, prospect_sequence_sums_cuda(&b.tokens, b.token_log_prob, b.sums_row, prospect_row{},
                                          &b.context, &b.error));
FUNCTION(spread, prospect_spread_cuda(&b.tokens, b.d_row, b.d_token, &b.context, &b.error));
FUNCTION(shift, prospect_shift_targets_cuda(b.tokens.targets, &b.layout, b.shifted_row, &b.context,
                                            &b.error));
FUNCTION(pairs, prospect_pairs_cuda(&b.dpo, &b.pairs, nullptr, &b.context, &b.error));
FUNCTION(completions,
         prospect_completions_cuda(&b.kto, &b.completions, nullptr, &b.context, &b.error));
FUNCTION(mismatched,
         prospect_mismatched_kl_cuda(b.completions.policy, b.completions.reference, prospect_row{},
                                     b.seen.data(), &b.context, &b.error));
#undef FUNCTION
const std::vector<function> every_function{forward, deferred, gradient,    partials,
                                           combine, scale,    sum,         spread,
                                           shift,   pairs,    completions, mismatched};

void refused(const std::vector<function>& functions, prospect_status status,
             const std::string& words, const std::function<void(small_batch&)>& spoil) {
  for (const function& f : functions) {
    CAPTURE(f.name);
    small_batch b;
    const std::vector<float> before = b.written.host();
    spoil(b);
    testing::refused(f.call(b), status, b.error, words);
    testing::synchronise();
    CHECK(testing::same_bits(b.written.host(), before));
    CHECK(b.logits.host() == std::vector<float>{1, 2, 3, 3, 2, 1});
  }
}

constexpr auto invalid = PROSPECT_INVALID_ARGUMENT;
constexpr auto unsupported = PROSPECT_UNSUPPORTED;

}  // namespace

TEST_CASE("the batch that is spoilt below is right") {
  for (const function& f : every_function) {
    CAPTURE(f.name);
    small_batch b;
    const prospect_status status = f.call(b);
    CAPTURE(std::string{b.error.message});
    CHECK(status == PROSPECT_OK);
    testing::synchronise();
  }
}

TEST_CASE("contexts: executors, other versions") {
  static const prospect_executor executor{};
  refused(every_function, unsupported, "context.executor must be NULL on a device",
          [](auto& b) { b.context.executor = &executor; });
  refused(every_function, invalid, "context.struct_size",
          [](auto& b) { b.context.struct_size = 16; });
}

TEST_CASE("rows of tokens: dtypes, sizes, addresses") {
  const std::vector<function> of_logits{forward, deferred, gradient, partials};
  refused(of_logits, unsupported, "logits of PROSPECT_F64 are for the CPU",
          [](auto& b) { b.x.dtype = b.to.dtype = PROSPECT_F64; });
  refused(of_logits, unsupported, "logits.dtype", [](auto& b) { b.x.dtype = b.to.dtype = 77; });
  refused(of_logits, invalid, "logits has no data", [](auto& b) { b.x.data = nullptr; });
  refused(of_logits, invalid, "logits has a pitch", [](auto& b) { b.x.pitch = 2; });
  refused(of_logits, invalid, "temperature", [](auto& b) { b.tokens.temperature = -1; });
  refused(of_logits, invalid, "targets", [](auto& b) { b.tokens.targets.size = 1; });
  refused(of_logits, invalid, "mask", [](auto& b) {
    b.tokens.mask = c_row(b.flags);
    b.tokens.mask.size = 1;
  });
  refused({forward, deferred}, unsupported, "log_prob.dtype must be PROSPECT_F32",
          [](auto& b) { b.results.log_prob = c_row(b.wide); });
  refused({forward, deferred, combine}, invalid, "log_prob",
          [](auto& b) { b.results.log_prob.size = 1; });
  refused({gradient}, unsupported, "d_token.dtype must be PROSPECT_F32",
          [](auto& b) { b.coefficients.d_token = c_row(b.wide); });
  refused({gradient}, invalid, "d_token", [](auto& b) { b.coefficients.d_token.size = 1; });
  refused({gradient}, invalid, "lse", [](auto& b) { b.coefficients.lse.size = 1; });
  refused({gradient}, invalid, "softmax", [](auto& b) {
    b.coefficients.onehot = b.coefficients.d_token;
    b.coefficients.d_token = {};
  });
  refused({gradient}, invalid, "entropy has", [](auto& b) {
    b.coefficients.softmax = b.coefficients.onehot = b.coefficients.d_entropy =
        b.coefficients.d_token;
    b.coefficients.d_token = {};
  });
  refused({gradient}, unsupported, "gradient.dtype", [](auto& b) { b.to.dtype = PROSPECT_F16; });
  refused({gradient}, invalid, "gradient", [](auto& b) { b.to.columns = 2; });
  refused({scale}, invalid, "factors", [](auto& b) { b.factors.size = 1; });
  refused({sum}, invalid, "log_prob", [](auto& b) { b.token_log_prob.size = 1; });
  refused({sum}, unsupported, "token_log_prob.dtype",
          [](auto& b) { b.token_log_prob.dtype = PROSPECT_BF16; });
  refused({spread}, invalid, "d_sequence", [](auto& b) { b.d_row.size = 2; });
  refused({spread}, invalid, "d_token", [](auto& b) { b.d_token.size = 1; });
  refused({spread}, unsupported, "d_sequence.dtype", [](auto& b) { b.d_row = c_row(b.offset); });
  refused({shift}, unsupported, "targets.dtype", [](auto& b) { b.shifted_row = c_row(b.wide); });
  refused({sum, spread, shift}, invalid, "layout", [](auto& b) {
    b.layout = sized<prospect_layout>();
    b.layout.sequences = 3;
    b.layout.length = 2;
  });
}

TEST_CASE("rows of sequences: dtypes, sizes, what is missing") {
  refused({pairs}, invalid, "policy_rejected", [](auto& b) { b.pairs.policy_rejected.size = 1; });
  refused({pairs}, invalid, "reference", [](auto& b) { b.pairs.reference_chosen = {}; });
  refused({pairs}, invalid, "loss", [](auto& b) { b.pairs.loss.size = 1; });
  refused({pairs}, unsupported, "policy_chosen.dtype",
          [](auto& b) { b.pairs.policy_chosen.dtype = PROSPECT_I32; });
  refused({pairs}, invalid, "kto is not a paired loss", [](auto& b) { b.dpo = b.kto; });
  refused({pairs}, unsupported, "normaliser", [](auto& b) { b.pairs.normaliser = 9; });
  refused({pairs}, invalid, "count_at is NULL",
          [](auto& b) { b.pairs.normaliser = PROSPECT_OVER_AT; });
  refused({completions}, invalid, "desirable", [](auto& b) { b.completions.desirable = {}; });
  refused({completions}, unsupported, "desirable.dtype",
          [](auto& b) { b.completions.desirable = c_row(b.target); });
  refused({completions}, unsupported, "reference_point",
          [](auto& b) { b.completions.reference_point = 9; });
  refused({completions}, invalid, "observed is NULL",
          [](auto& b) { b.completions.reference_point = PROSPECT_OBSERVED; });
  refused({completions}, invalid, "mismatched_policy",
          [](auto& b) { b.completions.reference_point = PROSPECT_BATCH_MEAN; });
  refused({completions}, invalid, "z must be finite",
          [](auto& b) { b.completions.z = std::numeric_limits<double>::quiet_NaN(); });
  refused({mismatched}, invalid, "mismatched reference",
          [](auto& b) { b.completions.reference.size = 1; });
  refused({mismatched}, invalid, "mismatched policy",
          [](auto& b) { b.completions.policy = b.completions.reference = {}; });
}

TEST_CASE("scratch that is too small, misaligned or missing") {
  // Long rows, few of them, take some.
  const device_array<float> row(40000), one(1);
  const device_array<std::int32_t> zero{std::vector<std::int32_t>{0}};
  auto tokens = sized<prospect_tokens>();
  tokens.targets = c_row(zero);
  auto results = sized<prospect_token_results>();
  results.log_prob = c_row(one);
  const prospect_matrix x = PROSPECT_MATRIX(row.data(), 1, 40000);
  prospect_error error{};
  std::size_t bytes = 0;
  auto context = sized<prospect_context>();
  const auto call = [&] {
    return prospect_token_log_probs_cuda(x, &tokens, &results, &context, &error);
  };
  context.query = &bytes;
  testing::require_ok(call(), error);
  REQUIRE(bytes >= 1000);
  // A second question raises what is more, and leaves what is less.
  const std::size_t needed = bytes;
  bytes = needed + 1;
  testing::require_ok(call(), error);
  CHECK(bytes == needed + 1);
  context.query = nullptr;
  testing::refused(call(), invalid, error, "context.scratch has 0 bytes");
  const device_array<std::byte> memory(needed + 8);
  context.scratch = memory.data();
  context.scratch_size = needed - 1;
  testing::refused(call(), invalid, error, "context.scratch has");
  context.scratch = memory.data() + 8;
  context.scratch_size = needed;
  testing::refused(call(), invalid, error, "context.scratch is not aligned to 256 bytes");
}

TEST_CASE("CUDA's own errors keep their code") {
  // No argument that the checks let pass is known to make a launch fail.
  prospect_error error{};
  const prospect_status status =
      prospect::kernels::guard(&error, [] { prospect::kernels::launched(cudaErrorInvalidValue); });
  CHECK(status == PROSPECT_CUDA_ERROR + int{cudaErrorInvalidValue});
  CHECK(std::string{prospect_status_string(status)} == "CUDA error");
  CHECK(std::string{error.message}.find("cudaErrorInvalidValue") != std::string::npos);
  CHECK(prospect::kernels::guard(&error, [] { prospect::kernels::launched(cudaSuccess); }) ==
        PROSPECT_OK);
}
