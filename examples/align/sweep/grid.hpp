// The runs of a sweep: what each is told, and where what it leaves lies.
//
//   DIR/kto-beta-0.05/seed-3.json    what was found, with .html (its report) and .log beside it
//   DIR/kto-beta-0.05/seed-3/        its checkpoints, until it is finished
//   DIR/start-of-seed-3/             what all runs of that seed start from, made by the first of
//   them
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "sweep/settings.hpp"

namespace align {

struct sweep_run {
  swept_loss loss;
  swept_value value;
  std::uint64_t seed;

  std::filesystem::path json, html, log;
  std::filesystem::path folder, start;
  std::string command;  // gets the same again; whether a result is this run's is told by it alone
};

// Seed by seed, so that a sweep which ends early has tried every value as often.
std::vector<sweep_run> runs_of(const sweep_settings& s);

// "kto, beta 0.05, seed 3"
std::string name_of(const sweep_run& run);

// Without a trainer's name: what is passed on, then what the sweep says.
std::vector<std::string> arguments_of(const sweep_run& run, const sweep_settings& s, bool resume);

// A folder holds runs of one list of arguments for the trainer: throws std::invalid_argument where
// it has those of another, and remembers these where it has none.
void claim_folder(const sweep_settings& s);

}  // namespace align
