// The program: many runs of the trainer, then what they found. Exit status: 0 done, 1 a run failed,
// 2 wrong arguments, 130 interrupted.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "command.hpp"
#include "files.hpp"
#include "sweep/grid.hpp"
#include "sweep/process.hpp"
#include "sweep/results.hpp"
#include "sweep/runner.hpp"
#include "sweep/settings.hpp"

namespace {

volatile std::sig_atomic_t interrupt_requested = 0;

extern "C" void on_interrupt(int signal) {
  interrupt_requested = 1;
  std::signal(signal, SIG_DFL);  // a second one does not wait
}

void list_runs(const align::sweep_settings& s, std::span<const align::sweep_run> runs) {
  for (const align::sweep_run& run : runs) {
    std::cout << (align::read_outcome(run) ? "finished  " : "to do     ") << run.command << '\n';
  }
  std::cout << runs.size() << " runs, " << s.jobs << " at once, " << s.threads << " threads each\n";
}

std::vector<std::string> notes_on(const align::sweep_settings& s,
                                  const align::sweep_result& result) {
  std::vector<std::string> notes;
  const auto pairs = std::ranges::count(s.losses, true, &align::swept_loss::paired);
  if (s.own_pairs && pairs > 0 && std::cmp_less(pairs, s.losses.size())) {
    notes.emplace_back(
        "Synthetic thumbs and pairs are different texts, so the held-out figures of a loss of "
        "pairs "
        "and of one of thumbs are not of the same rows. The true reward is the same for both.");
  }
  const auto say = [&](std::size_t count, const std::string& what) {
    if (count > 0) notes.push_back(std::to_string(count) + what);
  };
  say(result.left, " runs are not finished, so some settings have fewer seeds or are missing.");
  say(result.failed, " runs failed; their logs say why.");
  return notes;
}

void show(const align::sweep_settings& s, const align::sweep_result& result,
          const std::string& command) {
  const align::sweep_summary all = align::summarise(result.outcomes);
  std::cout << '\n' << align::sweep_table(all);
  align::write_atomically(s.out / "sweep.csv", align::sweep_csv(result.outcomes));
  align::write_atomically(s.out / "sweep.html",
                          align::sweep_page(all, command, notes_on(s, result)));
  std::cout << "\nReport: " << (s.out / "sweep.html").string()
            << "\nFigures of every run: " << (s.out / "sweep.csv").string() << '\n';
}

int run(std::span<const char* const> words) {
  align::sweep_settings s = align::parse_sweep(words.subspan(1));
  if (s.help) {
    std::cout << align::sweep_help();
    return 0;
  }
  if (s.trainer.empty()) s.trainer = std::filesystem::path(words[0]).parent_path() / "align";
  const std::vector<align::sweep_run> runs = align::runs_of(s);
  if (s.list) {
    list_runs(s, runs);
    return 0;
  }
  align::claim_folder(s);
  align::lock_for_this_process_and_children(s.out / "lock");
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) std::signal(signal, on_interrupt);

  const std::string command = align::command_line(words, std::getenv("ALIGN_COMMAND"));
  const align::sweep_result result = align::run_all(
      s, runs, [] { return interrupt_requested != 0; }, std::cerr);
  show(s, result, command);
  if (interrupt_requested != 0 && result.left > 0) {
    std::cerr << "Stopped with " << result.left << " runs to do.\nContinue with: " << command
              << '\n';
    return 130;
  }
  if (result.failed > 0) {
    std::cerr << result.failed << " runs failed; the same command tries them again: " << command
              << '\n';
  }
  return result.failed > 0 ? 1 : 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<const char* const> words(argv, static_cast<std::size_t>(argc));
  try {
    return run(words);
  } catch (const std::invalid_argument& wrong) {
    std::cerr << "align_sweep: " << wrong.what() << '\n';
    return 2;
  } catch (const std::exception& failed) {
    std::cerr << "align_sweep: " << failed.what() << '\n';
    return 1;
  }
}
