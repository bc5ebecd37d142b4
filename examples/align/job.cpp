// See job.hpp.
#include "job.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <stdexcept>

#include "sha256.hpp"
#include "text/chat_codec.hpp"

namespace align {
namespace {

// What a model reads and writes at most, markup included.
struct limits {
  std::size_t prompt, completion;
};
constexpr limits usual_of_tiny{40, 56}, usual_of_given{256, 128};

std::string written(double x) {
  std::ostringstream out;
  out.precision(17);
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

// About half a million parameters either way: a small vocabulary leaves room for a wider model. Any
// prompt may meet any completion, because the mismatched rows combine them.
model_shape tiny_shape(const job& from) {
  std::size_t prompt = 0, completion = 0;
  for (const std::span<const row> rows :
       {std::span{from.data.corpus}, std::span{from.train.rows}, std::span{from.held_out.rows}}) {
    prompt = std::max(prompt, longest(rows, &row::prompt));
    completion = std::max(completion, longest(rows, &row::completion));
  }
  const int vocabulary = from.data.text.vocabulary, width = vocabulary < 1000 ? 128 : 64;
  return {.vocabulary = vocabulary,
          .context = static_cast<int>(sequence_length(prompt, completion)),
          .width = width,
          .layers = 2,
          .heads = 4,
          .key_value_heads = 2,
          .head_width = width / 4,
          .feed_forward = 3 * width,
          .tied_head = false};
}

// With Adam every weight moves by about the rate, so a wider model changes more at the same rate;
// adapters start from nothing and have further to go.
double alignment_rate(const options& given, const model_shape& shape) {
  if (given.model.empty()) return 4e-4 * 64 / shape.width;
  return given.lora > 0 ? 2e-4 : 1e-5;
}

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

// Both together fit into the context of a given model: by themselves, or the options are refused.
limits limits_of(const options& given, const given_model* model) {
  limits chosen = model ? usual_of_given : usual_of_tiny;
  const std::size_t room = model ? static_cast<std::size_t>(model->file.shape.context) + 1 : 0;
  if (model) chosen.completion = std::min(chosen.completion, room / 2);
  if (given.max_completion > 0) chosen.completion = given.max_completion;
  if (model && room > chosen.completion) {
    chosen.prompt = std::min(chosen.prompt, room - chosen.completion);
  }
  if (given.max_prompt > 0) chosen.prompt = given.max_prompt;
  if (model && chosen.prompt + chosen.completion > room) {
    throw std::invalid_argument("--max-prompt " + std::to_string(chosen.prompt) +
                                " and --max-completion " + std::to_string(chosen.completion) +
                                " together exceed the context of the model, " +
                                std::to_string(room - 1));
  }
  return chosen;
}

schedule plan_of(const options& given, std::uint64_t seed) {
  return {.batch = given.batch,
          .seed = seed,
          .warm_up = given.warm_up,
          .shape = given.schedule == "constant" ? decline::constant : decline::cosine,
          .weight_decay = given.weight_decay,
          .longest_gradient = given.clip > 0 ? given.clip : std::numeric_limits<double>::infinity(),
          .recompute = given.recompute};
}

}  // namespace

std::optional<given_model> open_given_model(const options& given) {
  if (given.model.empty()) return {};
  loaded_model file = open_model(given.model);
  codec text = chat_codec(file.origin, given.chat_template);
  if (text.vocabulary > file.shape.vocabulary) {
    throw std::runtime_error("the tokeniser of " + given.model + " has " +
                             std::to_string(text.vocabulary) + " tokens, but the model only " +
                             std::to_string(file.shape.vocabulary));
  }
  return given_model{std::move(file), std::move(text)};
}

job prepare(const options& given, const given_model* model, std::uint64_t seed) {
  const bool paired = preference_objective(choose_loss(given, 1, 1)).paired;
  const limits longest = limits_of(given, model);
  job made;
  feedback_request request{.path = given.data,
                           .seed = seed,
                           .drop_desirable = given.drop_desirable,
                           .flip = given.flip,
                           .want_pairs = paired,
                           .max_prompt = longest.prompt,
                           .max_completion = longest.completion,
                           .held_out_rows = given.held_out_rows};
  if (model) request.text = model->text;
  made.data = load(request);
  made.corpus = {made.data.corpus, false};
  made.train = for_loss(made.data.train, paired, seed);
  made.held_out = as_loaded(made.data.held_out);
  const auto n_desirable =
      static_cast<std::size_t>(std::ranges::count_if(made.train.rows, &row::desirable));
  made.choice = choose_loss(given, n_desirable, made.train.rows.size() - n_desirable, &made.advice);
  made.goal = preference_objective(made.choice);
  made.shape = model ? model->file.shape : tiny_shape(made);
  if (given.lora_head) made.shape.tied_head = false;  // the table of words stays as it is
  return made;
}

schedule alignment_plan(const options& given, const job& from, std::uint64_t seed) {
  schedule plan = plan_of(given, seed);
  plan.steps =
      given.steps > 0 ? given.steps : steps_in(given.epochs, from.train, given, from.goal.balanced);
  // Of pairs both sequences go together.
  plan.together = given.micro_batch * (from.goal.paired ? 2 : 1);
  plan.learning_rate =
      given.learning_rate >= 0 ? given.learning_rate : alignment_rate(given, from.shape);
  return plan;
}

schedule next_token_plan(const options& given, const job& from, std::uint64_t seed) {
  schedule plan = plan_of(given, seed);
  plan.steps = steps_in(given.sft_epochs, from.corpus, given, false);
  plan.learning_rate = given.sft_learning_rate;
  plan.together = given.micro_batch;
  return plan;
}

evaluation_plan evaluation_of(const options& given, const job& from) {
  const bool tiny = given.model.empty();
  std::size_t longest = given.sample_tokens;
  if (longest == 0) longest = tiny ? static_cast<std::size_t>(from.shape.context) : 96;
  return {.samples = given.samples > 0 ? given.samples
                     : tiny            ? std::size_t{600}
                                       : std::size_t{64},
          .longest_sample = longest};
}

storage_type storage_of(const options& given) {
  return given.type == "bf16" ? storage_type::bf16 : storage_type::f32;
}

lora_settings lora_of(const options& given) {
  return {given.lora, given.lora_alpha > 0 ? given.lora_alpha : 2.0 * given.lora, given.lora_head};
}

std::string settings_of(const feedback& data, const schedule& plan) {
  std::string lines = "data " + fingerprint(data);
  const auto add = [&](const char* name, const std::string& value) {
    lines += std::string("\n") + name + " " + value;
  };
  add("seed", std::to_string(plan.seed));
  add("steps", std::to_string(plan.steps));
  add("batch", std::to_string(plan.batch));
  add("lr", written(plan.learning_rate));
  add("warm-up", written(plan.warm_up));
  add("schedule", plan.shape == decline::constant ? "constant" : "cosine");
  add("weight-decay", written(plan.weight_decay));
  add("clip", written(plan.longest_gradient));
  add("together", std::to_string(plan.together));
  return lines + "\n";
}

std::string settings_of(const language_model& start) {
  return "start " + start.fingerprint() + "\nstorage " +
         (start.storage() == storage_type::f32 ? "f32" : "bf16") + "\nlora " +
         std::to_string(start.lora().rank) + " " + written(start.lora().alpha) +
         (start.lora().head ? " head" : "") + "\n";
}

std::string settings_of(const loss_choice& choice) {
  std::string line = "loss " + choice.loss + " " + choice.reference_point;
  for (const auto& [name, value] : choice.parameters) line += " " + name + "=" + written(value);
  return line + "\n";
}

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

}  // namespace align
