// Our side of against_transformers.py and against_llama_cpp.py: reads a job as JSON from the
// standard input, and writes what the trainer's passes make of it into files of floats beside the
// model's name.
//
//   {"model": path, "texts": [...]}
//       tokens of each as JSON; logits of every position to out
//   {"model": path, "rows": [{"prompt": [...], "completion": [...], "desirable": bool,
//    "reference": nats}], "z": nats, "lora": rank, "lora_head": bool}
//       the loss as JSON; the gradient of KTO to out, of all weights in the order of weights_of, or
//       of adapters, whose values go to out.adapters
//   {"model": path, "questions": [...], "longest": tokens, "save": path}
//       what the model answers to a user at temperature 0, as JSON; the model goes to `save` in
//       fp32
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "formats/model_files.hpp"
#include "model/decoder.hpp"
#include "model/language_model.hpp"
#include "model/product.hpp"
#include "objective.hpp"
#include "random_source.hpp"
#include "text/chat_codec.hpp"

namespace {

using namespace align;
using nlohmann::json;

void write_floats(const std::string& path, std::span<const float> values, bool more = false) {
  std::ofstream out(path, more ? std::ios::binary | std::ios::app : std::ios::binary);
  const auto bytes = std::as_bytes(values);
  out.write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

language_model loaded(const loaded_model& file, storage_type storage, const lora_settings& lora) {
  model_shape shape = file.shape;
  if (lora.head) shape.tied_head = false;
  language_model model(shape, storage, lora);
  model.load([&](const weight_place& place, std::span<float> values) { file.read(place, values); });
  return model;
}

storage_type storage_of(const json& job) {
  return job.value("type", "f32") == "bf16" ? storage_type::bf16 : storage_type::f32;
}

void logits_of(const json& job, const loaded_model& file, const std::string& out) {
  const language_model model = loaded(file, storage_of(job), {});
  const codec text = chat_codec(file.origin, "");
  workers on{0};
  json all = json::array();
  bool more = false;
  for (const auto& one : job.at("texts")) {
    const std::vector<token> ids = text.completion(one.get<std::string>());
    packed_batch batch;
    batch.append({ids.data(), 1}, std::span{ids}.subspan(1));
    model.visit([&]<class W>(const model_view<W>& view) {
      activations<W> memory;
      forward<W>(view, batch, leave::nothing, memory, on);
      const matrix<const W> hidden = std::as_const(memory.hidden).view();
      tensor<float> logits;
      const auto head = head_of(view).weight;
      multiply<W>(plain<W>(hidden), transposed<W>(head), logits.reshape(hidden.rows, head.rows));
      write_floats(out, {logits.view().data, static_cast<std::size_t>(hidden.rows * head.rows)},
                   more);
    });
    more = true;
    all.push_back(ids);
  }
  std::cout << all << '\n';
}

void gradient_of(const json& job, const loaded_model& file, const std::string& out) {
  const int rank = job.value("lora", 0);
  const bool head = job.value("lora_head", false);
  language_model model = loaded(file, storage_of(job), {rank, 2.0 * rank, head});
  if (rank > 0) {
    initialise_adapters(model, 1);
    random_source random{2};  // B as well, or A would have no gradient
    for (const weight_place& place : adapters_of(model.shape(), model.lora())) {
      if (!place.name.ends_with("lora_b")) continue;
      for (float& x : model.trained().subspan(place.offset, place.size())) {
        x = static_cast<float>(0.02 * random.uniform() - 0.01);
      }
    }
    model.renew();
    write_floats(out + ".adapters", std::as_const(model).trained());
  }
  packed_batch batch;
  scored_batch scored;
  for (const json& row : job.at("rows")) {
    const auto completion = row.at("completion").get<std::vector<token>>();
    batch.append(row.at("prompt").get<std::vector<token>>(), completion);
    scored.reference.push_back(row.at("reference"));
    scored.desirable.push_back(row.at("desirable").get<bool>() ? 1 : 0);
    scored.tokens.push_back(static_cast<std::int32_t>(completion.size()));
  }
  workers on{0};
  scoring_pass pass(model.storage());
  const purpose why =
      job.value("recompute", false) ? purpose::training_with_less_memory : purpose::training;
  const auto sums = pass.score(model, batch, why, on);
  scored.policy.assign(sums.begin(), sums.end());
  const objective goal = preference_objective(
      {.loss = "kto", .reference_point = "constant:" + std::to_string(job.at("z").get<double>())});
  point_memory memory;
  std::vector<double> coefficients(scored.policy.size());
  const step_record record = goal.evaluate(scored, memory, coefficients);
  std::vector<float> gradient(model.trained().size());
  pass.add_gradient(model, batch, coefficients, gradient, on);
  write_floats(out, gradient);
  std::cout << json{{"loss", record.loss}, {"log_probs", scored.policy}} << '\n';
}

void answers_of(const json& job, const loaded_model& file) {
  const language_model model = loaded(file, storage_type::f32, {});
  save_model(
      job.at("save").get<std::string>(), file.shape,
      [&](const weight_place& place, std::size_t first, std::span<float> rows) {
        model.read(place, first, rows);
      },
      element_type::f32, with_tokeniser(file.origin));
  const codec text = chat_codec(file.origin, "");
  std::vector<std::vector<token>> prompts;
  for (const json& question : job.at("questions")) {
    const std::vector<message> asked{{"user", question.get<std::string>()}};
    prompts.push_back(text.prompt(asked));
  }
  workers on{0};
  const std::vector<sample> answers = write_completions(
      model, prompts,
      {.temperature = 0, .longest = job.at("longest").get<std::size_t>(), .end = text.end}, on);
  json all = json::array();
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    all.push_back({{"prompt", prompts[i]},
                   {"completion", answers[i].completion},
                   {"text", text.decode(answers[i].completion)}});
  }
  std::cout << all << '\n';
}

}  // namespace

int main(int argc, char** argv) {
  try {
    const std::string out = argc > 1 ? argv[1] : "out.f32";
    const json job = json::parse(std::cin);
    const loaded_model file = open_model(job.at("model").get<std::string>());
    if (job.contains("texts")) {
      logits_of(job, file, out);
    } else if (job.contains("questions")) {
      answers_of(job, file);
    } else {
      gradient_of(job, file, out);
    }
  } catch (const std::exception& failed) {
    std::cerr << failed.what() << '\n';
    return 1;
  }
}
