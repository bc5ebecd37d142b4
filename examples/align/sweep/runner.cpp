// See runner.hpp.
#include "sweep/runner.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <thread>
#include <utility>

#include "files.hpp"
#include "report/format.hpp"
#include "sweep/process.hpp"

namespace align {
namespace fs = std::filesystem;
namespace {

using clock = std::chrono::steady_clock;
using std::chrono::duration;

constexpr auto pause_between_looks = std::chrono::milliseconds(20);
constexpr std::size_t hopeless = 5;  // failures without a success
constexpr std::size_t shown_of_log = 5;

std::string lasting(double seconds) {
  if (seconds < 99.5) return fixed(seconds, 0) + " s";
  if (seconds < 99.5 * 60) return fixed(seconds / 60, 0) + " min";
  return fixed(seconds / 3600, 1) + " h";
}

bool has_checkpoint(const fs::path& folder) {
  std::error_code absent;
  for (const fs::directory_entry& file : fs::directory_iterator(folder, absent)) {
    if (file.path().extension() == ".checkpoint") return true;
  }
  return false;
}

// The checkpoint of an alignment is one run's; a start model, and what the reference makes of the
// data, serve all runs of a seed.
bool is_shared(const fs::path& file) { return !file.filename().string().starts_with("align-"); }

// Whole or not at all; for file systems without links, a copy.
void link_or_copy(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_hard_link(from, to, error);
  if (!error) return;
  fs::path part = to;
  part += ".part";
  fs::copy_file(from, part, fs::copy_options::overwrite_existing);
  fs::rename(part, to);
}

// A progress bar is one line to a reader, however often it was drawn.
std::string last_lines(const std::string& text) {
  std::deque<std::string> lines;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    std::string line = text.substr(at, end - at);
    line.erase(0, line.find_last_of('\r') + 1);
    if (!line.empty()) lines.push_back("    " + line + "\n");
    if (lines.size() > shown_of_log) lines.pop_front();
    at = end + 1;
  }
  std::string out;
  for (const std::string& line : lines) out += line;
  return out;
}

class runner {
 public:
  runner(const sweep_settings& s, std::span<const sweep_run> runs, std::ostream& log)
      : s_(s), runs_(runs), log_(log), outcomes_(runs.size()) {
    for (std::size_t i = 0; i < runs_.size(); ++i) {
      outcomes_[i] = read_outcome(runs_[i]);
      starts_[runs_[i].start].made = fs::exists(runs_[i].start);
      if (outcomes_[i]) {
        ++finished_;
      } else {
        waiting_.push_back(i);
      }
    }
    if (finished_ > 0) log_ << finished_ << " of " << runs_.size() << " runs are finished\n";
  }

  sweep_result run(const std::function<bool()>& stop) {
    for (;;) {
      const bool stopping = stop();
      if (stopping && !asked_) ask_all_to_stop();
      while (!asked_ && !given_up_ && running_.size() < static_cast<std::size_t>(s_.jobs)) {
        const auto next = std::ranges::find_if(waiting_, [&](std::size_t i) { return ready(i); });
        if (next == waiting_.end()) break;
        const std::size_t i = *next;
        waiting_.erase(next);
        start(i);
      }
      if (running_.empty()) break;
      std::this_thread::sleep_for(pause_between_looks);
      collect();
    }
    sweep_result result;
    for (auto& outcome : outcomes_) {
      if (outcome) result.outcomes.push_back(std::move(*outcome));
    }
    result.failed = failed_;
    result.left = runs_.size() - result.outcomes.size() - failed_;
    return result;
  }

 private:
  struct active {
    std::size_t i;
    clock::time_point started;
    std::unique_ptr<child_process> process;
  };

  // The first run of a seed makes the model that all of that seed start from; the others wait for
  // it, rather than make the same once more.
  struct start_model {
    bool made = false, in_the_making = false;
  };

  bool ready(std::size_t i) {
    const start_model& from = starts_[runs_[i].start];
    return from.made || !from.in_the_making;
  }

  void start(std::size_t i) {
    const sweep_run& run = runs_[i];
    fs::create_directories(run.folder);
    if (starts_[run.start].made) {
      for (const fs::directory_entry& file : fs::directory_iterator(run.start)) {
        const fs::path to = run.folder / file.path().filename();
        if (!fs::exists(to)) link_or_copy(file.path(), to);
      }
    }
    // Without a checkpoint there is nothing to resume, which the trainer would complain about.
    std::vector<std::string> words = arguments_of(run, s_, has_checkpoint(run.folder));
    words.insert(words.begin(), s_.trainer.string());
    running_.push_back({i, clock::now(),
                        std::make_unique<child_process>(
                            words, std::vector{"ALIGN_COMMAND=" + run.command}, run.log)});
    starts_[run.start].in_the_making = true;
  }

  // What a finished run leaves to the others of its seed; the rest would only fill the disk.
  void clear_up(const sweep_run& run) {
    fs::create_directories(run.start);
    for (const fs::directory_entry& file : fs::directory_iterator(run.folder)) {
      const fs::path to = run.start / file.path().filename();
      if (is_shared(file) && !fs::exists(to)) link_or_copy(file, to);
    }
    starts_[run.start].made = true;
    fs::remove_all(run.folder);
  }

  void ask_all_to_stop() {
    asked_ = true;
    if (!running_.empty()) log_ << "Stopping: " << running_.size() << " runs save what they have\n";
    for (active& one : running_) one.process->ask_to_stop();
  }

  void collect() {
    std::erase_if(running_, [&](active& one) {
      const std::optional<int> status = one.process->exit_status();
      if (status) ended(one, *status);
      return status.has_value();
    });
  }

  void ended(const active& one, int status) {
    const sweep_run& run = runs_[one.i];
    starts_[run.start].in_the_making = false;
    if (status == 0) outcomes_[one.i] = read_outcome(run);
    if (outcomes_[one.i]) {
      clear_up(run);
      ++finished_;
      spent_ += duration<double>(clock::now() - one.started).count();
      ++finished_here_;
      say_finished(*outcomes_[one.i], one);
    } else if (!asked_) {
      say_failed(run, status);
    }
  }

  void say_finished(const run_outcome& found, const active& one) {
    const duration<double> took = clock::now() - one.started;
    const std::size_t to_do = waiting_.size() + running_.size() - 1;
    log_ << "[" << finished_ << " of " << runs_.size() << "] " << name_of(runs_[one.i]) << ": AUC "
         << fixed(found.figure("auc_aligned"), 3) << ", NLL "
         << with_sign(found.figure("nll_drift"), 2);
    for (const std::string& warning : found.warnings) log_ << ", " << verdict_of(warning);
    log_ << " (" << lasting(took.count());
    if (to_do > 0) {
      const double each = spent_ / static_cast<double>(finished_here_);
      log_ << "; about " << lasting(each * std::ceil(static_cast<double>(to_do) / s_.jobs))
           << " left";
    }
    log_ << ")\n" << std::flush;
  }

  void say_failed(const sweep_run& run, int status) {
    ++failed_;
    log_ << "FAILED: " << name_of(run) << " (exit status " << status << "), says "
         << run.log.string() << ":\n"
         << last_lines(read_file(run.log)) << std::flush;
    if (failed_ >= hopeless && finished_ == 0 && !given_up_) {
      given_up_ = true;
      log_ << failed_ << " runs failed and none finished, so no other is started\n";
    }
  }

  const sweep_settings& s_;
  std::span<const sweep_run> runs_;
  std::ostream& log_;
  std::vector<std::optional<run_outcome>> outcomes_;
  std::deque<std::size_t> waiting_;
  std::vector<active> running_;
  std::map<fs::path, start_model> starts_;
  std::size_t finished_ = 0, finished_here_ = 0, failed_ = 0;
  double spent_ = 0;  // seconds, in runs that finished
  bool asked_ = false, given_up_ = false;
};

}  // namespace

sweep_result run_all(const sweep_settings& s, std::span<const sweep_run> runs,
                     const std::function<bool()>& stop, std::ostream& log) {
  return runner(s, runs, log).run(stop);
}

}  // namespace align
