// The sizes of a Llama model, and where each of its weights lies. Parameters are one flat row, so
// that optimiser, checkpoint and gradient sums are one loop each; names are those of GGUF files.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

namespace align {

struct model_shape {
  int vocabulary = 0;
  int context = 0;  // the longest sequence
  int width = 64;
  int layers = 2;
  int heads = 4;
  int key_value_heads = 2;  // each serves heads / key_value_heads heads of queries
  int head_width = 16;
  int feed_forward = 172;
  double rope_base = 10000;
  double norm_epsilon = 1e-5;
  bool tied_head = true;                  // the head is the table of embeddings
  std::vector<float> rope_divisors = {};  // of the frequencies, [head_width / 2]; empty: all 1

  friend bool operator==(const model_shape&, const model_shape&) = default;
};

// A matrix [rows, columns], row-major: `rows` outputs of `columns` inputs. A gain is one row.
struct weight_place {
  std::string name;  // "blk.3.ffn_up.weight"
  int rows = 0, columns = 0;
  std::size_t offset = 0;  // of its first element in the flat row

  std::size_t size() const {
    return static_cast<std::size_t>(rows) * static_cast<std::size_t>(columns);
  }
};

// In the order in which they lie in the flat row, without gaps. Rows of queries and keys are in
// GGUF's order: the rotation turns elements 2i and 2i + 1 of a head, where Hugging Face's files
// have i and i + head_width / 2.
std::vector<weight_place> weights_of(const model_shape& shape);

std::size_t parameter_count(const model_shape& shape);

// Every size as text: models of different shapes differ in it.
std::string described(const model_shape& shape);

// Throws std::invalid_argument, which names the size, for what is no model.
void require_valid(const model_shape& shape);

}  // namespace align
