// See experiment.hpp.
#include "experiment.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numeric>
#include <ostream>
#include <sstream>
#include <string>

#include "evaluation/evaluate.hpp"
#include "job.hpp"
#include "memory.hpp"
#include "report/format.hpp"
#include "stage.hpp"
#include "step_zero.hpp"
#include "text/chat_codec.hpp"
#include "training/checkpoint.hpp"
#include "training/reference.hpp"

namespace align {
namespace fs = std::filesystem;
namespace {

std::string rounded(double x) {
  std::ostringstream out;
  out.precision(4);
  out << x;
  return out.str();
}

void note(run_report& report, const std::string& sentence) {
  if (std::ranges::find(report.notes, sentence) == report.notes.end()) {
    report.notes.push_back(sentence);
  }
}

std::string share(const seed_outcome& of, double value) {
  const double error = std::sqrt(value * (1 - value) / static_cast<double>(of.pairs));
  return fixed(100 * value, 1) + " % (+- " + fixed(100 * error, 1) + ")";
}

void note_findings(const job& from, const evaluation& found, run_report& report) {
  for (const std::string& sentence : from.data.notes) note(report, sentence);
  if (!from.advice.empty()) note(report, from.advice);
  if (from.goal.balanced) {
    note(report, "Every batch holds as many desirable as undesirable rows, as " + from.choice.loss +
                     " needs; an epoch ends with the smaller class.");
  }
  if (from.held_out.paired) {
    const seed_outcome& r = found.outcome;
    note(report, "Seed " + std::to_string(found.outcome.seed) + ": of " + std::to_string(r.pairs) +
                     " held-out pairs " + share(r, r.pairs_right) +
                     " are ranked as the human did, and " +
                     share(r, r.pairs_right_at_equal_length) +
                     " once what is proportional to length is taken out; that the shorter answer "
                     "wins is right for " +
                     share(r, r.pairs_shorter_right) + ".");
  }
  note(report, "The judge is naive Bayes fitted on the " +
                   std::to_string(from.held_out.rows.size()) +
                   " held-out rows; of the train rows, which it never saw, it guesses " +
                   rounded(found.judge_accuracy) + " of the thumbs.");
}

void list_settings(const options& given, const job& from, const language_model& model,
                   const schedule& sft, const schedule& plan, run_report& report) {
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
  add("schedule", given.schedule);
  add("warm-up", rounded(plan.warm_up));
  add("weight decay", rounded(plan.weight_decay));
  add("clip", rounded(given.clip));
  if (model.lora().rank > 0) {
    add("LoRA", "rank " + std::to_string(model.lora().rank) + ", alpha " +
                    rounded(model.lora().alpha) + (model.lora().head ? ", and of the head" : ""));
  }
  if (given.flip > 0) add("turned round", rounded(given.flip));
  if (given.model.empty()) {
    add("next-token steps", std::to_string(sft.steps));
    add("next-token learning rate", rounded(sft.learning_rate));
  } else {
    add("model", given.model);
  }
  add("products in", given.type);
  add("parameters of the model", std::to_string(parameter_count(model.shape())));
  add("trained parameters", std::to_string(model.trained().size()));
  add("train rows", std::to_string(from.train.rows.size()));
  add("held-out rows", std::to_string(from.held_out.rows.size()));
}

double mean_difference(std::span<const double> a, std::span<const double> b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] - b[i];
  return sum / static_cast<double>(a.size());
}

void fill(language_model& model, const given_model& from, phase_progress& shown) {
  const std::size_t all = weights_of(model.shape()).size();
  std::size_t done = 0;
  model.load([&](const weight_place& place, std::span<float> values) {
    from.file.read(place, values);
    if (!shown("loading", ++done, all, 0)) interrupt("loading");
  });
  shown.finish();
}

// The model that alignment starts from: what the file holds, or what next-token training made of
// nothing.
language_model start_of(const session& in, const given_model* file, const job& from,
                        std::uint64_t seed, bool first_seed) {
  if (file != nullptr) {
    language_model model(from.shape, storage_of(in.given), lora_of(in.given));
    phase_progress shown(in, "seed " + std::to_string(seed));
    fill(model, *file, shown);
    if (model.lora().rank > 0) initialise_adapters(model, seed);
    return model;
  }
  language_model tiny(from.shape, storage_type::f32);
  initialise(tiny, seed);
  const schedule plan = next_token_plan(in.given, from, seed);
  const objective goal = next_token_objective();
  const std::string settings = settings_of(tiny) + settings_of(from.corpus, plan);
  const fs::path first_file = in.given.out / checkpoint_name("sft", settings);
  if (in.given.resume && first_seed && !fs::exists(first_file)) {
    throw std::runtime_error(
        "there is nothing to resume: a run with these data and settings would have left " +
        first_file.string());
  }
  run_stage(in,
            {"sft", "seed " + std::to_string(seed) + " next-token", from.corpus, goal, plan,
             nullptr, settings},
            tiny, true);
  if (in.given.lora == 0 && storage_of(in.given) == storage_type::f32) return tiny;
  language_model model(from.shape, storage_of(in.given), lora_of(in.given));
  model.load(
      [&](const weight_place& place, std::span<float> values) { tiny.read(place, 0, values); });
  if (model.lora().rank > 0) initialise_adapters(model, seed);
  return model;
}

reference_scores referenced(const session& in, const job& from, const schedule& plan,
                            const language_model& model, const std::string& name) {
  reference_scores scores(model, from.train.rows, measured_by(from.train, plan, from.goal));
  const bool cached = in.given.reference_cache != "off" && !in.given.model.empty();
  const fs::path folder =
      in.given.reference_cache.empty() ? in.given.out : fs::path{in.given.reference_cache};
  const fs::path path = folder / scores.file_name();
  if (cached && fs::exists(path)) {
    scores.load(path, in.on);
    in.log << name << ": reference log-probabilities from " << path.string() << '\n';
    return scores;
  }
  phase_progress shown(in, name);
  const std::size_t all = scores.size();
  const bool finished = scores.compute(in.on, [&](std::size_t done, std::size_t tokens) {
    return shown("reference", done, all, tokens);
  });
  shown.finish();
  if (!finished) interrupt("the reference log-probabilities");
  if (cached) {
    fs::create_directories(folder);
    scores.save(path);
  }
  return scores;
}

element_type saved_type(const options& given) {
  const std::string& name = given.save_type.empty() ? given.type : given.save_type;
  for (const element_type type :
       {element_type::f32, element_type::f16, element_type::bf16, element_type::q8_0}) {
    if (layout_of(type).name == name) return type;
  }
  throw std::invalid_argument("--save-type: there is no type '" + name + "'");
}

// Options that would do nothing, or harm.
void require_meaningful(const options& given) {
  const auto require = [](bool holds, const char* sentence) {
    if (!holds) throw std::invalid_argument(sentence);
  };
  const bool tiny = given.model.empty();
  require(!tiny || given.chat_template.empty(), "--chat-template is for a model given by --model");
  require(!tiny || given.reference_cache.empty(),
          "--reference-cache is for a model given by --model");
  require(tiny || (given.sft_epochs == options{}.sft_epochs &&
                   given.sft_learning_rate == options{}.sft_learning_rate),
          "--sft-epochs and --sft-lr are for the tiny model, which is trained from nothing first");
  require(!given.data.empty() || (given.max_prompt == 0 && given.max_completion == 0),
          "--max-prompt and --max-completion cut the texts of --data");
  require(given.lora > 0 || given.lora_alpha == 0, "--lora-alpha needs --lora");
  require(given.lora > 0 || !given.lora_head, "--lora-head needs --lora");
  require(!given.save.empty() || given.save_type.empty(), "--save-type needs --save");
  std::error_code absent;
  require(given.save.empty() || tiny || !fs::equivalent(given.save, given.model, absent),
          "--save would replace the model that --model names");
  if (given.save.empty() || given.save.extension() == ".gguf") return;
  if (saved_type(given) == element_type::q8_0) {
    throw std::invalid_argument(
        "--save-type q8_0 is for a .gguf file; a folder holds f32, f16 or bf16");
  }
}

void run_seed(const session& in, const given_model* file, std::uint64_t seed, run_report& report) {
  const job from = prepare(in.given, file, seed);
  const std::string name = "seed " + std::to_string(seed);
  const schedule plan = alignment_plan(in.given, from, seed);
  const evaluation_plan tests = evaluation_of(in.given, from);
  language_model model = start_of(in, file, from, seed, report.seeds.empty());
  // A model of a file is read again where it is needed again.
  aligned_vector<float> start;
  if (file == nullptr) start.assign(model.trained().begin(), model.trained().end());
  if (file != nullptr) {
    in.log << name << ": "
           << memory_needed(model, from.train, from.held_out, plan, from.goal, tests.longest_sample)
                  .sentence()
           << '\n';
  }
  const std::string settings =
      settings_of(model) + settings_of(from.train, plan) + settings_of(from.choice);
  const reference_scores reference = referenced(in, from, plan, model, name);

  phase_progress before(in, name + " before:");
  const measured_model was =
      before.require(measure(model, from.data, from.held_out, tests, in.on, std::ref(before)));
  training_state aligned = run_stage(
      in,
      {"align", name + " " + from.choice.loss, from.train, from.goal, plan, &reference, settings},
      model, false);
  phase_progress after(in, name + " after:");
  const measured_model is =
      after.require(measure(model, from.data, from.held_out, tests, in.on, std::ref(after)));
  const std::vector<double> own =
      after.require(sample_log_probs(model, is, in.on, std::ref(after)));
  if (report.seeds.empty() && !in.given.save.empty()) {
    save_model(
        in.given.save, model.shape(),
        [&](const weight_place& place, std::size_t first, std::span<float> rows) {
          model.read(place, first, rows);
        },
        saved_type(in.given), file != nullptr ? with_tokeniser(file->file.origin) : model_origin{});
    in.log << name << ": the aligned model is in " << in.given.save.string() << '\n';
  }

  if (report.seeds.empty()) {
    report.data_name = from.data.name;
    list_settings(in.given, from, model, next_token_plan(in.given, from, seed), plan, report);
  }
  // Back to the reference, to ask what it makes of the aligned model's texts.
  const bool adapted = model.lora().rank > 0;
  if (!adapted && file == nullptr) {
    std::ranges::copy(start, model.trained().begin());
    model.renew();
  } else if (!adapted) {
    fill(model, *file, after);
  }
  const std::vector<double> others =
      after.require(sample_log_probs(model, is, in.on, std::ref(after), false));

  evaluation found = compare(was, is, from.data, from.held_out, tests);
  found.outcome.seed = seed;
  found.outcome.kl_aligned = mean_difference(own, others);
  found.outcome.steps = std::move(aligned.records);
  note_findings(from, found, report);
  if (report.seeds.empty()) report.samples = std::move(found.examples);
  report.seeds.push_back(std::move(found.outcome));
}

}  // namespace

std::vector<finding> check_experiment(const options& given, std::ostream& log) {
  require_meaningful(given);
  const std::optional<given_model> file = open_given_model(given);
  const job from = prepare(given, file ? &*file : nullptr, given.seed);
  const schedule plan = alignment_plan(given, from, given.seed);
  std::vector<finding> found = examine(from.data, from.train, from.goal, from.choice, plan);
  if (!file) return found;  // what a tiny model will be is not known before it is trained
  workers on(given.threads);
  const session in{given, [] { return false; }, log, on};
  const language_model model = start_of(in, &*file, from, given.seed, true);
  const std::size_t longest_sample = evaluation_of(given, from).longest_sample;
  for (finding& one : look_at_step_zero(model, from, plan, longest_sample, on)) {
    found.push_back(std::move(one));
  }
  return found;
}

run_report run_experiment(const options& given, const std::string& command,
                          const std::function<bool()>& stop, std::ostream& log) {
  preference_objective(choose_loss(given, 1, 1));  // refuses what does not exist before any work
  require_meaningful(given);
  const std::optional<given_model> file = open_given_model(given);
  fs::create_directories(given.out);
  workers on(given.threads);
  const session in{given, stop, log, on};
  run_report report;
  report.command = command;
  for (int i = 0; i < given.seeds; ++i) {
    run_seed(in, file ? &*file : nullptr, given.seed + static_cast<std::uint64_t>(i), report);
  }
  report.title = given.loss + " on " + report.data_name;
  return report;
}

}  // namespace align
