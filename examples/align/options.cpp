// See options.hpp. One table holds every option with its help; losses and their parameters come
// from the library's own tables.
#include "options.hpp"

#include <algorithm>
#include <charconv>
#include <functional>
#include <limits>
#include <sstream>
#include <stdexcept>
#include <string_view>

#include "objective.hpp"

namespace align {
namespace {

struct option {
  std::string_view name;
  std::string_view value;  // what stands for the value in the help; "" for a switch
  std::string help;
  std::function<void(options&, const std::string& value)> set;
};

[[noreturn]] void fail(const std::string& sentence) { throw std::invalid_argument(sentence); }

// Names may be written with '-' or '_'; a value behind ':' is left alone.
std::string normalised(std::string name) {
  std::replace(name.begin(), std::ranges::find(name, ':'), '-', '_');
  return name;
}

template <class T>
T number(std::string_view name, const std::string& text, T lowest, T highest) {
  T value{};
  const char* const last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, value);
  if (error != std::errc{} || end != last || !(value >= lowest && value <= highest)) {
    std::ostringstream sentence;
    sentence << name << ": '" << text << "' is not a number from " << lowest << " to " << highest;
    fail(sentence.str());
  }
  return value;
}

// An option that sets a number, with its permitted range. A default of 0 stands for what the help
// says itself.
template <class T>
option numeric(std::string_view name, std::string_view value, std::string_view help,
               T options::*member, T lowest, T highest) {
  std::ostringstream with_default;
  with_default << help;
  if (options{}.*member != 0) with_default << " (" << options{}.*member << ")";
  return {name, value, with_default.str(), [=](options& o, const std::string& text) {
            o.*member = number<T>(name, text, lowest, highest);
          }};
}

template <class T>
option text(std::string_view name, std::string_view value, std::string_view help,
            T options::*member) {
  return {name, value, std::string{help},
          [=](options& o, const std::string& given) { o.*member = given; }};
}

option toggle(std::string_view name, std::string_view help, bool options::*member) {
  return {name, "", std::string{help}, [=](options& o, const std::string&) { o.*member = true; }};
}

void set_parameter(options& o, const std::string& name, const std::string& value) {
  if (value != "auto") {
    constexpr double any = std::numeric_limits<double>::max();
    number<double>("--" + name, value, -any, any);
  }
  o.parameters.emplace_back(normalised(name), value);
}

std::vector<option> all_options() {
  constexpr int many = 1'000'000'000;
  return {
      text("--data", "PATH", "folder with rt-polarity or HH, or a .jsonl file; else synthetic",
           &options::data),
      numeric("--drop-desirable", "SHARE", "drop this share of the desirable train rows",
              &options::drop_desirable, 0.0, 0.999),
      {"--loss", "NAME", "one of the losses below",
       [](options& o, const std::string& name) { o.loss = normalised(name); }},
      {"--set", "NAME=VALUE", "set a parameter of the loss; --NAME VALUE does the same",
       [](options& o, const std::string& given) {
         const std::size_t equals = given.find('=');
         if (equals == std::string::npos) fail("--set: '" + given + "' is not NAME=VALUE");
         set_parameter(o, given.substr(0, equals), given.substr(equals + 1));
       }},
      {"--reference-point", "NAME", "where KTO's z comes from, one of those below",
       [](options& o, const std::string& name) { o.reference_point = normalised(name); }},
      numeric("--epochs", "N", "passes over the feedback", &options::epochs, 0.0, 1e6),
      numeric("--steps", "N", "optimiser steps instead of --epochs", &options::steps, 1, many),
      numeric("--lr", "RATE",
              "learning rate of the alignment (4e-4, or 2e-4 for a small vocabulary)",
              &options::learning_rate, 0.0, 1.0),
      numeric("--sft-epochs", "N", "passes of next-token training before it", &options::sft_epochs,
              0.0, 1e6),
      numeric("--sft-lr", "RATE", "its learning rate", &options::sft_learning_rate, 0.0, 1.0),
      numeric("--batch", "N", "rows (or pairs) per step", &options::batch, 1, many),
      numeric<std::uint64_t>("--seed", "N", "decides everything that is random", &options::seed, 0,
                             std::numeric_limits<std::uint64_t>::max()),
      numeric("--seeds", "N", "run N seeds and report standard errors", &options::seeds, 1, 1000),
      numeric("--threads", "N", "changes the speed, never the result (all cores)",
              &options::threads, 1, 1024),
      text("--out", "DIR", "checkpoints and report go here", &options::out),
      text("--json", "FILE", "write the table as JSON", &options::json),
      text("--html", "FILE", "write the report here instead of DIR/report.html", &options::html),
      numeric("--checkpoint-every", "N", "steps between checkpoints", &options::checkpoint_every, 1,
              many),
      toggle("--resume", "continue an interrupted run, bit for bit", &options::resume),
      toggle("--help", "print this", &options::help),
  };
}

bool is_loss_parameter(const std::string& name) {
  return std::ranges::any_of(known_losses(), [&](const loss_description& loss) {
    return std::ranges::any_of(loss.parameters, [&](const auto& p) { return p.first == name; });
  });
}

}  // namespace

options parse_options(std::span<const char* const> arguments) {
  options result;
  const std::vector<option> table = all_options();
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    // Both "--name value" and "--name=value".
    std::string name = arguments[i], value;
    const std::size_t equals = name.find('=');
    const bool attached = equals != std::string::npos;
    if (attached) {
      value = name.substr(equals + 1);
      name.resize(equals);
    }
    const auto take_value = [&] {
      if (!attached && i + 1 < arguments.size()) value = arguments[++i];
      if (value.empty()) fail(name + " needs a value");
    };
    const auto found = std::ranges::find(table, name, &option::name);
    if (found != table.end()) {
      if (!found->value.empty())
        take_value();
      else if (attached)
        fail(name + " takes no value");
      found->set(result, value);
    } else if (name.starts_with("--") && is_loss_parameter(normalised(name.substr(2)))) {
      take_value();
      set_parameter(result, name.substr(2), value);
    } else {
      fail("there is no option '" + name + "'; --help lists them");
    }
  }
  return result;
}

std::string help_text() {
  std::ostringstream out;
  out << "Trains a small language model, then aligns it with human feedback.\n\nOptions:\n";
  for (const option& o : all_options()) {
    std::string left = "  " + std::string{o.name} + " " + std::string{o.value};
    left.resize(std::max<std::size_t>(left.size() + 1, 28), ' ');
    out << left << o.help << '\n';
  }
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
