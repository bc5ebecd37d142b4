// What a run starts from: the feedback in the form that the loss asks for, the loss, and the model,
// which is a file's or a tiny one that knows nothing yet.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "data/data.hpp"
#include "evaluation/evaluate.hpp"
#include "formats/model_files.hpp"
#include "model/language_model.hpp"
#include "objective.hpp"
#include "options.hpp"
#include "training/plan.hpp"

namespace align {

// The loss that the options ask for. Where they say "auto", the weight that the counts suggest;
// `advice` says how it was found. Throws std::invalid_argument for what does not exist.
loss_choice choose_loss(const options& given, std::size_t n_desirable, std::size_t n_undesirable,
                        std::string* advice = nullptr);

// A model from a file, and how it reads and writes texts.
struct given_model {
  loaded_model file;
  codec text;
};

// Nothing where the options name no model.
std::optional<given_model> open_given_model(const options& given);

struct job {
  dataset data;
  feedback corpus, train, held_out;
  loss_choice choice;
  std::string advice;  // how automatic weights were found
  objective goal;
  model_shape shape;
};

job prepare(const options& given, const given_model* model, std::uint64_t seed);

// The plan of the alignment, and that of the next-token training before it, which only a model
// without a file needs.
schedule alignment_plan(const options& given, const job& from, std::uint64_t seed);
schedule next_token_plan(const options& given, const job& from, std::uint64_t seed);

evaluation_plan evaluation_of(const options& given, const job& from);

storage_type storage_of(const options& given);
lora_settings lora_of(const options& given);

// Lines of everything that decides what a stage computes; another line is another checkpoint.
std::string settings_of(const feedback& data, const schedule& plan);
std::string settings_of(const language_model& start);
std::string settings_of(const loss_choice& choice);

}  // namespace align
