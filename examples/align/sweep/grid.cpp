// See grid.hpp.
#include "sweep/grid.hpp"

#include <stdexcept>
#include <utility>

#include "command.hpp"
#include "files.hpp"

namespace align {
namespace fs = std::filesystem;
namespace {

// For the name of a folder, in which ":" and "=" are a nuisance.
std::string dashed(std::string name) {
  for (char& c : name) c = c == '_' || c == ':' || c == '=' ? '-' : c;
  return name;
}

// What decides the result.
std::vector<std::string> deciding(const sweep_run& run, const sweep_settings& s) {
  std::vector<std::string> words = s.passed_on;
  const std::vector<std::string> own = words_of(run.loss, run.value);
  words.insert(words.end(), own.begin(), own.end());
  words.insert(words.end(), {"--seed", std::to_string(run.seed)});
  return words;
}

std::string joined(const std::vector<std::string>& words) {
  std::string line;
  for (const std::string& word : words) line += (line.empty() ? "" : " ") + shell_word(word);
  return line;
}

}  // namespace

std::vector<sweep_run> runs_of(const sweep_settings& s) {
  std::vector<sweep_run> runs;
  for (int i = 0; i < s.seeds; ++i) {
    const std::uint64_t seed = s.first_seed + static_cast<std::uint64_t>(i);
    const std::string seed_name = "seed-" + std::to_string(seed);
    for (const swept_value& value : s.values) {
      for (const swept_loss& loss : s.losses) {
        sweep_run run{loss, value, seed, {}, {}, {}, {}, {}, {}};
        const fs::path folder =
            s.out / (dashed(loss.name) + "-" + dashed(loss.parameter) + "-" + value.text);
        run.folder = folder / seed_name;
        run.json = folder / (seed_name + ".json");
        run.html = folder / (seed_name + ".html");
        run.log = folder / (seed_name + ".log");
        run.start =
            s.out / ("start-of-" + seed_name + (s.own_pairs && loss.paired ? "-pairs" : ""));
        run.command = "examples/run " + joined(deciding(run, s));
        runs.push_back(std::move(run));
      }
    }
  }
  return runs;
}

std::string name_of(const sweep_run& run) {
  return run.loss.name + ", " + run.loss.parameter + " " + run.value.text + ", seed " +
         std::to_string(run.seed);
}

std::vector<std::string> arguments_of(const sweep_run& run, const sweep_settings& s, bool resume) {
  std::vector<std::string> words = deciding(run, s);
  words.insert(words.end(), {"--threads", std::to_string(s.threads), "--out", run.folder.string(),
                             "--json", run.json.string(), "--html", run.html.string()});
  if (resume) words.emplace_back("--resume");
  return words;
}

void claim_folder(const sweep_settings& s) {
  require_folder(s.out);
  const fs::path file = s.out / "arguments";
  const std::string own = joined(s.passed_on) + "\n";
  if (!fs::exists(file)) return write_atomically(file, own);
  const std::string there = read_file(file);
  if (there == own) return;
  const std::string named = there.size() < 2 ? "none" : there.substr(0, there.size() - 1);
  throw std::invalid_argument(s.out.string() +
                              " holds a sweep with other arguments for the trainer (" + named +
                              "): give these, or another --out");
}

}  // namespace align
