// The sweep's command line. What stands after "--" is the trainer's own and is checked by its own
// parser, with every loss and value that will be added to it: a mistake ends the sweep before the
// first run, not the last.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "sweep/values.hpp"

namespace align {

// One loss and what is swept of it: a parameter of its own, or a figure of the feedback or the
// training. "dpo:label_smoothing=0.2" is a DPO with that parameter set; so the same loss can stand
// beside itself.
struct swept_loss {
  std::string name, parameter;
  bool paired;
  std::vector<std::string> set{};  // "label_smoothing=0.2"

  std::string loss() const { return name.substr(0, name.find(':')); }
};

struct sweep_settings {
  std::vector<swept_loss> losses;
  std::vector<swept_value> values;
  std::uint64_t first_seed = 1;
  int seeds = 0;
  int jobs = 0;     // processes at once
  int threads = 0;  // of each
  std::filesystem::path out = "align-sweep";
  std::filesystem::path trainer;       // "": `align` beside this program
  std::vector<std::string> passed_on;  // to the trainer
  bool from_file = false;              // a model is given, and not trained from nothing first
  bool own_pairs = false;              // pairs and thumbs are different texts (synthetic feedback)
  bool list = false;
  bool help = false;
};

// What tells the trainer of them.
std::vector<std::string> words_of(const swept_loss& loss, const swept_value& value);

// Throws std::invalid_argument with one clear sentence.
sweep_settings parse_sweep(std::span<const char* const> arguments);

std::string sweep_help();

}  // namespace align
