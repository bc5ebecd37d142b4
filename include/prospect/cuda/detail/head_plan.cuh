// How a head pass on CUDA divides its work and its memory: packed rows of tokens, chunks of them
// that fit, and gradients that stay. Arithmetic on sizes alone.
#pragma once

#include <prospect/core/dtype.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/cuda/detail/head_kernels.cuh>
#include <prospect/cuda/head_checks.hpp>
#include <prospect/cuda/scratch.hpp>
#include <prospect/vocabulary.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// More rows in a chunk make no product faster.
inline constexpr std::int64_t most_head_rows = 8192;

/// What a pass needs memory for.
struct head_sizes {
  std::int64_t tokens, scored_at_most, width, vocabulary, rank;
  bool temperatures = false, bias = false;
  bool gradients = false;     ///< of logits, for products with them
  bool kept = false;          ///< and for a later pass, as far as they fit
  bool coefficients = false;  ///< a backward pass
  bool entropy_gradients = false;
  bool partials = false;
};

/// How many rows the scored tokens are packed to.
constexpr std::int64_t capacity_of(const head_sizes& s) {
  return up_to_multiple(std::max<std::int64_t>(s.scored_at_most, 1), head_row_multiple);
}

/// What lies where. Rows are packed rows, [capacity].
template <storage S>
struct head_memory {
  packed_tokens packed{};
  packed_rows rows{};
  token_outputs<float> results{};
  strided_span<vocabulary_partial> partials{};
  float* bias = nullptr;  ///< [vocabulary]
  matrix_view<S> kept{};  ///< [kept rows, vocabulary]: gradients
  // Of a chunk:
  matrix_view<S> hidden{};        ///< [rows, width]
  matrix_view<float> d_hidden{};  ///< [rows, width]
  matrix_view<float> logits{};    ///< [rows, vocabulary]
  matrix_view<S> gradient{};      ///< [rows, vocabulary]
  matrix_view<float> low{};       ///< [rows, rank]: a product before it is narrowed
  matrix_view<S> down{}, up{};    ///< [rows, rank]: hidden A^T and gradient B, scaled
  scratch forward{};
  std::int64_t chunk_rows = 0;
};

/// Of matrices for products: rows that begin on a word.
template <class T>
matrix_view<T> carve_matrix(scratch& space, std::int64_t rows, std::int64_t columns) {
  const std::int64_t pitch = up_to_multiple(columns, 16 / std::int64_t{sizeof(T)});
  return {space.carve<T>(static_cast<std::size_t>(rows * pitch)), rows, columns, pitch};
}
template <class T>
strided_span<T> carve_row(scratch& space, std::int64_t size) {
  return {space.carve<T>(static_cast<std::size_t>(size)), size};
}

/// The sums of a few long rows (`forward` in tokens.cuh), which are split over blocks.
inline std::size_t split_bytes(std::int64_t rows, std::int64_t vocabulary) {
  return static_cast<std::size_t>(rows * tiles_of<float>(vocabulary)) * sizeof(vocabulary_partial);
}

/// Hands out `space`, chunks of so many rows; the same code counts how much that is where there is
/// none yet.
template <storage S>
head_memory<S> carve_head(scratch& space, const head_sizes& s, std::int64_t chunk_rows,
                          std::int64_t kept_rows, const token_outputs<float>& out) {
  head_memory<S> m;
  const std::int64_t capacity = capacity_of(s);
  const auto row = [&](auto*& pointer, bool wanted = true) {
    using T = std::remove_reference_t<decltype(*pointer)>;
    if (wanted) pointer = space.carve<T>(static_cast<std::size_t>(capacity));
  };
  // The same place in a forward pass and in the one that follows it.
  if (s.kept) m.kept = carve_matrix<S>(space, kept_rows, s.vocabulary);
  m.packed.capacity = capacity;
  m.packed.scored_at_most = s.scored_at_most;
  m.packed.numbers = space.carve<head_numbers>(1);
  row(m.packed.order);
  m.packed.places = space.carve<std::int32_t>(static_cast<std::size_t>(s.tokens));
  row(m.rows.targets);
  row(m.rows.inverse_temperatures, s.temperatures);
  row(m.rows.softmax, s.coefficients);
  row(m.rows.onehot, s.coefficients);
  row(m.rows.factors, s.coefficients);
  row(m.rows.d_entropy, s.entropy_gradients);
  row(m.rows.entropy, s.entropy_gradients);
  row(m.rows.log_prob, s.coefficients);
  row(m.rows.lse, s.coefficients);
  const auto result = [&](auto& target, const auto& wanted) {
    using T = std::remove_cvref_t<decltype(wanted[0])>;
    if (!wanted.empty()) target = carve_row<T>(space, capacity);
  };
  if (s.partials) m.partials = carve_row<vocabulary_partial>(space, capacity);
  result(m.results.log_prob, out.log_prob);
  result(m.results.lse, out.lse);
  result(m.results.entropy, out.entropy);
  result(m.results.sum_squares, out.sum_squares);
  result(m.results.mean_logit, out.mean_logit);
  result(m.results.target_is_argmax, out.target_is_argmax);
  if (s.bias) m.bias = space.carve<float>(static_cast<std::size_t>(s.vocabulary));

  m.chunk_rows = chunk_rows;
  m.hidden = carve_matrix<S>(space, chunk_rows, s.width);
  m.logits = carve_matrix<float>(space, chunk_rows, s.vocabulary);
  if (s.gradients) {
    m.d_hidden = carve_matrix<float>(space, chunk_rows, s.width);
    m.gradient = carve_matrix<S>(space, chunk_rows, s.vocabulary);
  }
  if (s.rank > 0) {
    m.low = carve_matrix<float>(space, chunk_rows, s.rank);
    m.down = carve_matrix<S>(space, chunk_rows, s.rank);
    if (s.gradients) m.up = carve_matrix<S>(space, chunk_rows, s.rank);
  }
  const std::size_t bytes = split_bytes(chunk_rows, s.vocabulary);
  m.forward = {space.carve<std::byte>(bytes), bytes};
  return m;
}

template <storage S>
std::size_t head_bytes(const head_sizes& s, std::int64_t chunk_rows, std::int64_t kept_rows,
                       const token_outputs<float>& out) {
  std::size_t bytes = 0;
  scratch counted = scratch::size_into(bytes);
  carve_head<S>(counted, s, chunk_rows, kept_rows, out);
  static_cast<void>(counted.suffices());
  return bytes;
}

struct head_plan {
  std::int64_t chunk_rows = 0;  ///< 0: the memory is too small for any
  std::int64_t kept_rows = 0;
};

/// The largest multiple of rows, up to `most`, for which bytes(rows) <= room; by halving.
template <class Bytes>
std::int64_t most_rows(std::int64_t most, std::size_t room, const Bytes& bytes) {
  std::int64_t fits = 0;
  std::int64_t too_many = most / head_row_multiple + 1;
  while (too_many - fits > 1) {
    const std::int64_t middle = fits + (too_many - fits) / 2;
    (bytes(middle * head_row_multiple) <= room ? fits : too_many) = middle;
  }
  return fits * head_row_multiple;
}

/// As large chunks as fit, all of one size; where gradients are to be kept, chunks of a comfortable
/// size and as many kept as fit beside them.
template <storage S>
head_plan plan_head(const head_sizes& s, std::size_t room, const token_outputs<float>& out) {
  const std::int64_t all = capacity_of(s);
  const auto chunks = [&](std::int64_t most, std::size_t bytes) {
    return most_rows((std::min)(most, all), bytes,
                     [&](std::int64_t rows) { return head_bytes<S>(s, rows, 0, out); });
  };
  head_plan plan;
  if (!s.kept) {
    plan.chunk_rows = chunks(most_head_rows, room);
  } else {
    constexpr std::int64_t comfortable = 1024;
    plan.chunk_rows = chunks(comfortable, room);
    if (plan.chunk_rows == 0) return plan;
    plan.kept_rows = most_rows(
        all, room, [&](std::int64_t rows) { return head_bytes<S>(s, plan.chunk_rows, rows, out); });
  }
  if (plan.chunk_rows > 0) {
    const std::int64_t count = (all + plan.chunk_rows - 1) / plan.chunk_rows;
    plan.chunk_rows = up_to_multiple((all + count - 1) / count, head_row_multiple);
  }
  return plan;
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
