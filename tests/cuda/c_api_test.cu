// The C API on a device against the same functions on the host; sizes of scratch, errors by name,
// and CUDA's own errors with their code.
#include <prospect/c/prospect.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cuda/device.hpp"
#include "random.hpp"

namespace {

using testing::device_array;
using testing::near;
using testing::random_source;
using testing::same_bits;

template <class T>
prospect_const_row in(const std::vector<T>& v) {
  return {v.data(), static_cast<int64_t>(v.size()), 1};
}
template <class T>
prospect_row out(std::vector<T>& v) {
  return {v.data(), static_cast<int64_t>(v.size()), 1};
}
template <class T>
prospect_const_row in(const device_array<T>& v) {
  return {v.data(), static_cast<int64_t>(v.size()), 1};
}
template <class T>
prospect_row out(const device_array<T>& v) {
  return {v.data(), static_cast<int64_t>(v.size()), 1};
}
template <class T>
prospect_indices indices(const T& v) {
  return {.row = in(v), .dtype = PROSPECT_I32, .reserved = 0};
}

void require_ok(prospect_status status, const prospect_error& error) {
  CAPTURE(prospect_status_string(status), error.message);
  REQUIRE(status == PROSPECT_OK);
}

/// Asks for the size, and calls with that much.
template <class Call>
prospect_status with_c_scratch(const Call& call) {
  std::size_t size = 0;
  if (const prospect_status s = call(nullptr, &size); s != PROSPECT_OK) return s;
  CHECK(size > 0);
  const device_array<std::byte> memory(size);
  const prospect_status s = call(memory.data(), &size);
  testing::synchronise();
  return s;
}

prospect_metrics read(prospect_kind kind, const device_array<unsigned char>& metrics) {
  prospect_metrics m{};
  m.struct_size = sizeof(m);
  prospect_error error{};
  require_ok(prospect_read_metrics(kind, metrics.host().data(), &m, &error), error);
  return m;
}

void check_metrics(const prospect_metrics& got, const prospect_metrics& want) {
  REQUIRE(got.size == want.size);
  CHECK(near(got.total, want.total, 1e-6L, 1e-12L));
  CHECK(got.first_nonfinite == want.first_nonfinite);
  for (int32_t i = 0; i < got.size; ++i) {
    CAPTURE(got.metric[i].name);
    CHECK(std::string{got.metric[i].name} == want.metric[i].name);
    CHECK(near(got.metric[i].sum, want.metric[i].sum, 1e-6L, 1e-12L));
    CHECK(got.metric[i].count == want.metric[i].count);
  }
}

struct c_batch {
  std::vector<float> a, b, reference_a, reference_b;
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> desirable;

  explicit c_batch(std::int64_t n, random_source& random) {
    for (std::int64_t i = 0; i < n; ++i) {
      a.push_back(static_cast<float>(random.normal(20) - 50));
      b.push_back(static_cast<float>(random.normal(20) - 50));
      reference_a.push_back(a.back() + static_cast<float>(random.normal(5)));
      reference_b.push_back(b.back() + static_cast<float>(random.normal(5)));
      tokens.push_back(static_cast<std::int32_t>(random.integer(0, 9)));
      desirable.push_back(random.chance(0.5) ? 1 : 0);
    }
  }
};

constexpr std::int64_t n = 67;

}  // namespace

TEST_CASE("every loss through the C API, on the device as on the host") {
  random_source random{801};
  const c_batch batch{n, random};
  const device_array<float> a{batch.a}, b{batch.b}, ra{batch.reference_a}, rb{batch.reference_b};
  const device_array<std::int32_t> tokens{batch.tokens};
  const device_array<std::uint8_t> desirable{batch.desirable};
  const std::vector<double> count{11};
  const device_array<double> device_count{count};
  const std::vector<prospect_sum_count> seen{{30, 12}};
  const device_array<prospect_sum_count> device_seen{seen};
  prospect_error error{};

  for (int32_t i = 0; i < prospect_loss_count(); ++i) {
    prospect_loss loss{};
    require_ok(prospect_loss_init(&loss, prospect_loss_name(i), &error), error);
    CAPTURE(prospect_loss_name(i));
    prospect_kind kind{};
    require_ok(prospect_loss_kind(&loss, &kind, &error), error);
    std::vector<float> want_loss(n), want_a(n), want_b(n);
    const device_array<float> got_loss(n), got_a(n), got_b(n);
    const device_array<unsigned char> metrics(PROSPECT_DEVICE_METRICS_SIZE);
    prospect_metrics want{};
    want.struct_size = sizeof(want);
    const auto check = [&] {
      check_metrics(read(kind, metrics), want);
      const auto losses = got_loss.host();
      const auto d = got_a.host();
      for (std::size_t k = 0; k < losses.size(); ++k) {
        CHECK(near(losses[k], want_loss[k], 4e-6L, 1e-7L));
        CHECK(near(d[k], want_a[k], 4e-6L, 1e-9L));
      }
    };
    if (kind == PROSPECT_PAIRED_LOSS) {
      prospect_pairs p{};
      p.struct_size = sizeof(p);
      p.normaliser = PROSPECT_OVER_AT;
      p.count_at = count.data();
      p.policy_chosen = in(batch.a), p.policy_rejected = in(batch.b);
      p.reference_chosen = in(batch.reference_a), p.reference_rejected = in(batch.reference_b);
      p.chosen_tokens = p.rejected_tokens = in(batch.tokens);
      p.loss = out(want_loss), p.d_policy_chosen = out(want_a), p.d_policy_rejected = out(want_b);
      require_ok(prospect_pairs_cpu(&loss, &p, &want, &error), error);
      p.count_at = device_count.data();
      p.policy_chosen = in(a), p.policy_rejected = in(b);
      p.reference_chosen = in(ra), p.reference_rejected = in(rb);
      p.chosen_tokens = p.rejected_tokens = in(tokens);
      p.loss = out(got_loss), p.d_policy_chosen = out(got_a), p.d_policy_rejected = out(got_b);
      require_ok(with_c_scratch([&](void* scratch, size_t* size) {
                   return prospect_pairs_cuda(&loss, &p, metrics.data(), scratch, size, nullptr,
                                              &error);
                 }),
                 error);
      check();
    } else {
      for (const prospect_reference point :
           {PROSPECT_GIVEN_POINT, PROSPECT_CROSS_CLASS, PROSPECT_OBSERVED, PROSPECT_BATCH_MEAN}) {
        CAPTURE(static_cast<int>(point));
        prospect_completions c{};
        c.struct_size = sizeof(c);
        c.reference_point = point;
        c.z = 1.5, c.z_raw = 1.5;
        c.observed = seen.data();
        c.policy = in(batch.a), c.reference = in(batch.reference_a);
        c.mismatched_policy = in(batch.b), c.mismatched_reference = in(batch.reference_b);
        c.mismatched_tokens = c.tokens = in(batch.tokens);
        c.desirable = in(batch.desirable);
        c.loss = out(want_loss), c.d_policy = out(want_a);
        require_ok(prospect_completions_cpu(&loss, &c, &want, &error), error);
        c.observed = device_seen.data();
        c.policy = in(a), c.reference = in(ra);
        c.mismatched_policy = in(b), c.mismatched_reference = in(rb);
        c.mismatched_tokens = c.tokens = in(tokens);
        c.desirable = in(desirable);
        c.loss = out(got_loss), c.d_policy = out(got_a);
        require_ok(with_c_scratch([&](void* scratch, size_t* size) {
                     return prospect_completions_cuda(&loss, &c, metrics.data(), scratch, size,
                                                      nullptr, &error);
                   }),
                   error);
        check();
      }
    }
  }

  prospect_sum_count want{};
  require_ok(prospect_mismatched_kl_cpu(PROSPECT_F32, in(batch.b), in(batch.reference_b),
                                        in(batch.tokens), &want, &error),
             error);
  const device_array<prospect_sum_count> got(1);
  require_ok(with_c_scratch([&](void* scratch, size_t* size) {
               return prospect_mismatched_kl_cuda(PROSPECT_F32, in(b), in(rb), in(tokens),
                                                  got.data(), scratch, size, nullptr, &error);
             }),
             error);
  CHECK(got.host()[0].count == want.count);
  CHECK(near(got.host()[0].sum, want.sum, 1e-12L));
}

TEST_CASE("tokens through the C API, on the device as on the host") {
  random_source random{802};
  const std::int64_t rows = 6;
  const std::int64_t columns = 131;
  std::vector<float> x;
  for (std::int64_t i = 0; i < rows * columns; ++i) x.push_back(float(random.normal(3)));
  const std::vector<std::int32_t> targets{0, 130, -100, 7, 64, 90};
  const std::vector<std::int32_t> offsets{0, 4, 6};
  const device_array<float> logits{x};
  const device_array<std::int32_t> y{targets}, o{offsets};
  const auto m = static_cast<std::size_t>(rows);
  prospect_error error{};
  prospect_token_options options{};
  options.struct_size = sizeof(options);
  options.temperature = 0.8;

  const auto view = [&](float* data) {
    return prospect_logits{.data = data,
                           .rows = rows,
                           .columns = columns,
                           .pitch = columns,
                           .dtype = PROSPECT_F32,
                           .reserved = 0};
  };
  const prospect_indices host_y = indices(targets), device_y = indices(y);

  // Log-probs with a statistic, and sums over sequences.
  std::vector<float> log_prob(m), entropy(m);
  std::vector<double> lse(m), sums(2);
  const device_array<float> got_log_prob(m), got_entropy(m);
  const device_array<double> got_lse(m), got_sums(2);
  prospect_token_statistics s{};
  s.struct_size = sizeof(s);
  s.entropy = out(entropy);
  const prospect_logits host_x = view(x.data());
  const prospect_logits device_x = view(logits.data());
  require_ok(
      prospect_token_log_probs_cpu(&host_x, &host_y, &options, out(log_prob), out(lse), &s, &error),
      error);
  s.entropy = out(got_entropy);
  require_ok(with_c_scratch([&](void* scratch, size_t* size) {
               return prospect_token_log_probs_cuda(&device_x, &device_y, &options,
                                                    out(got_log_prob), out(got_lse), &s, scratch,
                                                    size, nullptr, &error);
             }),
             error);
  const prospect_layout host_layout{.sequences = 0, .length = 0, .offsets = indices(offsets)};
  const prospect_layout device_layout{.sequences = 0, .length = 0, .offsets = indices(o)};
  const prospect_row none{};
  require_ok(prospect_sequence_sums_cpu(PROSPECT_F32, in(log_prob), &host_y, &host_layout,
                                        out(sums), none, &error),
             error);
  require_ok(prospect_sequence_sums_cuda(PROSPECT_F32, in(got_log_prob), &device_y, &device_layout,
                                         out(got_sums), none, nullptr, &error),
             error);
  testing::synchronise();
  for (std::size_t t = 0; t < m; ++t) {
    CHECK(near(got_log_prob.host()[t], log_prob[t], 4e-6L, 4e-6L));
    CHECK(near(got_lse.host()[t], lse[t], 1e-6L));
    CHECK(near(got_entropy.host()[t], entropy[t], 4e-6L, 4e-6L));
  }
  for (std::size_t i = 0; i < 2; ++i) CHECK(near(got_sums.host()[i], sums[i], 4e-6L, 1e-5L));

  // One vocabulary in two parts.
  {
    const std::vector<std::int64_t> first{0, 50};
    const std::vector<std::int64_t> width{50, columns - 50};
    const device_array<prospect_partial> partials(2 * m);
    std::vector<prospect_partial> host_partials(2 * m);
    for (std::size_t part = 0; part < 2; ++part) {
      options.first_token = first[part];
      options.vocabulary = columns;
      prospect_logits p = device_x;
      p.data = logits.data() + first[part];
      p.columns = width[part];
      prospect_partial* const to = partials.data() + part * m;
      require_ok(with_c_scratch([&](void* scratch, size_t* size) {
                   return prospect_vocabulary_partials_cuda(&p, &device_y, &options, 1, to, scratch,
                                                            size, nullptr, &error);
                 }),
                 error);
      p.data = x.data() + first[part];
      require_ok(prospect_vocabulary_partials_cpu(&p, &host_y, &options, 1,
                                                  host_partials.data() + part * m, &error),
                 error);
    }
    options.first_token = options.vocabulary = 0;
    const device_array<float> split(m);
    std::vector<float> host_split(m);
    require_ok(prospect_combine_partials_cuda(partials.data(), 2, &device_y, out(split), none,
                                              nullptr, nullptr, &error),
               error);
    require_ok(prospect_combine_partials_cpu(PROSPECT_F32, host_partials.data(), 2, &host_y,
                                             out(host_split), none, nullptr, &error),
               error);
    testing::synchronise();
    for (std::size_t t = 0; t < m; ++t) {
      CHECK(near(split.host()[t], log_prob[t], 4e-6L, 4e-6L));
      CHECK(near(host_split[t], log_prob[t], 4e-6L, 4e-6L));
    }
  }

  // Coefficients to tokens, and into the logits: somewhere else, in place, and deferred.
  const std::vector<double> d{0.5, -1.25};
  const device_array<double> device_d{d};
  std::vector<float> d_token(m), minus_d(m), want_gradient(x.size()), want_scaled = x;
  const device_array<float> got_d_token(m), got_gradient(x.size()), deferred{x};
  require_ok(prospect_spread_cpu(PROSPECT_F32, in(d), &host_y, &host_layout, out(d_token), &error),
             error);
  require_ok(prospect_spread_cuda(PROSPECT_F32, in(device_d), &device_y, &device_layout,
                                  out(got_d_token), nullptr, &error),
             error);
  testing::synchronise();
  CHECK(same_bits(got_d_token.host(), d_token));
  for (std::size_t t = 0; t < m; ++t) minus_d[t] = -d_token[t];
  const device_array<float> device_minus_d{minus_d};
  const prospect_logits host_to = view(want_gradient.data());
  const prospect_logits device_to = view(got_gradient.data());
  require_ok(prospect_logits_gradient_into_cpu(&host_x, &host_to, &host_y, &options, in(log_prob),
                                               in(lse), in(minus_d), in(minus_d), &error),
             error);
  require_ok(prospect_logits_gradient_into_cuda(&device_x, &device_to, &device_y, &options,
                                                in(got_log_prob), in(got_lse), in(device_minus_d),
                                                in(device_minus_d), nullptr, &error),
             error);
  require_ok(prospect_logits_gradient_cuda(&device_x, &device_y, &options, in(got_log_prob),
                                           in(got_lse), in(got_d_token), nullptr, &error),
             error);
  const prospect_logits deferred_x = view(deferred.data());
  require_ok(prospect_token_log_probs_and_gradient_cuda(&deferred_x, &device_y, &options,
                                                        out(got_log_prob), out(got_lse), nullptr,
                                                        nullptr, &error),
             error);
  require_ok(prospect_scale_rows_cuda(&deferred_x, in(got_d_token), nullptr, &error), error);
  testing::synchronise();
  const auto elsewhere = got_gradient.host();
  CHECK(same_bits(elsewhere, logits.host()));
  const auto scaled = deferred.host();
  for (std::size_t k = 0; k < x.size(); ++k) {
    REQUIRE(near(elsewhere[k], want_gradient[k], 4e-6L, 1e-9L));
    REQUIRE(near(scaled[k], want_gradient[k], 4e-6L, 1e-9L));
  }
  // The host's own twins.
  const prospect_logits host_deferred = view(want_scaled.data());
  require_ok(prospect_token_log_probs_and_gradient_cpu(&host_deferred, &host_y, &options,
                                                       out(log_prob), out(lse), nullptr, &error),
             error);
  require_ok(prospect_scale_rows_cpu(&host_deferred, in(d_token), &error), error);
  for (std::size_t k = 0; k < x.size(); ++k) {
    REQUIRE(near(want_scaled[k], want_gradient[k], 4e-6L, 1e-9L));
  }

  std::vector<std::int32_t> shifted(m);
  const device_array<std::int32_t> got_shifted(m);
  require_ok(prospect_shift_targets(&host_y, &host_layout, out(shifted), &error), error);
  require_ok(
      prospect_shift_targets_cuda(&device_y, &device_layout, out(got_shifted), nullptr, &error),
      error);
  testing::synchronise();
  CHECK(same_bits(got_shifted.host(), shifted));
}

TEST_CASE("errors name the argument, and CUDA's keep their code") {
  const device_array<float> x(8);
  const device_array<double> wide(4);
  const device_array<std::int32_t> y{std::vector<std::int32_t>{0, 1}};
  const prospect_row none{};
  prospect_error error{};
  prospect_logits logits{
      .data = x.data(), .rows = 2, .columns = 4, .pitch = 4, .dtype = PROSPECT_F32, .reserved = 0};
  const prospect_indices targets = indices(y);
  size_t size = 0;
  const auto status = [&](const prospect_token_options* options, void* scratch) {
    return prospect_token_log_probs_cuda(&logits, &targets, options, out(x), none, nullptr, scratch,
                                         &size, nullptr, &error);
  };
  const auto says = [&](std::string_view text) {
    CAPTURE(error.message);
    return std::string_view{error.message}.find(text) != std::string_view::npos;
  };
  CHECK(status(nullptr, nullptr) == PROSPECT_INVALID_ARGUMENT);
  CHECK(says("log_prob"));
  logits.dtype = PROSPECT_F64;
  logits.data = wide.data();
  CHECK(status(nullptr, nullptr) == PROSPECT_UNSUPPORTED);
  CHECK(says("F64"));
  logits.dtype = PROSPECT_F32;
  logits.data = x.data();
  prospect_token_options options{};
  options.struct_size = sizeof(options);
  prospect_executor executor{};
  options.executor = &executor;
  CHECK(status(&options, nullptr) == PROSPECT_UNSUPPORTED);
  CHECK(says("executor"));

  // Long rows, few of them, take scratch.
  const device_array<float> row(40000);
  const device_array<float> one(1);
  const prospect_logits few{.data = row.data(),
                            .rows = 1,
                            .columns = 40000,
                            .pitch = 40000,
                            .dtype = PROSPECT_F32,
                            .reserved = 0};
  const device_array<std::int32_t> zero{std::vector<std::int32_t>{0}};
  const prospect_indices target = indices(zero);
  const auto call = [&](void* scratch, CUstream_st* stream) {
    return prospect_token_log_probs_cuda(&few, &target, nullptr, out(one), none, nullptr, scratch,
                                         &size, stream, &error);
  };
  CHECK(call(nullptr, nullptr) == PROSPECT_OK);
  CHECK(size >= 1000);
  const device_array<std::byte> memory(size);
  --size;
  CHECK(call(memory.data(), nullptr) == PROSPECT_INVALID_ARGUMENT);
  CHECK(says("scratch"));
  ++size;
  CHECK(call(memory.data() + 8, nullptr) == PROSPECT_INVALID_ARGUMENT);
  CHECK(says("aligned"));

  // More tiles than a grid has blocks: only the launch finds that out.
  const prospect_logits endless{.data = x.data(),
                                .rows = int64_t{1} << 27,
                                .columns = int64_t{1} << 30,
                                .pitch = int64_t{1} << 30,
                                .dtype = PROSPECT_F32,
                                .reserved = 0};
  const prospect_status code =
      prospect_scale_rows_cuda(&endless, {x.data(), int64_t{1} << 27, 0}, nullptr, &error);
  CHECK(static_cast<int>(code) == int{PROSPECT_CUDA_ERROR} + int{cudaErrorInvalidValue});
  CHECK(std::string{prospect_status_string(code)} == "CUDA error");
  CHECK(says("cudaErrorInvalidValue"));

  const device_array<std::int32_t> counts(1);
  const prospect_layout layout{
      .sequences = (std::int64_t{1} << 31) - 1, .length = 0, .offsets = {}};
  const prospect_indices empty{.row = {}, .dtype = PROSPECT_I32, .reserved = 0};
  CHECK(prospect_sequence_sums_cuda(PROSPECT_F32, {}, &empty, &layout, out(counts), none, nullptr,
                                    &error) == PROSPECT_INVALID_ARGUMENT);
  CHECK(says("log_prob"));
}
