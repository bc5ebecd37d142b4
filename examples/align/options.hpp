// The command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace align {

struct options {
  // What is learnt from.
  std::string data;  // "": synthetic feedback
  double drop_desirable = 0;
  double flip = 0;
  std::size_t max_prompt = 0, max_completion = 0;  // tokens; 0: what suits the model
  std::size_t held_out_rows = 0;                   // 0: all
  bool check = false;

  // What learns.
  std::string model;  // a GGUF file or a Hugging Face folder; "": a tiny one, trained from scratch
  std::string chat_template;  // "": the model's own
  std::string type = "f32";   // or bf16
  int lora = 0;               // rank; 0: every weight is trained
  double lora_alpha = 0;      // 0: twice the rank
  bool lora_head = false;     // an adapter of the head as well
  bool recompute = false;

  // What it is told.
  std::string loss = "kto";
  std::vector<std::pair<std::string, std::string>> parameters;  // value: a number or "auto"
  std::string reference_point;                                  // "": the loss's own
  std::string reference_cache;                                  // "": in `out`; "off": none

  // How it learns.
  double epochs = 1;
  int steps = 0;                    // 0: as many as the epochs have
  double learning_rate = -1;        // negative: what suits the model
  std::string schedule = "cosine";  // or constant
  double warm_up = 0.1;
  double weight_decay = 0;
  double clip = 1;  // 0: never
  double sft_epochs = 4;
  double sft_learning_rate = 2e-3;
  int batch = 32;
  int micro_batch = 0;  // 0: the batch as one
  std::uint64_t seed = 1;
  int seeds = 1;
  int threads = 0;  // 0: one per core

  // What it leaves.
  std::filesystem::path out = "align-out";
  std::filesystem::path json;                  // "": none
  std::filesystem::path html;                  // "": report.html in `out`
  std::filesystem::path save;                  // "": none
  std::string save_type;                       // f32, f16, bf16 or q8_0; "": as it was computed
  std::size_t samples = 0, sample_tokens = 0;  // 0: what suits the model
  int checkpoint_every = 100;
  bool resume = false;
  bool help = false;
};

// Throws std::invalid_argument with one clear sentence.
options parse_options(std::span<const char* const> arguments);

std::string help_text();

}  // namespace align
