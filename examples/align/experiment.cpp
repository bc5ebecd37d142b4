// See experiment.hpp.
#include "experiment.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <ostream>
#include <sstream>
#include <string>
#include <thread>

#include "checkpoint.hpp"
#include "data.hpp"
#include "evaluate.hpp"
#include "progress.hpp"
#include "sha256.hpp"
#include "train.hpp"

namespace align {
namespace fs = std::filesystem;
namespace {

// What the tiny model reads and writes at most, markup included.
constexpr std::size_t longest_prompt = 40, longest_completion = 56;

std::string written(double x) {
  std::ostringstream out;
  out.precision(17);
  out << x;
  return out.str();
}

std::string rounded(double x) {
  std::ostringstream out;
  out.precision(4);
  out << x;
  return out.str();
}

std::string fingerprint(const feedback& data) {
  std::string bytes;
  const auto add = [&bytes](std::span<const token> words) {
    for (const token word : words) bytes.append(reinterpret_cast<const char*>(&word), sizeof word);
    bytes += '\n';
  };
  for (const row& r : data.rows) {
    add(r.prompt);
    add(r.completion);
    bytes += r.desirable ? '+' : '-';
  }
  return sha256(bytes);
}

std::size_t longest(std::span<const row> rows, std::vector<token> row::*part) {
  std::size_t length = 0;
  for (const row& r : rows) length = std::max(length, (r.*part).size());
  return length;
}

// Any prompt may meet any completion, because the mismatched rows combine them.
model_shape shape_for(const dataset& data, const feedback& train, const feedback& held_out) {
  std::size_t prompt = 0, completion = 0;
  for (const std::span<const row> rows :
       {std::span{data.corpus}, std::span{train.rows}, std::span{held_out.rows}}) {
    prompt = std::max(prompt, longest(rows, &row::prompt));
    completion = std::max(completion, longest(rows, &row::completion));
  }
  const int vocabulary = data.text.vocabulary;
  // About half a million parameters either way: a small vocabulary leaves room for a wider model.
  return {.vocabulary = vocabulary,
          .context = static_cast<int>(sequence_length(prompt, completion)),
          .width = vocabulary < 1000 ? 128 : 64};
}

// With Adam every weight moves by about the rate, so a wider model changes more at the same rate.
double alignment_rate(const model_shape& shape) { return 4e-4 * 64 / shape.width; }

feedback as_loaded(const split& part) {
  if (part.rows.empty()) return {split_duels(part.duels), true};
  return {part.rows, false};
}

feedback for_loss(const split& part, bool paired, std::uint64_t seed) {
  if (paired) {
    return {split_duels(part.rows.empty() ? part.duels : pair_rows(part.rows, seed)), true};
  }
  return {part.rows.empty() ? split_duels(part.duels) : part.rows, false};
}

int steps_in(double epochs, const feedback& data, const options& given, bool balanced) {
  const auto per_epoch = batches_of_epoch(data, given.batch, balanced, given.seed, 0).size();
  const double steps = epochs * static_cast<double>(per_epoch);
  if (!(steps < 1e9)) throw std::invalid_argument("that many epochs are more than 1e9 steps");
  return static_cast<int>(std::lround(steps));
}

// One stage of training, with its checkpoints.
struct stage {
  std::string name;
  std::string label;  // for people
  const model_shape& shape;
  const feedback& data;
  const objective& goal;
  schedule plan;
  reference_model reference;
  std::string settings;  // everything that decides the result
};

training_state run_stage(const stage& s, aligned_vector<float> start, const options& given,
                         bool reuse_finished, const std::function<bool()>& stop,
                         std::ostream& log) {
  const fs::path path = given.out / checkpoint_name(s.name, s.settings);
  training_state state{std::move(start)};
  if (fs::exists(path)) {
    training_state saved = load_checkpoint(path, s.settings, state.parameters.size());
    const bool finished = saved.step == s.plan.steps;
    if (given.resume || (finished && reuse_finished)) {
      state = std::move(saved);
      log << s.label << ": step " << state.step << " of " << s.plan.steps << " from "
          << path.string() << '\n';
    } else {
      fs::path kept = path;
      kept += ".previous";
      fs::rename(path, kept);
      log << s.label << ": starting again; the state of step " << saved.step << " is kept in "
          << kept.string() << " (--resume would have continued)\n";
    }
  } else if (given.resume) {
    log << s.label << ": nothing is saved with these settings, so it starts at step 0\n";
  }
  trainer train(s.shape, s.data, s.goal, s.plan, s.reference, given.threads);
  progress shown(s.label, s.plan.steps, log);
  const bool was_finished = state.step == s.plan.steps;
  const bool finished = train.run(state, stop, [&](const training_state& now) {
    shown.update(now.records.back());
    if (now.step % given.checkpoint_every == 0) save_checkpoint(path, s.settings, now);
  });
  shown.finish();
  if (!was_finished) save_checkpoint(path, s.settings, state);
  if (!finished) {
    throw interrupted("stopped at step " + std::to_string(state.step) + " of " +
                      std::to_string(s.plan.steps) + " of " + s.label + "; saved in " +
                      path.string());
  }
  return state;
}

// What a seed's run starts from.
struct job {
  dataset data;
  feedback corpus, train, held_out;
  loss_choice choice;
  std::string advice;  // how automatic weights were found
  objective goal;
  model_shape shape;
};

job prepare(const options& given, std::uint64_t seed) {
  const bool paired = preference_objective(choose_loss(given, 1, 1)).paired;
  job made;
  made.data =
      load({.path = given.data,
            .seed = seed,
            .drop_desirable = given.drop_desirable,
            .want_pairs = paired,
            .max_prompt = given.max_prompt > 0 ? given.max_prompt : longest_prompt,
            .max_completion = given.max_completion > 0 ? given.max_completion : longest_completion,
            .held_out_rows = given.held_out_rows});
  made.corpus = {made.data.corpus, false};
  made.train = for_loss(made.data.train, paired, seed);
  made.held_out = as_loaded(made.data.held_out);
  const auto n_desirable =
      static_cast<std::size_t>(std::ranges::count_if(made.train.rows, &row::desirable));
  made.choice = choose_loss(given, n_desirable, made.train.rows.size() - n_desirable, &made.advice);
  made.goal = preference_objective(made.choice);
  made.shape = shape_for(made.data, made.train, made.held_out);
  return made;
}

// A line per fact that decides what a stage computes; another line is another checkpoint.
std::string settings_of(const feedback& data, const schedule& plan) {
  return "data " + fingerprint(data) + "\nseed " + std::to_string(plan.seed) + "\nsteps " +
         std::to_string(plan.steps) + "\nbatch " + std::to_string(plan.batch) + "\nlr " +
         written(plan.learning_rate) + "\n";
}

std::string settings_of(const model_shape& shape) {
  std::string line = "shape";
  for (const int size : {shape.vocabulary, shape.context, shape.width, shape.layers, shape.heads}) {
    line += " " + std::to_string(size);
  }
  return line + "\n";
}

std::string settings_of(const loss_choice& choice) {
  std::string line = "loss " + choice.loss + " " + choice.reference_point;
  for (const auto& [name, value] : choice.parameters) line += " " + name + "=" + written(value);
  return line + "\n";
}

void note(run_report& report, const std::string& sentence) {
  if (std::ranges::find(report.notes, sentence) == report.notes.end()) {
    report.notes.push_back(sentence);
  }
}

void note_findings(const job& from, const evaluation& found, run_report& report) {
  for (const std::string& sentence : from.data.notes) note(report, sentence);
  if (!from.advice.empty()) note(report, from.advice);
  if (from.goal.balanced) {
    note(report, "Every batch holds as many desirable as undesirable rows, as " + from.choice.loss +
                     " needs; an epoch ends with the smaller class.");
  }
  if (from.held_out.paired) {
    note(report, "Seed " + std::to_string(found.outcome.seed) + ": " +
                     rounded(found.pair_accuracy) + " of " + std::to_string(from.held_out.units()) +
                     " held-out pairs are ranked as the human did.");
  }
  note(report, "The judge is naive Bayes fitted on the " +
                   std::to_string(from.held_out.rows.size()) +
                   " held-out rows; of the train rows, which it never saw, it guesses " +
                   rounded(found.judge_accuracy) + " of the thumbs.");
}

void list_settings(const job& from, const schedule& sft, const schedule& plan, run_report& report) {
  const auto add = [&](const std::string& name, const std::string& value) {
    report.settings.emplace_back(name, value);
  };
  add("loss", from.choice.loss);
  for (const loss_description& loss : known_losses()) {
    if (loss.name != from.choice.loss) continue;
    for (const auto& [name, standard] : loss.parameters) {
      double value = standard;
      for (const auto& [given_name, given_value] : from.choice.parameters) {
        if (given_name == name) value = given_value;
      }
      add(name, rounded(value));
    }
  }
  add("reference point", from.goal.reference_point);
  add("steps", std::to_string(plan.steps));
  add("batch", std::to_string(plan.batch));
  add("learning rate", rounded(plan.learning_rate));
  add("next-token steps", std::to_string(sft.steps));
  add("next-token learning rate", rounded(sft.learning_rate));
  add("parameters of the model", std::to_string(parameter_count(from.shape)));
  add("train rows", std::to_string(from.train.rows.size()));
  add("held-out rows", std::to_string(from.held_out.rows.size()));
}

void run_seed(const options& given, std::uint64_t seed, const std::function<bool()>& stop,
              std::ostream& log, run_report& report) {
  const job from = prepare(given, seed);
  const model_shape& shape = from.shape;
  const std::string name = "seed " + std::to_string(seed);

  const objective next_token = next_token_objective();
  const schedule sft_plan{.steps = steps_in(given.sft_epochs, from.corpus, given, false),
                          .batch = given.batch,
                          .learning_rate = given.sft_learning_rate,
                          .seed = seed};
  const std::string sft_settings = settings_of(shape) + settings_of(from.corpus, sft_plan);
  const fs::path first_file = given.out / checkpoint_name("sft", sft_settings);
  if (given.resume && report.seeds.empty() && !fs::exists(first_file)) {
    throw std::runtime_error(
        "there is nothing to resume: a run with these data and settings would have left " +
        first_file.string());
  }
  const training_state sft = run_stage(
      {"sft", name + " next-token", shape, from.corpus, next_token, sft_plan, {}, sft_settings},
      initial_parameters(shape, seed), given, true, stop, log);
  const language_model reference{shape, sft.parameters};

  const std::vector<double> reference_log_probs =
      log_probs(reference, from.train.rows, given.threads);
  const int epoch_steps = steps_in(given.epochs, from.train, given, from.goal.balanced);
  const schedule plan{
      .steps = given.steps > 0 ? given.steps : epoch_steps,
      .batch = given.batch,
      .learning_rate = given.learning_rate > 0 ? given.learning_rate : alignment_rate(shape),
      .seed = seed};
  training_state aligned =
      run_stage({"align",
                 name + " " + from.choice.loss,
                 shape,
                 from.train,
                 from.goal,
                 plan,
                 {sft.parameters, reference_log_probs},
                 sft_settings + settings_of(from.train, plan) + settings_of(from.choice)},
                sft.parameters, given, false, stop, log);

  evaluation found =
      evaluate(reference, {shape, aligned.parameters}, from.data, from.held_out, given.threads);
  found.outcome.seed = seed;
  found.outcome.steps = std::move(aligned.records);
  note_findings(from, found, report);
  if (report.seeds.empty()) {
    report.data_name = from.data.name;
    report.samples = std::move(found.examples);
    list_settings(from, sft_plan, plan, report);
  }
  report.seeds.push_back(std::move(found.outcome));
}

}  // namespace

loss_choice choose_loss(const options& given, std::size_t n_desirable, std::size_t n_undesirable,
                        std::string* advice) {
  loss_choice choice{
      .loss = given.loss, .parameters = {}, .reference_point = given.reference_point};
  constexpr std::string_view automatic = "auto", up = "desirable_weight",
                             down = "undesirable_weight";
  const auto value_of = [&](std::string_view wanted) {
    std::string value = "1";
    for (const auto& [name, text] : given.parameters) {
      if (name == wanted) value = text;
    }
    return value;
  };
  for (const auto& [name, text] : given.parameters) {
    if (text != automatic) {
      choice.parameters.emplace_back(name, std::strtod(text.c_str(), nullptr));
      continue;
    }
    if (name != up && name != down) {
      throw std::invalid_argument("only " + std::string{up} + " and " + std::string{down} +
                                  " can be auto, not " + name);
    }
    const weight_advice found = advise_weights(n_desirable, n_undesirable);
    // Where one weight is given, the advice is about their quotient.
    const std::string other = value_of(name == up ? down : up);
    const double own = name == up ? found.desirable : found.undesirable;
    const double partner = name == up ? found.undesirable : found.desirable;
    choice.parameters.emplace_back(
        name, other == automatic ? own : std::strtod(other.c_str(), nullptr) * own / partner);
    if (advice != nullptr) *advice = found.explanation;
  }
  return choice;
}

std::vector<finding> check_experiment(const options& given) {
  const job from = prepare(given, given.seed);
  return examine(from.data, from.train, from.goal, from.choice,
                 {.batch = given.batch, .seed = given.seed});
}

run_report run_experiment(const options& given, const std::string& command,
                          const std::function<bool()>& stop, std::ostream& log) {
  preference_objective(choose_loss(given, 1, 1));  // refuses what does not exist before any work
  options settled = given;
  if (settled.threads == 0) {
    settled.threads = static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }
  fs::create_directories(settled.out);
  run_report report;
  report.command = command;
  for (int i = 0; i < settled.seeds; ++i) {
    run_seed(settled, settled.seed + static_cast<std::uint64_t>(i), stop, log, report);
  }
  report.title = settled.loss + " on " + report.data_name;
  return report;
}

}  // namespace align
