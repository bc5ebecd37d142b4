// The command line.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace align {

struct options {
  std::string data;  // "": synthetic feedback
  double drop_desirable = 0;

  std::string loss = "kto";
  std::vector<std::pair<std::string, std::string>> parameters;  // value: a number or "auto"
  std::string reference_point;                                  // "": the loss's own

  double epochs = 1;
  int steps = 0;             // 0: as many as the epochs have
  double learning_rate = 0;  // 0: what suits the width of the model
  double sft_epochs = 4;
  double sft_learning_rate = 2e-3;
  int batch = 32;

  std::uint64_t seed = 1;
  int seeds = 1;
  int threads = 0;  // 0: one per core

  std::filesystem::path out = "align-out";
  std::filesystem::path json;  // "": none
  std::filesystem::path html;  // "": report.html in `out`
  int checkpoint_every = 100;
  bool resume = false;
  bool help = false;
};

// Throws std::invalid_argument with one clear sentence.
options parse_options(std::span<const char* const> arguments);

std::string help_text();

}  // namespace align
