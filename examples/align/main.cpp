// The program: arguments in, a table on the terminal, a report in a file. Exit status: 0 done,
// 1 failed (of --check: something is wrong), 2 wrong arguments, 130 interrupted.
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

#include "command.hpp"
#include "experiment.hpp"
#include "files.hpp"
#include "options.hpp"
#include "report/report.hpp"

namespace {

volatile std::sig_atomic_t interrupt_requested = 0;

extern "C" void on_interrupt(int signal) {
  interrupt_requested = 1;
  std::signal(signal, SIG_DFL);  // a second one does not wait for the step to end
}

std::string own_command(std::span<const char* const> words) {
  return align::command_line(words, std::getenv("ALIGN_COMMAND"));
}

int run(std::span<const char* const> words) {
  const align::options given = align::parse_options(words.subspan(1));
  if (given.help) {
    std::cout << align::help_text();
    return 0;
  }
  if (given.check) {
    return align::print(std::cout, align::check_experiment(given, std::cerr)) ? 0 : 1;
  }

  align::require_folder(given.out);
  const auto html = given.html.empty() ? given.out / "report.html" : given.html;
  for (const auto& file : {html, given.json}) {
    if (!file.empty()) align::require_writable(file);
  }
  if (!given.reference_cache.empty() && given.reference_cache != "off") {
    align::require_folder(given.reference_cache);
  }
  for (const auto& [one, other] : {std::pair{html, given.json}, std::pair{html, given.save},
                                   std::pair{given.json, given.save}}) {
    if (!one.empty() && one == other) {
      throw std::invalid_argument("two of --html, --json and --save are the same file, " +
                                  one.string());
    }
  }
  if (given.save.extension() == ".gguf") {
    align::require_writable(given.save);
  } else if (!given.save.empty()) {
    align::require_folder(given.save);
  }
  std::signal(SIGINT, on_interrupt);
  std::signal(SIGTERM, on_interrupt);
  const align::run_report report = align::run_experiment(
      given, own_command(words), [] { return interrupt_requested != 0; }, std::cerr);
  std::cout << align::table(report);
  align::write_html(html, report);
  std::cout << "\nReport: " << html.string() << '\n';
  if (!given.json.empty()) align::write_json(given.json, report);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::span<const char* const> words(argv, static_cast<std::size_t>(argc));
  try {
    return run(words);
  } catch (const align::interrupted& stopped) {
    const bool again = std::ranges::find(words, std::string_view{"--resume"}) != words.end();
    std::cerr << stopped.what() << "\nContinue with: " << own_command(words)
              << (again ? "\n" : " --resume\n");
    return 130;
  } catch (const std::invalid_argument& wrong) {
    std::cerr << "align: " << wrong.what() << '\n';
    return 2;
  } catch (const std::exception& failed) {
    std::cerr << "align: " << failed.what() << '\n';
    return 1;
  }
}
