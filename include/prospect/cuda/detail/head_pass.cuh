// One head pass on CUDA: its launches, chunk by chunk. Which of them, and in what order, is the
// business of the functions in head.cuh.
#pragma once

#include <prospect/cuda/detail/head_plan.cuh>
#include <prospect/cuda/gemm.hpp>
#include <prospect/cuda/tokens.cuh>
#include <prospect/head.hpp>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

/// Packed rows [first, first + rows).
struct head_chunk {
  std::int64_t first, rows;
};

template <class Run>
static cudaError_t for_each_chunk(std::int64_t first, std::int64_t end, std::int64_t rows,
                                  const Run& run) {
  for (; first < end; first += rows) {
    if (const cudaError_t e = run(head_chunk{first, (std::min)(rows, end - first)})) return e;
  }
  return cudaSuccess;
}

/// Runs launches until one fails.
template <class... Launches>
static cudaError_t in_turn(const Launches&... launches) {
  cudaError_t e = cudaSuccess;
  static_cast<void>((((e = launches()) == cudaSuccess) && ...));
  return e;
}

template <logits_storage S, gemm<S> Gemm>
struct head_pass {
  matrix_view<const S> tokens;
  lm_head<S> head;
  prospect::detail::scored_targets targets;
  token_options options;  ///< of the tokens
  head_memory<S> memory;
  const Gemm& multiply;
  cudaStream_t stream;
  std::int64_t* scored;  ///< on the device, or nullptr

  // ---- the whole batch ----

  /// Scored tokens to the front.
  cudaError_t pack(const packed_sequences& sequences = {}) const {
    return launch(&pack_kernel<packing_threads>, 1, packing_threads, 0, 1, stream, targets,
                  tokens.rows, sequences, memory.packed, scored);
  }
  /// A bias as products take it.
  cudaError_t widen_bias() const {
    if (memory.bias == nullptr) return cudaSuccess;
    return launch(&widen_kernel<S>, blocks_for(head.bias.size(), threads), threads, 0, 1, stream,
                  head.bias, memory.bias);
  }
  /// What rows of logits are computed with in a forward pass.
  cudaError_t pack_rows() const {
    packed_rows rows = memory.rows;
    rows.softmax = nullptr;
    return pack_rows(rows, {}, {}, {});
  }
  /// In a backward pass.
  cudaError_t pack_rows(const prospect::detail::coefficient_rows<float>& coefficients,
                        strided_span<const float> log_prob, strided_span<const double> lse) const {
    return in_turn(
        [&] {
          return launch(&raise_kernel<packing_threads>, 1, packing_threads, 0, 1, stream,
                        coefficients, memory.packed);
        },
        [&] { return pack_rows(memory.rows, coefficients, log_prob, lse); });
  }
  /// As if no token were scored.
  cudaError_t forget() const {
    return launch(&forget_kernel, blocks_for(tokens.rows, threads), threads, 0, 1, stream,
                  memory.packed, tokens.rows);
  }
  cudaError_t scatter_results(const token_results& out) const {
    return launch(&scatter_results_kernel, blocks_for(tokens.rows, threads), threads, 0, 1, stream,
                  memory.packed, tokens.rows, memory.results,
                  strided_span<const vocabulary_partial>{memory.partials}, out);
  }
  /// Rows of tokens that are not scored; the others are written by `scatter`.
  cudaError_t clear(const matrix_view<S>& d_hidden) const {
    if (d_hidden.rows == 0) return cudaSuccess;
    return launch(&clear_kernel<S>, blocks_for(d_hidden.rows, warps), threads, 0, 1, stream,
                  d_hidden, memory.packed);
  }
  template <logits_storage T>
  cudaError_t pad(const matrix_view<T>& gradient) const {
    return zero_padding(gradient, options, stream);
  }

  /// The rest of all gradients: what no chunk has added to, and padding.
  cudaError_t finish(const head_gradients<S>& to, bool any_tokens) const {
    const auto zero = [&](const matrix_view<float>& sums) {
      if (any_tokens || to.accumulate || sums.rows == 0) return cudaSuccess;
      return launch(&zero_kernel, blocks_for(sums.rows, warps), threads, 0, 1, stream, sums);
    };
    const auto matrix = [&](const matrix_view<float>& sums) {
      return in_turn([&] { return zero(sums); }, [&] { return pad(sums); });
    };
    return in_turn([&] { return pad(to.hidden); }, [&] { return matrix(to.weight); },
                   [&] { return matrix(to.lora_a); }, [&] { return matrix(to.lora_b); },
                   [&] {
                     const auto& bias = to.bias;
                     return zero({bias.data(), bias.size(), 1, bias.stride()});
                   });
  }

  std::int64_t capacity() const { return memory.packed.capacity; }

  // ---- a chunk ----

  /// Hidden states, times their factors where there are any.
  cudaError_t gather(head_chunk c, const float* factors = nullptr) const {
    const std::int64_t tiles = tiles_of<S>(tokens.columns);
    return launch(&gather_kernel<S>, blocks_for(c.rows * tiles, warps), threads, 0, 1, stream,
                  tokens, memory.packed.order + c.first, at(factors, c), hidden(c), tiles);
  }
  /// Kept gradients of tokens that take no part.
  cudaError_t drop(head_chunk c) const {
    return launch(&drop_kernel<S>, blocks_for(c.rows, warps), threads, 0, 1, stream, kept(c),
                  static_cast<const std::int32_t*>(memory.packed.order + c.first));
  }
  cudaError_t make_logits(head_chunk c) const {
    const auto product = [&](const matrix_view<const S>& a, const matrix_view<const S>& b,
                             const matrix_view<float>& to, bool adds, const float* bias) {
      return compute({.a = {a},
                      .b = {b, true},
                      .c = to,
                      .alpha = &numbers()->one,
                      .beta = adds ? &numbers()->one : &numbers()->zero,
                      .bias = bias});
    };
    return in_turn([&] { return product(hidden(c), head.weight, logits(c), false, memory.bias); },
                   [&] { return make_down(c); },
                   [&] {
                     if (!adapts()) return cudaSuccess;
                     return product(down(c), head.lora.b, logits(c), true, nullptr);
                   });
  }
  /// What the adapter makes of the hidden states that were gathered: scale hidden a^T.
  cudaError_t make_down(head_chunk c) const {
    if (!adapts()) return cudaSuccess;
    return through_rank(c, hidden(c), {.matrix = head.lora.a, .transposed = true}, down(c));
  }

  cudaError_t scores(head_chunk c) const {
    return token_log_probs<S_logits>(logits(c), targets_of(c), results(c), options_of(c),
                                     memory.forward, stream);
  }
  cudaError_t partials(head_chunk c, bool statistics) const {
    return vocabulary_partials<S_logits>(logits(c), targets_of(c), part(memory.partials, c),
                                         options_of(c), statistics, memory.forward, stream);
  }
  /// Log-probs, and their gradients.
  cudaError_t scores_and_gradients(head_chunk c, const matrix_view<S>& gradient) const {
    return deferred_rows<S_logits, S>(logits(c), gradient, targets_of(c), results(c), options_of(c),
                                      stream);
  }
  cudaError_t gradients(head_chunk c) const {
    const auto row = [&](const auto* p) {
      using T = std::remove_pointer_t<decltype(p)>;
      return p == nullptr ? strided_span<T>{} : strided_span<T>{p + c.first, c.rows};
    };
    const packed_rows& r = memory.rows;
    const auto run = r.d_entropy == nullptr ? &detail::gradient<false, S_logits, S>
                                            : &detail::gradient<true, S_logits, S>;
    return run(logits(c), gradient(c), targets_of(c), row(static_cast<const float*>(r.log_prob)),
               row(static_cast<const double*>(r.lse)),
               {.rows = {.softmax = row(static_cast<const float*>(r.softmax)),
                         .onehot = row(static_cast<const float*>(r.onehot)),
                         .d_entropy = row(static_cast<const float*>(r.d_entropy)),
                         .entropy = row(static_cast<const float*>(r.entropy))}},
               options_of(c), stream);
  }

  /// The gradient of hidden states from that of logits, each row times its factor.
  cudaError_t put_d_hidden(head_chunk c, const matrix_view<const S>& gradient,
                           const matrix_view<S>& to, const float* factors = nullptr) const {
    if (to.rows == 0) return cudaSuccess;
    const matrix_view<float> sums = part(memory.d_hidden, c.rows);
    const auto product = [&](const matrix_view<const S>& a, const matrix_view<const S>& b,
                             bool adds) {
      return compute({.a = {a},
                      .b = {b},
                      .c = sums,
                      .alpha = &numbers()->one,
                      .beta = adds ? &numbers()->one : &numbers()->zero});
    };
    const std::int64_t tiles = tiles_of<float>(to.columns);
    return in_turn([&] { return product(gradient, head.weight, false); },
                   [&] {
                     if (!adapts()) return cudaSuccess;
                     return product(up(c), head.lora.a, true);
                   },
                   [&] {
                     return launch(&scatter_kernel<S>, blocks_for(c.rows * tiles, warps), threads,
                                   0, 1, stream, matrix_view<const float>{sums},
                                   memory.packed.order + c.first, at(factors, c),
                                   static_cast<const head_numbers*>(numbers()), to, tiles);
                   });
  }
  /// What the gradient of logits takes through the adapter: scale gradient b.
  cudaError_t make_up(head_chunk c, const matrix_view<const S>& gradient) const {
    if (!adapts()) return cudaSuccess;
    return through_rank(c, gradient, {.matrix = head.lora.b}, up(c));
  }
  /// What a chunk adds to the gradients of the head; its hidden states are those that were
  /// gathered, with their factors if the gradient has none.
  cudaError_t add_to_head(head_chunk c, const matrix_view<const S>& gradient,
                          const head_gradients<S>& to, const float* factors,
                          bool accumulate) const {
    const auto product = [&](const matrix_view<const S>& a, const matrix_view<const S>& b,
                             const matrix_view<float>& sums) {
      if (sums.rows == 0) return cudaSuccess;
      return compute({.a = {a, true},
                      .b = {b},
                      .c = sums,
                      .alpha = &numbers()->back,
                      .beta = accumulate ? &numbers()->one : &numbers()->zero,
                      .tokens = gemm_tokens::inner});
    };
    return in_turn([&] { return product(gradient, hidden(c), to.weight); },
                   [&] { return product(gradient, down(c), to.lora_b); },
                   [&] { return product(up(c), hidden(c), to.lora_a); },
                   [&] {
                     if (to.bias.empty()) return cudaSuccess;
                     return launch(&column_sums_kernel<S>, blocks_for(gradient.columns, lanes),
                                   threads, 0, 1, stream, gradient, at(factors, c),
                                   static_cast<const head_numbers*>(numbers()), accumulate,
                                   to.bias);
                   });
  }

  matrix_view<S> gradient(head_chunk c) const { return part(memory.gradient, c.rows); }
  matrix_view<S> kept(head_chunk c) const {
    const matrix_view<S>& k = memory.kept;
    return {k.row(c.first), c.rows, k.columns, k.pitch};
  }

 private:
  using S_logits = float;

  cudaError_t pack_rows(const packed_rows& rows,
                        const prospect::detail::coefficient_rows<float>& coefficients,
                        strided_span<const float> log_prob, strided_span<const double> lse) const {
    return launch(&pack_rows_kernel, blocks_for(capacity(), threads), threads, 0, 1, stream,
                  memory.packed, targets, options.inverse_temperatures, coefficients, log_prob, lse,
                  rows);
  }

  bool adapts() const { return !head.lora.empty(); }
  head_numbers* numbers() const { return memory.packed.numbers; }

  /// A matrix of one row has no pitch; a product's has.
  cudaError_t compute(gemm_product<S> p) const {
    const auto give_pitch = [](auto& m) {
      if (m.rows == 1) m.pitch = m.columns;
    };
    give_pitch(p.a.matrix);
    give_pitch(p.b.matrix);
    give_pitch(p.c);
    return multiply(p, stream);
  }

  /// The first rows of a chunk's matrix.
  template <class T>
  static matrix_view<T> part(const matrix_view<T>& m, std::int64_t rows) {
    return {m.data, rows, m.columns, m.pitch};
  }
  template <class T>
  static strided_span<T> part(const strided_span<T>& row, head_chunk c) {
    return row.empty() ? row : strided_span<T>{row.data() + c.first, c.rows};
  }
  static const float* at(const float* row, head_chunk c) {
    return row == nullptr ? nullptr : row + c.first;
  }
  matrix_view<S> hidden(head_chunk c) const { return part(memory.hidden, c.rows); }
  matrix_view<float> logits(head_chunk c) const { return part(memory.logits, c.rows); }
  matrix_view<S> down(head_chunk c) const { return part(memory.down, c.rows); }
  matrix_view<S> up(head_chunk c) const { return part(memory.up, c.rows); }

  cudaError_t through_rank(head_chunk c, const matrix_view<const S>& a, const gemm_operand<S>& b,
                           const matrix_view<S>& to) const {
    const matrix_view<float> low = part(memory.low, c.rows);
    const std::int64_t tiles = tiles_of<float>(to.columns);
    return in_turn(
        [&] {
          return compute(
              {.a = {a}, .b = b, .c = low, .alpha = &numbers()->one, .beta = &numbers()->zero});
        },
        [&] {
          return launch(&narrow_kernel<S>, blocks_for(c.rows * tiles, warps), threads, 0, 1, stream,
                        matrix_view<const float>{low}, static_cast<float>(head.lora.scale), to,
                        tiles);
        });
  }

  index_row targets_of(head_chunk c) const {
    return strided_span<const std::int64_t>{memory.rows.targets + c.first, c.rows};
  }
  token_options options_of(head_chunk c) const {
    token_options o = options;
    o.mask = {};
    o.zero_padding = false;
    o.inverse_temperatures = {};
    if (memory.rows.inverse_temperatures != nullptr) {
      o.inverse_temperatures = {memory.rows.inverse_temperatures + c.first, c.rows};
    }
    return o;
  }
  token_outputs<float> results(head_chunk c) const {
    const token_outputs<float>& r = memory.results;
    return {.log_prob = part(r.log_prob, c),
            .lse = part(r.lse, c),
            .entropy = part(r.entropy, c),
            .sum_squares = part(r.sum_squares, c),
            .mean_logit = part(r.mean_logit, c),
            .target_is_argmax = part(r.target_is_argmax, c)};
  }
};

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
