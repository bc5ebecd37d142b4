// What a run found, and the four ways to show it: a terminal table, a sparkline, JSON and a
// self-contained HTML page. The verdict (`diagnose`) looks at several metrics at once, because a
// collapsed model can win any single one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace align {

inline constexpr double not_measured = std::numeric_limits<double>::quiet_NaN();

// One optimiser step; `step` counts from 1. A class that is absent from the batch is NaN.
struct step_record {
  int step = 0;
  double loss = not_measured;
  double reward_desirable = not_measured;
  double reward_undesirable = not_measured;
  double margin = not_measured;
  double z = not_measured;      // the reference point as the loss uses it, clamped at 0
  double z_raw = not_measured;  // the same before the clamp
  double tokens_per_second = not_measured;
};

// Reference and aligned model on the held-out part, for one seed.
struct seed_outcome {
  std::uint64_t seed = 0;
  double auc_reference = 0.5;  // by definition: every reward of the reference is 0
  double auc_aligned = not_measured;
  double nll_reference = not_measured, nll_aligned = not_measured;        // nats per token
  double judged_reference = not_measured, judged_aligned = not_measured;  // share of samples
  double length_reference = not_measured, length_aligned = not_measured;  // tokens per sample
  double kl_reference = 0, kl_aligned = not_measured;                     // nats per sequence
  double true_reference = not_measured, true_aligned = not_measured;      // synthetic source only
  double repetition_reference = not_measured, repetition_aligned = not_measured;

  // Shares of held-out pairs, where there are any (see pair_ranking of evaluate.hpp).
  std::size_t pairs = 0;
  double pairs_right = not_measured, pairs_right_at_equal_length = not_measured;
  double pairs_shorter_right = not_measured;

  double auc_sampling_error = not_measured;  // of auc_aligned, from the number of held-out rows
  std::vector<step_record> steps;
};

// What both models make of one prompt.
struct sample_text {
  std::string prompt, reference, aligned;
};

struct run_report {
  std::string title, command, data_name;
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::string> notes;
  std::vector<seed_outcome> seeds;
  std::vector<std::string> warnings;
  std::vector<sample_text> samples;  // leave empty when the data is not quotable
};

// What is wrong with the aligned model, one sentence each, worst first; empty when nothing is.
std::vector<std::string> diagnose(const run_report& report);

// What a reader should know although nothing is wrong, such as a reference point stuck at 0.
std::vector<std::string> remarks(const run_report& report);

// Reference against aligned, mean and standard error over seeds, then sparklines, verdict, remarks.
std::string table(const run_report& report);

// `width` block characters, scaled to the range of the values; a gap where a value is NaN.
std::string sparkline(std::span<const double> values, int width = 40);

// Both write to a temporary file beside `path` and rename it. Both throw std::runtime_error.
void write_json(const std::filesystem::path& path, const run_report& report);
void write_html(const std::filesystem::path& path, const run_report& report);

}  // namespace align
