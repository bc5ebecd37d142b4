// The device's functions of the C surface as far as no device is needed: they are there in every
// library, and metrics are named from the bytes that a device wrote.
#include <prospect/batch.hpp>

#include <cstring>
#include <string>

#include "c/surface.hpp"
#include "catch.hpp"

using testing::c_loss;
using testing::c_metrics;
using testing::refused;

TEST_CASE("functions on a device are there in every library, and say what it was built without") {
  prospect_error error{};
  const prospect_row row{};
  const prospect_matrix x{};
  const auto answered = [&](prospect_status status) {
#if defined(PROSPECT_WITH_CUDA)
    refused(status, PROSPECT_INVALID_ARGUMENT, error, "is NULL");
#else
    refused(status, PROSPECT_UNSUPPORTED, error, "built without CUDA");
#endif
    error = {};
  };
  answered(prospect_pairs_cuda(nullptr, nullptr, nullptr, nullptr, &error));
  answered(prospect_completions_cuda(nullptr, nullptr, nullptr, nullptr, &error));
  answered(prospect_mismatched_kl_cuda(row, row, row, nullptr, nullptr, &error));
  answered(prospect_token_losses_cuda(nullptr, nullptr, nullptr, nullptr, &error));
  answered(prospect_token_log_probs_cuda(x, nullptr, nullptr, nullptr, &error));
  answered(prospect_token_log_probs_and_gradient_cuda(x, nullptr, nullptr, nullptr, &error));
  answered(prospect_logits_gradient_cuda(x, x, nullptr, nullptr, nullptr, &error));
  answered(prospect_vocabulary_partials_cuda(x, nullptr, 0, nullptr, nullptr, &error));
  answered(prospect_combine_partials_cuda(nullptr, 1, nullptr, nullptr, nullptr, &error));
  answered(prospect_sequence_sums_cuda(nullptr, row, row, row, nullptr, &error));
  answered(prospect_spread_cuda(nullptr, row, row, nullptr, &error));
  answered(prospect_reduced_sums_cuda(nullptr, nullptr, row, row, nullptr, &error));
  answered(prospect_reduced_spread_cuda(nullptr, nullptr, row, row, nullptr, &error));
  answered(prospect_wpo_weights_cuda(nullptr, row, row, row, nullptr, &error));
  answered(prospect_shift_targets_cuda(row, nullptr, row, nullptr, &error));
  answered(prospect_step_cuda(nullptr, nullptr, nullptr, &error));
  answered(prospect_head_log_probs_cuda(nullptr, nullptr, nullptr, nullptr, &error));
  answered(prospect_head_log_probs_and_gradient_cuda(nullptr, nullptr, x, nullptr, &error));
  answered(prospect_head_gradient_cuda(nullptr, nullptr, nullptr, 0, nullptr, &error));
  answered(prospect_head_vocabulary_partials_cuda(nullptr, 0, nullptr, nullptr, &error));
  answered(prospect_head_step_cuda(nullptr, nullptr, &error));
#if !defined(PROSPECT_WITH_CUDA)
  answered(prospect_scale_rows_cuda(x, row, nullptr, &error));
  answered(prospect_public_tokens_cuda(row, row, row, row, nullptr, &error));
  answered(prospect_pair_weights_cuda(row, row, row, row, nullptr, &error));
#endif
}

TEST_CASE("metrics are read from the bytes that a device wrote") {
  prospect::paired_metrics pairs{};
  pairs.loss = {.sum = 3, .count = 2};
  pairs.first_nonfinite = 7;
  prospect::unpaired_metrics completions{};
  completions.kl = {.sum = 5, .count = 1};
  prospect_device_metrics bytes{};
  prospect_error error{};
  c_metrics m;
  const prospect_loss dpo = c_loss("dpo"), kto = c_loss("kto");
  double mean = 42;

  std::memcpy(static_cast<void*>(&bytes), &pairs, sizeof pairs);
  REQUIRE(prospect_read_metrics(&dpo, &bytes, &m, &error) == PROSPECT_OK);
  CHECK(m.metrics.first_nonfinite == 7);
  CHECK(prospect_metric_get(&m, "loss", &mean) == PROSPECT_OK);
  CHECK(mean == 1.5);
  CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_UNKNOWN_NAME);

  std::memcpy(static_cast<void*>(&bytes), &completions, sizeof completions);
  REQUIRE(prospect_read_metrics(&kto, &bytes, &m, &error) == PROSPECT_OK);
  CHECK(prospect_metric_get(&m, "kl", &mean) == PROSPECT_OK);
  CHECK(mean == 5);

  m.metrics.total = 42;
  refused(prospect_read_metrics(nullptr, &bytes, &m, &error), PROSPECT_INVALID_ARGUMENT, error,
          "loss is NULL");
  refused(prospect_read_metrics(&kto, nullptr, &m, &error), PROSPECT_INVALID_ARGUMENT, error,
          "copied is NULL");
  refused(prospect_read_metrics(&kto, &bytes, nullptr, &error), PROSPECT_INVALID_ARGUMENT, error,
          "metrics is NULL");
  CHECK(m.metrics.total == 42);
}
