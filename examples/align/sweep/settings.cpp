// See settings.hpp.
#include "sweep/settings.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <array>
#include <cstdlib>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <thread>
#include <utility>

#include "objective.hpp"
#include "options.hpp"

namespace align {
namespace {

constexpr int most_seeds = 1000, most_jobs = 1024;

// Of the trainer's own options, those whose values can be swept as a loss's parameter can.
constexpr std::array swept_options = {"flip", "drop_desirable", "lr"};

// As they are typed.
struct wishes {
  std::string losses, values, parameter;
  int seeds = 0, jobs = 0;
};

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

std::string underscored(std::string name) {
  std::ranges::replace(name, '-', '_');
  return name;
}

std::string name_of(std::string_view word) {
  return underscored(std::string(word.substr(0, word.find('='))));
}

void fill(CLI::App& app, wishes& typed, sweep_settings& s) {
  app.set_help_flag();
  const auto dressed = [](CLI::Option* option, const std::string& type) {
    option->type_name(type)->take_last();
    return option;
  };
  dressed(app.add_option(
              "--losses", typed.losses,
              "side by side, NAME or NAME:PARAMETER=VALUE (kto,dpo,ipo; of --model kto,dpo)"),
          "NAMES");
  dressed(app.add_option("--values,--betas", typed.values,
                         "numbers and ranges (0.01:0.2:0.01,0.3,0.4,0.5; of --model 0.05,0.1,0.2)"),
          "LIST");
  dressed(app.add_option("--parameter", typed.parameter,
                         "what the values are of: beta, tau or another of the losses', flip, "
                         "drop-desirable, lr (beta, or tau where the loss has that)"),
          "NAME");
  dressed(app.add_option("--seeds", typed.seeds, "runs of every value (5; of --model 3)"), "N")
      ->check(CLI::Range(1, most_seeds, "N"));
  dressed(app.add_option("--seed", s.first_seed, "the first of them (1)"), "N");
  dressed(app.add_option("--jobs", typed.jobs, "processes at once (one per core; of --model 1)"),
          "N")
      ->check(CLI::Range(1, most_jobs, "N"));
  dressed(app.add_option("--out", s.out, "everything goes here; the same again continues"), "DIR");
  dressed(app.add_option("--align", s.trainer, "the trainer (the one beside this program)"),
          "FILE");
  app.add_flag("--list", s.list, "say what would run and what is finished, and run nothing")
      ->disable_flag_override();
  app.add_flag("--help", s.help, "print this")->disable_flag_override();
}

// What the sweep says for every run.
void require_free(const std::vector<std::string>& passed_on, const sweep_settings& s) {
  constexpr std::array own = {"--loss", "--seed", "--seeds",  "--threads", "--out", "--json",
                              "--html", "--save", "--resume", "--check",   "--help"};
  for (const std::string& word : passed_on) {
    if (!word.starts_with("--")) continue;
    const std::string name = name_of(word);
    for (const char* taken : own) {
      if (name == underscored(taken)) {
        fail(std::string(taken) + " cannot be passed on: the sweep says it for every run");
      }
    }
    for (const swept_loss& loss : s.losses) {
      if (name == "__" + loss.parameter) fail("--" + loss.parameter + " is what is swept");
    }
  }
  for (const swept_loss& loss : s.losses) {
    for (const std::string& set : loss.set) {
      if (name_of(set) == loss.parameter) fail(loss.parameter + " is what is swept");
    }
  }
}

std::string parameter_of(const loss_description& loss, const std::string& wanted) {
  const auto has = [&](const std::string& name) {
    return std::ranges::any_of(loss.parameters, [&](const auto& p) { return p.first == name; });
  };
  for (const std::string& name : wanted.empty() ? std::vector<std::string>{"beta", "tau"}
                                                : std::vector{underscored(wanted)}) {
    if (has(name) || std::ranges::count(swept_options, name) > 0) return name;
  }
  std::string there;
  for (const auto& [name, value] : loss.parameters) there += (there.empty() ? "" : ", ") + name;
  fail("the loss " + loss.name + " has no parameter " + (wanted.empty() ? "beta" : wanted) +
       (there.empty() ? "" : "; it has " + there));
}

// Of "kto:beta=0.3:desirable_weight=auto".
swept_loss loss_called(const std::string& text, const std::string& parameter) {
  std::istringstream words(text);
  std::string name, all;
  std::getline(words, name, ':');
  name = underscored(name);
  swept_loss out{name, {}, false};
  for (std::string set; std::getline(words, set, ':');) {
    const std::size_t end = std::min(set.find('='), set.size());
    set = underscored(set.substr(0, end)) + set.substr(end);  // a value may be 1e-3
    out.set.push_back(set);
    out.name += ":" + set;
  }
  for (const loss_description& loss : known_losses()) {
    if (loss.name == name) {
      out.parameter = parameter_of(loss, parameter);
      out.paired = loss.paired;
      return out;
    }
    all += (all.empty() ? "" : ", ") + loss.name;
  }
  fail("there is no loss '" + name + "'; there are " + all);
}

options trainer_options(const std::vector<std::string>& words) {
  std::vector<const char*> pointers;
  for (const std::string& word : words) pointers.push_back(word.c_str());
  return parse_options(pointers);
}

// The trainer's own complaints, about what it would be given. A weight that it finds in the data
// ("auto") is as good as 1 here: only whether the loss has it is to be known.
void require_accepted(const sweep_settings& s) {
  for (const swept_loss& loss : s.losses) {
    for (const swept_value& value : s.values) {
      std::vector<std::string> words = s.passed_on;
      const std::vector<std::string> own = words_of(loss, value);
      words.insert(words.end(), own.begin(), own.end());
      const options given = trainer_options(words);
      loss_choice choice{
          .loss = loss.loss(), .parameters = {}, .reference_point = given.reference_point};
      for (const auto& [name, text] : given.parameters) {
        choice.parameters.emplace_back(name,
                                       text == "auto" ? 1 : std::strtod(text.c_str(), nullptr));
      }
      preference_objective(choice);
    }
  }
}

void parse_own(std::span<const char* const> words, wishes& typed, sweep_settings& s) {
  CLI::App app;
  fill(app, typed, s);
  std::vector<std::string> backwards(words.rbegin(), words.rend());
  try {
    app.parse(backwards);
  } catch (const CLI::ExtrasError&) {
    fail("'" + app.remaining().front() +
         "' is no option of the sweep; --help lists them, and what is for the trainer follows --");
  } catch (const CLI::ArgumentMismatch& e) {
    const std::string what = e.what();  // "--values: 1 required LIST missing"
    fail(what.substr(0, what.find(':')) + " needs a value");
  } catch (const CLI::ParseError& e) {
    fail(e.what());
  }
}

}  // namespace

std::vector<std::string> words_of(const swept_loss& loss, const swept_value& value) {
  std::vector<std::string> words{"--loss", loss.loss()};
  for (const std::string& set : loss.set) words.insert(words.end(), {"--set", set});
  std::string option = "--" + loss.parameter;
  std::ranges::replace(option, '_', '-');
  words.insert(words.end(), {option, value.text});
  return words;
}

sweep_settings parse_sweep(std::span<const char* const> arguments) {
  const auto end = std::ranges::find(arguments, std::string_view("--"));
  const auto own = static_cast<std::size_t>(end - arguments.begin());
  wishes typed;
  sweep_settings s;
  parse_own(arguments.first(own), typed, s);
  if (s.help) return s;
  for (const char* word : arguments.subspan(std::min(own + 1, arguments.size()))) {
    s.passed_on.emplace_back(word);
  }
  const options given = trainer_options(s.passed_on);
  s.from_file = !given.model.empty();
  s.own_pairs = given.data.empty();

  const auto or_else = [](const std::string& text, const char* standard) {
    return text.empty() ? std::string(standard) : text;
  };
  for (const std::string& name :
       split_list(or_else(typed.losses, s.from_file ? "kto,dpo" : "kto,dpo,ipo"), "loss")) {
    swept_loss loss = loss_called(name, typed.parameter);
    const bool again = std::ranges::count(s.losses, loss.name, &swept_loss::name) > 0;
    if (!again) s.losses.push_back(std::move(loss));
  }
  s.values = parse_values(
      or_else(typed.values, s.from_file ? "0.05,0.1,0.2" : "0.01:0.2:0.01,0.3,0.4,0.5"));
  require_free(s.passed_on, s);
  require_accepted(s);

  const int cores = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  s.seeds = typed.seeds > 0 ? typed.seeds : s.from_file ? 3 : 5;
  // Every process holds a model of its own, and one of a file may fill the memory.
  s.jobs = typed.jobs > 0 ? typed.jobs : s.from_file ? 1 : cores;
  s.threads = std::max(1, cores / s.jobs);
  return s;
}

std::string sweep_help() {
  CLI::App app("Aligns by several losses and values of a parameter, and draws gain against drift.",
               "examples/sweep");
  wishes typed;
  sweep_settings s;
  fill(app, typed, s);
  app.get_formatter()->column_width(30);
  return app.help() + R"(
What follows -- is handed to the trainer as it is (examples/run --help lists it):
  examples/sweep --losses kto,dpo --betas 0.05:0.2:0.05 --seeds 3 -- --data FILE --epochs 2
The same command again continues: finished runs are kept, an interrupted one goes on where it was.
More losses, values and seeds can be asked for later.
)";
}

}  // namespace align
