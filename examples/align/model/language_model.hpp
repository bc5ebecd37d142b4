// A model as the rest of the trainer knows it: packed tokens in, a log-probability per sequence
// out; a coefficient per sequence in, the gradient of what is trained out. How weights are stored,
// and whether all of them or low-rank adapters are trained, is decided here once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <variant>

#include "model/batch.hpp"
#include "model/scoring.hpp"
#include "model/transformer.hpp"
#include "threads.hpp"

namespace align {

// How weights lie in memory where products read them. What is trained has a copy in fp32 beside it
// that the optimiser changes.
enum class storage_type { f32, bf16 };

class language_model {
 public:
  // All parameters are 0, as are adapters. Throws std::invalid_argument for what is no model.
  language_model(const model_shape& shape, storage_type storage, const lora_settings& lora = {});

  const model_shape& shape() const { return shape_; }
  const lora_settings& lora() const { return lora_; }
  storage_type storage() const { return storage_; }

  // Asks for the fp32 values of every weight, one after the other.
  void load(const std::function<void(const weight_place&, std::span<float>)>& weight);

  // What an optimiser changes: all parameters, or all adapters. Whoever has written to elements
  // [first, last) says so, and no pass may run meanwhile.
  std::span<float> trained() { return trained_; }
  std::span<const float> trained() const { return trained_; }
  void renew(std::size_t first, std::size_t last);
  void renew() { renew(0, trained_.size()); }

  // The fp32 values of whole rows of a weight from row `first` on, adapters merged into them.
  void read(const weight_place& place, std::size_t first, std::span<float> rows) const;

  // A hash of the shape and of all weights as stored, without adapters.
  std::string fingerprint() const;

  // Calls use(model_view<float>) or use(model_view<bfloat16>).
  template <class Use>
  decltype(auto) visit(const Use& use, bool adapted = true) const {
    return storage_ == storage_type::f32 ? use(view(base_, trained_, adapted))
                                         : use(view(narrow_base_, narrow_trained_, adapted));
  }

  std::size_t bytes() const;

 private:
  template <class W>
  model_view<W> view(const aligned_vector<W>& base, const aligned_vector<W>& trained,
                     bool adapted) const {
    if (lora_.rank == 0) return {shape_, trained};
    return {shape_, base, lora_, adapted ? std::span<const W>{trained} : std::span<const W>{}};
  }

  model_shape shape_;
  storage_type storage_;
  lora_settings lora_;
  aligned_vector<float> trained_, base_;                   // base_: with adapters only
  aligned_vector<bfloat16> narrow_trained_, narrow_base_;  // as products read them
};

// A starting point for training from nothing: normal weights of deviation 0.02, those into the
// stream smaller with the depth, gains 1 (Radford et al. 2019, GPT-2).
void initialise(language_model& model, std::uint64_t seed);

// Adapters as LoRA starts them: A uniform as PyTorch's linear layers are, B zero, so that the model
// is what it was.
void initialise_adapters(language_model& model, std::uint64_t seed);

// Whether a backward pass follows, and whether it is to compute the blocks again.
enum class purpose { evaluation, training, training_with_less_memory };

// The memory of one pass over a batch, forward and back.
class scoring_pass {
 public:
  explicit scoring_pass(storage_type storage) {
    if (storage == storage_type::bf16) memory_.emplace<memory<bfloat16>>();
  }

  // Log-probabilities of the batch's completions in nats, and those of their tokens. `adapted`
  // false leaves adapters out: the model as it was.
  std::span<const double> score(const language_model& model, const packed_batch& batch, purpose why,
                                workers& on, bool adapted = true);
  std::span<const float> tokens() const;

  // After `score` of the same for training: adds the gradient of sum_i coefficients[i] logp_i by
  // model.trained().
  void add_gradient(const language_model& model, const packed_batch& batch,
                    std::span<const double> coefficients, std::span<float> gradient, workers& on);

  // What a pass over so many tokens, so many of them scored, holds besides the head's workspace.
  static std::size_t bytes(const language_model& model, std::size_t tokens, std::size_t scored,
                           purpose why);
  static std::size_t head_bytes();
  std::size_t bytes() const;

 private:
  template <class W>
  struct memory {
    activations<W> blocks;
    token_scores<W> scores;
  };
  std::variant<memory<float>, memory<bfloat16>> memory_;
};

}  // namespace align
