// See options.hpp. CLI11 parses and lists; the ranges, and the sentences about what lies outside of
// them, are ours. Losses and their parameters come from the library's own tables.
#include "options.hpp"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "objective.hpp"

namespace align {
namespace {

constexpr int many = 1'000'000'000;

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

// Names may be written with '-' or '_'; a value behind ':' is left alone.
std::string underscored(std::string name) {
  std::replace(name.begin(), std::ranges::find(name, ':'), '-', '_');
  return name;
}

std::string dashed(std::string name) {
  std::ranges::replace(name, '_', '-');
  return name;
}

// ------------------------------------------------------------------------------------- values ---

// Exactly one finite number of the type and nothing else.
template <class T>
CLI::Validator range(T lowest, T highest) {
  return {[=](const std::string& text) {
            T value{};
            const char* const last = text.data() + text.size();
            const auto [end, error] = std::from_chars(text.data(), last, value);
            // The negation also refuses what is not a number.
            if (error == std::errc{} && end == last && value >= lowest && value <= highest) {
              return std::string();
            }
            std::ostringstream sentence;
            sentence << '\'' << text << "' is not a number from " << lowest << " to " << highest;
            return sentence.str();
          },
          ""};
}

CLI::Validator any_number() {
  constexpr double most = std::numeric_limits<double>::max();
  return range(-most, most);
}

CLI::Validator one_of(const std::vector<std::string>& names) {
  return {[names](const std::string& text) {
            if (std::ranges::find(names, text) != names.end()) return std::string();
            std::string sentence = '\'' + text + "' is none of";
            for (const std::string& name : names)
              sentence += (name == names.front() ? " " : ", ") + name;
            return sentence;
          },
          ""};
}

void set_parameter(options& o, const std::string& name, const std::string& value) {
  if (value != "auto") {
    const std::string wrong = any_number()(std::string(value));
    if (!wrong.empty()) fail("--" + dashed(name) + ": " + wrong);
  }
  o.parameters.emplace_back(underscored(name), value);
}

// ------------------------------------------------------------------------------------ options ---

// Adds the options to a parser that fills `o`, and is gone when that parses.
class table {
 public:
  table(CLI::App& app, options& o) : app_(app), o_(o) {}

  void data() {
    group_ = "Feedback";
    text("--data", "PATH", "folder with rt-polarity or HH, or a file of JSON lines; else synthetic",
         &options::data);
    number("--max-prompt", "N", "tokens of a prompt; a longer one keeps its end",
           &options::max_prompt, std::size_t{2}, std::size_t{many});
    number("--max-completion", "N", "tokens of an answer; a longer one keeps its beginning",
           &options::max_completion, std::size_t{1}, std::size_t{many});
    number("--drop-desirable", "SHARE", "drop this share of the desirable train rows",
           &options::drop_desirable, 0.0, 0.999);
    number("--flip", "SHARE", "turn this share of the train thumbs or choices round: noise",
           &options::flip, 0.0, 1.0);
    number("--held-out-rows", "N", "measure on at most N held-out rows or pairs",
           &options::held_out_rows, std::size_t{1}, std::size_t{many});
    toggle("--check", "look at feedback and loss, say what is wrong, and train nothing",
           &options::check);
  }

  void model() {
    group_ = "Model";
    text("--model", "FILE",
         "GGUF file or Hugging Face folder; else a tiny one, trained from scratch",
         &options::model);
    text("--chat-template", "NAME", "the model's own, unless given", &options::chat_template);
    choice("--type", "what it is computed in", {"f32", "bf16"}, &options::type);
    number("--lora", "RANK", "train adapters of this rank instead of every weight", &options::lora,
           1, 65536);
    number("--lora-alpha", "X", "scale of the adapters (twice the rank)", &options::lora_alpha,
           1e-6, 1e6);
    toggle("--lora-head", "an adapter of the head as well, which is then not tied",
           &options::lora_head);
    toggle("--recompute", "keep less of the forward pass: less memory, more time",
           &options::recompute);
  }

  // The parameters are listed with their losses: an empty name of their group hides them, but then
  // no complaint of CLI11 would name them.
  void loss(const std::string& parameter_group) {
    group_ = "Loss";
    value("--loss", "NAME", "one of the losses below (kto)",
          [&o = o_](const std::string& name) { o.loss = underscored(name); });
    value("--set", "NAME=VALUE", "set a parameter of the loss; --NAME VALUE does the same",
          [&o = o_](const std::string& given) {
            const std::size_t equals = given.find('=');
            if (equals == std::string::npos) fail("--set: '" + given + "' is not NAME=VALUE");
            set_parameter(o, given.substr(0, equals), given.substr(equals + 1));
          })
        ->trigger_on_parse();
    value("--reference-point", "NAME", "where KTO's z comes from, one of those below",
          [&o = o_](const std::string& name) { o.reference_point = underscored(name); });
    text("--reference-cache", "FOLDER",
         "keeps the reference's log-probabilities for other runs, or off (DIR)",
         &options::reference_cache);
    group_ = parameter_group;
    std::set<std::string> names;
    for (const loss_description& known : known_losses()) {
      for (const auto& [name, standard] : known.parameters) names.insert(name);
    }
    for (const std::string& name : names) {
      value("--" + dashed(name), "VALUE", "", [&o = o_, name = name](const std::string& text) {
        set_parameter(o, name, text);
      })->trigger_on_parse();
    }
  }

  void training() {
    group_ = "Training";
    number("--epochs", "N", "passes over the feedback", &options::epochs, 0.0, 1e6);
    number("--steps", "N", "optimiser steps instead of --epochs", &options::steps, 1, many);
    number("--batch", "N", "rows (or pairs) per step", &options::batch, 1, many);
    number("--micro-batch", "N", "rows (or pairs) computed at once (the batch)",
           &options::micro_batch, 1, many);
    number("--lr", "RATE", "learning rate of the alignment (what suits the model)",
           &options::learning_rate, 0.0, 1.0);
    choice("--schedule", "of the learning rate after its warm-up", {"cosine", "constant"},
           &options::schedule);
    number("--warm-up", "SHARE", "of the steps", &options::warm_up, 0.0, 1.0);
    number("--weight-decay", "X", "of AdamW, per step and learning rate (0)",
           &options::weight_decay, 0.0, 1.0);
    number("--clip", "NORM", "longest gradient; 0 clips none", &options::clip, 0.0, 1e9);
    number("--sft-epochs", "N", "passes of next-token training before the alignment",
           &options::sft_epochs, 0.0, 1e6);
    number("--sft-lr", "RATE", "its learning rate", &options::sft_learning_rate, 0.0, 1.0);
    number<std::uint64_t>("--seed", "N", "decides everything that is random", &options::seed, 0,
                          std::numeric_limits<std::uint64_t>::max());
    number("--seeds", "N", "run N seeds and report standard errors", &options::seeds, 1, 1000);
    number("--threads", "N", "changes the speed, never the result (all cores)", &options::threads,
           1, 1024);
  }

  void results() {
    group_ = "Results";
    text("--out", "DIR", "checkpoints and report go here", &options::out);
    text("--json", "FILE", "write the table as JSON", &options::json);
    text("--html", "FILE", "write the report here instead of DIR/report.html", &options::html);
    text("--save", "FILE", "write the aligned model", &options::save);
    choice("--save-type", "its weights (as computed)", {"f32", "f16", "bf16", "q8_0"},
           &options::save_type);
    number("--samples", "N", "held-out prompts that both models answer", &options::samples,
           std::size_t{1}, std::size_t{many});
    number("--sample-tokens", "N", "longest answer to them", &options::sample_tokens,
           std::size_t{1}, std::size_t{many});
    number("--checkpoint-every", "N", "steps between checkpoints", &options::checkpoint_every, 1,
           many);
    toggle("--resume", "continue an interrupted run, bit for bit", &options::resume);
    toggle("--help", "print this", &options::help);
  }

 private:
  // The last of several wins, so that a script may set what its caller then changes.
  CLI::Option* dressed(CLI::Option* option, const std::string& type, bool valued = true) {
    if (valued) {
      option->type_name(type)->take_last();
    }
    return option->group(group_);
  }

  CLI::Option* value(const std::string& name, const std::string& type, const std::string& help,
                     const std::function<void(const std::string&)>& set) {
    const auto checked = [name, set](const std::string& given) {
      if (given.empty()) fail(name + " needs a value");
      set(given);
    };
    return dressed(app_.add_option_function<std::string>(name, checked, help), type);
  }

  template <class T>
  void text(const std::string& name, const std::string& type, const std::string& help,
            T options::*member) {
    value(name, type, help, [&o = o_, member](const std::string& given) { o.*member = given; });
  }

  // A default of 0 stands for what the help says itself.
  template <class T>
  void number(const std::string& name, const std::string& type, const std::string& help,
              T options::*member, T lowest, T highest) {
    std::ostringstream with_default;
    with_default << help;
    if (o_.*member != 0) with_default << " (" << o_.*member << ")";
    dressed(app_.add_option(name, o_.*member, with_default.str()), type)
        ->check(range(lowest, highest));
  }

  void choice(const std::string& name, const std::string& help,
              const std::vector<std::string>& names, std::string options::*member) {
    std::string type;
    for (const std::string& one : names) type += (type.empty() ? "" : "|") + one;
    const std::string standard = (o_.*member).empty() ? "" : " (" + o_.*member + ")";
    dressed(app_.add_option(name, o_.*member, help + standard), type)->check(one_of(names));
  }

  void toggle(const std::string& name, const std::string& help, bool options::*member) {
    dressed(app_.add_flag(name, o_.*member, help), "", false)->disable_flag_override();
  }

  CLI::App& app_;
  options& o_;
  std::string group_;
};

void fill(CLI::App& app, options& o, const std::string& parameter_group) {
  app.set_help_flag();
  app.allow_extras();  // to say in our own words what is not known
  table all(app, o);
  all.data();
  all.model();
  all.loss(parameter_group);
  all.training();
  all.results();
}

// ------------------------------------------------------------------------------------- errors ---

// How many letters must change to make one name of the other (Levenshtein).
std::size_t distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t corner = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t changed = corner + (a[i] == b[j] ? 0 : 1);
      corner = std::exchange(row[j + 1], std::min({row[j] + 1, row[j + 1] + 1, changed}));
    }
  }
  return row.back();
}

[[noreturn]] void refuse_unknown(const CLI::App& app, std::string name) {
  name.resize(std::min(name.find('='), name.size()));
  std::string nearest;
  std::size_t closest = 3;  // farther off, it is a guess
  for (const CLI::Option* option : app.get_options()) {
    const std::size_t off = distance(name, option->get_name());
    if (off >= closest) continue;
    closest = off;
    nearest = option->get_name();
  }
  fail("there is no option '" + name + "'; " +
       (nearest.empty() ? "" : "did you mean " + nearest + "? ") + "--help lists them");
}

}  // namespace

options parse_options(std::span<const char* const> arguments) {
  std::vector<std::string> backwards;
  for (std::size_t i = arguments.size(); i-- > 0;) {
    std::string word = arguments[i];
    if (word.starts_with("--")) {
      std::replace(word.begin(), std::ranges::find(word, '='), '_', '-');
    }
    backwards.push_back(std::move(word));
  }
  options result;
  CLI::App app;
  fill(app, result, "Parameters");
  try {
    app.parse(backwards);
  } catch (const CLI::ArgumentMismatch& e) {
    // "--lr: 1 required RATE missing" or "resume was given a disallowed flag override".
    const std::string what = e.what();
    std::string name = what.substr(0, what.find_first_of(": "));
    name.erase(0, name.find_first_not_of('-'));
    const bool is_flag = what.find("flag override") != std::string::npos;
    fail("--" + name + (is_flag ? " takes no value" : " needs a value"));
  } catch (const CLI::ParseError& e) {
    fail(e.what());  // "--lr: 'fast' is not a number from 0 to 1"
  }
  const std::vector<std::string> unknown = app.remaining();
  if (!unknown.empty()) refuse_unknown(app, unknown.front());
  return result;
}

std::string help_text() {
  options standard;
  CLI::App app("Aligns a language model with human feedback, and says what came of it.",
               "examples/run");
  fill(app, standard, "");
  app.get_formatter()->column_width(30);
  std::string listed = app.help();
  for (std::size_t at; (at = listed.find("\n\n\n")) != std::string::npos;) listed.erase(at, 1);
  std::ostringstream out;
  out << listed;
  out << R"(
Feedback of your own is a file with one JSON object per line:
  {"prompt": "...", "completion": "...", "label": true}    one answer, one thumb
  {"messages": [...], "label": false}                      its last message is the answer
  {"prompt": "...", "chosen": "...", "rejected": "..."}    two answers, one choice
  {"chosen": [...], "rejected": [...]}                     two conversations with another end
A prompt is a text or a list of messages {"role": "user", "content": "..."}; an answer is a text
or a list that ends with the assistant's message; a label is true, false, 1 or 0.
)";
  out << "\nLosses and their parameters (--NAME VALUE; a class weight may be 'auto'):\n";
  for (const loss_description& loss : known_losses()) {
    std::string left = "  " + loss.name;
    left.resize(std::max<std::size_t>(left.size() + 1, 16), ' ');
    out << left << (loss.paired ? "pairs   " : "thumbs  ");
    for (const auto& [name, value] : loss.parameters) out << "  " << name << ' ' << value;
    out << '\n';
  }
  out << "\nReference points:";
  for (const std::string& name : known_reference_points()) out << ' ' << name;
  out << '\n';
  return out.str();
}

}  // namespace align
