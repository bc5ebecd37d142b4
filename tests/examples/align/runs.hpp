// Runs of the whole program for tests: a little feedback, and an end after so many questions.
#pragma once

#include <cstddef>
#include <filesystem>
#include <sstream>
#include <string>

#include "experiment.hpp"
#include "scratch.hpp"

namespace align {

// Forty rows of a few words, both thumbs.
inline std::string few_thumbs() {
  std::string out;
  for (int i = 0; i < 40; ++i) {
    const std::string word{static_cast<char>('a' + i % 7), static_cast<char>('a' + i % 5)};
    out += "{\"prompt\": \"the film\", \"completion\": \"is " + word +
           "\", \"label\": " + (i % 2 == 0 ? "true" : "false") + "}\n";
  }
  return out;
}

// A run asks whether to stop before each step, and once about each of these phases, which lie
// between the two stages: the reference, held-out rows, samples.
inline constexpr int asked_between = 3;

struct stopped_run {
  std::string sentence, log;
  run_report report = {};
};

// Runs until it has asked so often whether to stop; the sentence is that of the interruption, or of
// a refusal.
inline stopped_run run_for(const options& given, int questions) {
  std::ostringstream log;
  int asked = 0;
  stopped_run run;
  run.sentence = complaint([&] {
    run.report = run_experiment(
        given, "", [&] { return asked++ == questions; }, log);
  });
  run.log = log.str();
  return run;
}

inline stopped_run run_whole(const options& given) { return run_for(given, -1); }

inline std::size_t files_in(const std::filesystem::path& folder, const std::string& part) {
  std::size_t n = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    n += contains(entry.path().filename().string(), part) ? 1 : 0;
  }
  return n;
}

}  // namespace align
