// What every phase of a run shares, how a phase says how far it is, and how one is ended.
#pragma once

#include <chrono>
#include <functional>
#include <iosfwd>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "options.hpp"
#include "report/progress.hpp"
#include "threads.hpp"

namespace align {

// Thrown where `stop` ended a run; what was trained is saved, and the sentence says how far it got.
struct interrupted : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct session {
  const options& given;
  std::function<bool()> stop;
  std::ostream& log;
  workers& on;
};

[[noreturn]] inline void interrupt(const std::string& phase) {
  throw interrupted("stopped during " + phase + ", which starts again where the run goes on");
}

// Shows how far phases without a loss are, each on a line of its own; how fast, where tokens are
// what they go through.
class phase_progress {
 public:
  phase_progress(const session& in, std::string who) : in_(in), who_(std::move(who)) {}

  bool operator()(std::string_view phase, std::size_t done, std::size_t of, std::size_t tokens) {
    if (phase != phase_ || !shown_) {
      started_ = idle_;
      finish();
      phase_ = phase;
      shown_ = std::make_unique<progress>(who_ + " " + phase_, static_cast<int>(of), in_.log);
    }
    const std::chrono::duration<double> took = clock::now() - started_;
    step_record record{.step = static_cast<int>(done)};
    if (tokens > 0) record.tokens_per_second = static_cast<double>(tokens) / took.count();
    shown_->update(record);
    idle_ = clock::now();
    return !in_.stop();
  }

  void finish() {
    if (shown_) shown_->finish();
    shown_.reset();
    idle_ = clock::now();
  }

  // What `measured` holds, or the end of the run.
  template <class T>
  T require(std::optional<T> measured) {
    finish();
    if (!measured) interrupt(who_ + " " + phase_);
    return std::move(*measured);
  }

 private:
  using clock = std::chrono::steady_clock;
  const session& in_;
  std::string who_, phase_;
  std::unique_ptr<progress> shown_;
  clock::time_point started_, idle_ = clock::now();  // a phase starts where the last one ended
};

}  // namespace align
