// The C functions on tokens, on the device as on the host; and a whole step against its host twin.
#include <cstdint>
#include <vector>

#include "cuda/c_surface.hpp"
#include "random.hpp"

namespace {

using testing::c_loss;
using testing::c_metrics;
using testing::c_row;
using testing::check_close;
using testing::device_array;
using testing::run_on_device;
using testing::same_bits;
using testing::sized;

constexpr std::int64_t rows = 6, columns = 131, pitch = 133;

/// One batch on the host and its copy on the device.
struct batch {
  std::vector<float> x;
  std::vector<std::int32_t> target{0, 130, -100, 7, 64, 90}, begin{0, 4}, end{3, 6};
  std::vector<std::uint8_t> scored{1, 1, 1, 1, 0, 1};
  std::vector<float> inverse{1, 0.5F, 1, 2, 1, 1.25F};
  std::vector<float> log_prob = std::vector<float>(rows, 7), entropy = log_prob, d_token = log_prob;
  std::vector<double> lse = std::vector<double>(rows, 7), sums{7, 7}, d{0.5, -1.25};
  std::vector<std::int32_t> counts{7, 7}, shifted = std::vector<std::int32_t>(rows, 7);
  std::vector<float> gradient;

  batch() {
    testing::random_source random{802};
    for (std::int64_t i = 0; i < rows * pitch; ++i) x.push_back(float(random.normal(3)));
    gradient = std::vector<float>(x.size(), 7);
  }
};

struct device_batch {
  batch host;
  device_array<float> x{host.x}, log_prob{host.log_prob}, entropy{host.entropy},
      d_token{host.d_token}, inverse{host.inverse}, gradient{host.gradient};
  device_array<double> lse{host.lse}, sums{host.sums}, d{host.d};
  device_array<std::int32_t> target{host.target}, begin{host.begin}, end{host.end},
      counts{host.counts}, shifted{host.shifted};
  device_array<std::uint8_t> scored{host.scored};
};

/// The structs of a call for either of them.
template <class Batch>
struct described {
  prospect_layout layout = sized<prospect_layout>();
  prospect_tokens tokens = sized<prospect_tokens>();
  prospect_token_results results = sized<prospect_token_results>();
  prospect_token_coefficients coefficients = sized<prospect_token_coefficients>();
  prospect_matrix x{}, to{};

  explicit described(Batch& b) {
    layout.begins = c_row(b.begin);
    layout.ends = c_row(b.end);
    tokens.targets = c_row(b.target);
    tokens.mask = c_row(b.scored);
    tokens.inverse_temperatures = c_row(b.inverse);
    tokens.layout = &layout;
    tokens.temperature = 0.8;
    results.log_prob = c_row(b.log_prob);
    results.lse = c_row(b.lse);
    results.entropy = c_row(b.entropy);
    coefficients.log_prob = c_row(b.log_prob);
    coefficients.lse = c_row(b.lse);
    coefficients.d_token = c_row(b.d_token);
    x = PROSPECT_MATRIX(b.x.data(), rows, columns);
    to = PROSPECT_MATRIX(b.gradient.data(), rows, columns);
    x.pitch = to.pitch = pitch;
  }
  described(const described&) = delete;
};

}  // namespace

TEST_CASE("tokens through C, on the device as on the host") {
  batch host;
  device_batch device;
  described h{host};
  described d{device};
  prospect_error error{};
  const auto ok = [&](prospect_status status) { testing::require_ok(status, error); };

  ok(prospect_token_log_probs_cpu(h.x, &h.tokens, &h.results, nullptr, &error));
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_token_log_probs_cuda(d.x, &d.tokens, &d.results, on, e);
  });
  check_close(device.log_prob.host(), host.log_prob, 4e-6L, 4e-6L);
  check_close(device.lse.host(), host.lse, 1e-6L, 1e-6L);
  check_close(device.entropy.host(), host.entropy, 4e-6L, 4e-6L);
  CHECK(host.log_prob[4] == 0);  // masked

  ok(prospect_sequence_sums_cpu(&h.tokens, c_row(host.log_prob), c_row(host.sums),
                                c_row(host.counts), nullptr, &error));
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_sequence_sums_cuda(&d.tokens, c_row(device.log_prob), c_row(device.sums),
                                       c_row(device.counts), on, e);
  });
  check_close(device.sums.host(), host.sums, 4e-6L, 1e-5L);
  CHECK(device.counts.host() == host.counts);
  CHECK(host.counts == std::vector<std::int32_t>{2, 1});

  // Coefficients of both widths.
  const std::vector<float> narrow{0.5F, -1.25F};
  const device_array<float> device_narrow{narrow};
  for (const bool wide : {true, false}) {
    ok(prospect_spread_cpu(&h.tokens, wide ? c_row(host.d) : c_row(narrow), c_row(host.d_token),
                           nullptr, &error));
    run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_spread_cuda(&d.tokens, wide ? c_row(device.d) : c_row(device_narrow),
                                  c_row(device.d_token), on, e);
    });
    CHECK(same_bits(device.d_token.host(), host.d_token));
    CHECK(host.d_token == std::vector<float>{0.5F, 0.5F, 0, 0, 0, -1.25F});
  }

  // The gradient elsewhere with its padding zeroed, by two coefficients and three, in place, and
  // deferred.
  h.tokens.zero_padding = d.tokens.zero_padding = 1;
  const auto gradient = [&](bool in_place) {
    ok(prospect_logits_gradient_cpu(h.x, in_place ? h.x : h.to, &h.tokens, &h.coefficients, nullptr,
                                    &error));
    run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_logits_gradient_cuda(d.x, in_place ? d.x : d.to, &d.tokens, &d.coefficients,
                                           on, e);
    });
  };
  gradient(false);
  const std::vector<float> elsewhere = host.gradient;
  check_close(device.gradient.host(), elsewhere, 4e-6L, 1e-9L);
  CHECK(elsewhere[131] == 0);
  CHECK(elsewhere[132] == 0);
  CHECK(device.gradient.host()[131] == 0);

  std::vector<float> minus;
  for (const float c : host.d_token) minus.push_back(-c);
  const device_array<float> device_minus{minus};
  h.coefficients.d_token = d.coefficients.d_token = {};
  h.coefficients.softmax = h.coefficients.onehot = c_row(minus);
  d.coefficients.softmax = d.coefficients.onehot = c_row(device_minus);
  gradient(false);
  CHECK(host.gradient == elsewhere);
  check_close(device.gradient.host(), elsewhere, 4e-6L, 1e-9L);

  // With the entropies' coefficients beside.
  h.coefficients.d_entropy = c_row(minus);
  h.coefficients.entropy = c_row(host.entropy);
  d.coefficients.d_entropy = c_row(device_minus);
  d.coefficients.entropy = c_row(device.entropy);
  gradient(false);
  CHECK(host.gradient != elsewhere);
  check_close(device.gradient.host(), host.gradient, 4e-6L, 4e-6L);
  h.coefficients.d_entropy = h.coefficients.entropy = {};
  d.coefficients.d_entropy = d.coefficients.entropy = {};

  const device_array<float> deferred{host.x};
  prospect_matrix deferred_x = d.x;
  deferred_x.data = deferred.data();
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_token_log_probs_and_gradient_cuda(deferred_x, &d.tokens, &d.results, on, e);
  });
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_scale_rows_cuda(deferred_x, c_row(device.d_token), on, e);
  });
  check_close(deferred.host(), elsewhere, 4e-6L, 1e-9L);

  h.coefficients.d_token = c_row(host.d_token);
  d.coefficients.d_token = c_row(device.d_token);
  h.coefficients.softmax = h.coefficients.onehot = {};
  d.coefficients.softmax = d.coefficients.onehot = {};
  gradient(true);
  CHECK(host.x == elsewhere);
  check_close(device.x.host(), elsewhere, 4e-6L, 1e-9L);

  ok(prospect_shift_targets_cpu(c_row(host.target), &h.layout, c_row(host.shifted), nullptr,
                                &error));
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_shift_targets_cuda(c_row(device.target), &d.layout, c_row(device.shifted), on,
                                       e);
  });
  CHECK(device.shifted.host() == host.shifted);

  // The same by a reducer, and WPO's weights. (What lies in the rows is any numbers.)
  auto by_host = sized<prospect_token_reducer>(), by_device = by_host;
  by_host.log_prob = c_row(host.log_prob), by_device.log_prob = c_row(device.log_prob);
  by_host.reference = c_row(host.entropy), by_device.reference = c_row(device.entropy);
  by_host.log_epsilon_P = by_device.log_epsilon_P = -1.5;
  by_host.public_tokens = c_row(host.counts), by_device.public_tokens = c_row(device.counts);
  std::vector<double> sums(2), weight(2), product(1);
  const device_array<double> device_sums(2), device_weight(2), device_product(1);
  ok(prospect_reduced_sums_cpu(&h.tokens, &by_host, c_row(sums), prospect_row{}, nullptr, &error));
  ok(prospect_reduced_spread_cpu(&h.tokens, &by_host, c_row(host.d), c_row(host.d_token), nullptr,
                                 &error));
  ok(prospect_wpo_weights_cpu(&h.tokens, c_row(host.log_prob), c_row(host.entropy), c_row(weight),
                              nullptr, &error));
  ok(prospect_pair_weights_cpu(c_row(weight), prospect_row{}, prospect_row{}, c_row(product),
                               nullptr, &error));
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_reduced_sums_cuda(&d.tokens, &by_device, c_row(device_sums), prospect_row{}, on,
                                      e);
  });
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_reduced_spread_cuda(&d.tokens, &by_device, c_row(device.d),
                                        c_row(device.d_token), on, e);
  });
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_wpo_weights_cuda(&d.tokens, c_row(device.log_prob), c_row(device.entropy),
                                     c_row(device_weight), on, e);
  });
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_pair_weights_cuda(c_row(device_weight), prospect_row{}, prospect_row{},
                                      c_row(device_product), on, e);
  });
  check_close(device_sums.host(), sums, 4e-6L, 1e-5L);
  CHECK(device.d_token.host() == host.d_token);
  check_close(device_weight.host(), weight, 4e-5L, 4e-5L);
  check_close(device_product.host(), product, 4e-5L, 4e-5L);
  const std::vector<std::int32_t> shorter(2, 1);
  const device_array<std::int32_t> device_shorter(2);
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_public_tokens_cuda(c_row(device.counts), prospect_row{}, prospect_row{},
                                       c_row(device_shorter), on, e);
  });
  CHECK(device_shorter.host() == shorter);
}

TEST_CASE("a vocabulary in two parts on the device") {
  batch host;
  device_batch device;
  described h{host};
  described d{device};
  prospect_error error{};
  testing::require_ok(prospect_token_log_probs_cpu(h.x, &h.tokens, &h.results, nullptr, &error),
                      error);
  const device_array<prospect_partial> partials(2 * rows);
  const std::int64_t first[] = {0, 50}, width[] = {50, columns - 50};
  for (std::size_t part = 0; part < 2; ++part) {
    prospect_tokens tokens = d.tokens;
    tokens.first_token = first[part];
    tokens.vocabulary = columns;
    prospect_matrix x = d.x;
    x.data = device.x.data() + first[part];
    x.columns = width[part];
    run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_vocabulary_partials_cuda(x, &tokens, 1,
                                               partials.data() + part * std::size_t{rows}, on, e);
    });
  }
  run_on_device([&](const prospect_context* on, prospect_error* e) {
    return prospect_combine_partials_cuda(partials.data(), 2, &d.tokens, &d.results, on, e);
  });
  check_close(device.log_prob.host(), host.log_prob, 4e-6L, 4e-6L);
  check_close(device.entropy.host(), host.entropy, 4e-6L, 4e-6L);
}

TEST_CASE(
    "a step on the device is a step on the host: completions, halves, pairs by index, thirds") {
  const std::vector<std::int64_t> offset{0, 1, 3, 4, 6};
  const std::vector<double> reference{-5, -2, -4, -3};
  const std::vector<std::uint8_t> desirable{1, 0, 0, 1};
  const std::vector<std::int32_t> chosen{0, 0, 3}, rejected{3, 2, 2}, third{1, 2, 1};
  const std::vector<std::int32_t> shared{1, 1, 1, 1};
  const device_array<std::int64_t> device_offset{offset};
  const device_array<double> device_reference{reference};
  const device_array<std::uint8_t> device_desirable{desirable};
  const device_array<std::int32_t> device_chosen{chosen}, device_rejected{rejected};
  const device_array<std::int32_t> device_third{third}, device_shared{shared};
  const device_array<prospect_device_metrics> metrics(1);
  for (const int way : {0, 1, 2, 3}) {
    CAPTURE(way);
    batch host;
    device_batch device;
    described h{host};
    described d{device};
    h.layout = d.layout = sized<prospect_layout>();
    h.layout.offsets = c_row(offset);
    d.layout.offsets = c_row(device_offset);
    const prospect_loss loss = c_loss(way == 0 ? "kto" : way == 3 ? "tpo" : "dpo");
    auto pairs = sized<prospect_pairs>(), device_pairs = pairs;
    auto completions = sized<prospect_completions>(), device_completions = completions;
    completions.reference = pairs.reference = c_row(reference);
    device_completions.reference = device_pairs.reference = c_row(device_reference);
    completions.desirable = c_row(desirable);
    device_completions.desirable = c_row(device_desirable);
    completions.reference_point = device_completions.reference_point = PROSPECT_CROSS_CLASS;
    if (way >= 2) {
      pairs.chosen = c_row(chosen), pairs.rejected = c_row(rejected);
      device_pairs.chosen = c_row(device_chosen), device_pairs.rejected = c_row(device_rejected);
    }
    auto reducer = sized<prospect_token_reducer>(), device_reducer = reducer;
    reducer.ld_alpha = device_reducer.ld_alpha = 0.25;
    reducer.public_tokens = c_row(shared), device_reducer.public_tokens = c_row(device_shared);
    std::vector<double> d_sequence(4), memory(1000);
    const device_array<double> device_d(4);
    auto step = sized<prospect_step>(), device_step = step;
    step.logits = h.x, device_step.logits = d.x;
    step.tokens = &h.tokens, device_step.tokens = &d.tokens;
    step.loss = device_step.loss = &loss;
    step.d_sequence = c_row(d_sequence), device_step.d_sequence = c_row(device_d);
    if (way == 3) {
      pairs.third = c_row(third), device_pairs.third = c_row(device_third);
      pairs.reference = device_pairs.reference = {};
      step.reducer = &reducer, device_step.reducer = &device_reducer;
    }
    (way == 0 ? static_cast<void>(step.completions = &completions)
              : static_cast<void>(step.pairs = &pairs));
    (way == 0 ? static_cast<void>(device_step.completions = &device_completions)
              : static_cast<void>(device_step.pairs = &device_pairs));

    auto context = sized<prospect_context>();
    context.scratch = memory.data();
    context.scratch_size = memory.size() * sizeof(double);
    c_metrics want;
    prospect_error error{};
    testing::require_ok(prospect_step_cpu(&step, &want, &context, &error), error);
    const std::size_t bytes = run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_step_cuda(&device_step, metrics.data(), on, e);
    });
    CHECK(bytes > 0);
    check_close(device_d.host(), d_sequence, 4e-6L, 1e-9L);
    check_close(device.x.host(), host.x, 1e-5L, 1e-9L);
    testing::check_close_metrics(testing::read_metrics(loss, metrics), want);
  }
}
