// A low-rank adapter of the head, beside the products with its weight. With u = scale h a^T, and G
// the gradient of the logits, from which q = scale G b:
//
//   logits += u b^T      dL/dh += q a      dL/da = q^T h      dL/db = G^T u
//
// Each costs rank / width of what the weight's products cost, or rank / vocabulary.
#pragma once

#include <prospect/cpu/detail/head_plan.hpp>
#include <prospect/cpu/detail/head_raised.hpp>
#include <prospect/cpu/detail/head_tiles.hpp>
#include <prospect/cpu/gemm.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/head.hpp>

#include <algorithm>
#include <concepts>
#include <cstdint>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// A chunk's. Both matrices are copied, whatever their type, with their rank padded by zeros. What
/// is multiplied with gradients of logits is of their type, all else of that of sums.
template <class Products, class Gemm, executor E>
class head_adapter {
 public:
  using S = typename Products::S;
  using G = typename Products::G;
  using R = typename Products::R;

  head_adapter(const lora_adapter<S>& lora, const Gemm& multiply, E& on)
      : lora_{lora}, rank_{round_up(lora.a.rows, rank_multiple)}, multiply_{multiply}, on_{on} {}

  bool none() const { return rank_ == 0; }

  /// Starts on a chunk of hidden states, [rows, width].
  void begin(const head_buffers<Products>& buffers, const matrix_view<const R>& hidden) {
    if (none()) return;
    a_ = {buffers.lora_a, rank_, hidden.columns};
    b_ = buffers.lora_b;
    u_ = {buffers.lora_hidden, hidden.rows, rank_};
    q_ = {buffers.lora_sums, hidden.rows, rank_};
    if constexpr (std::same_as<G, R>) {
      b_of_gradients_ = b_;
      u_of_gradients_ = u_;
    } else {
      b_of_gradients_ = buffers.narrow_lora_b;
      u_of_gradients_ = {buffers.narrow_lora_hidden, hidden.rows, rank_};
    }
    for_each_row(rank_, hidden.columns * std::int64_t{sizeof(R)}, on_, [&](std::int64_t i) {
      if (i < lora_.a.rows) return pad_row(lora_.a, i, a_);
      std::fill(a_.row(i), a_.row(i) + a_.columns, R(0));
    });
    for_each_block(hidden.rows, block_rows, [&](std::int64_t first, std::int64_t rows) {
      const matrix_view<R> u{u_.row(first), rows, rank_};
      multiply_(gemm_operand<R>{.matrix = {hidden.row(first), rows, hidden.columns, hidden.pitch}},
                gemm_operand<R>{.matrix = a_, .transposed = true}, u, false);
      scale_matrix(u, scale());
      if constexpr (!std::same_as<G, R>) {
        for (std::int64_t i = first; i < first + rows; ++i) {
          copy_row(u_.row(i), rank_, u_of_gradients_.row(i));
        }
      }
    });
  }

  /// Row i takes no part in what follows.
  void leave_out(std::int64_t i) const {
    if (!none()) std::fill(u_of_gradients_.row(i), u_of_gradients_.row(i) + rank_, G{});
  }

  /// The k-th place's copy of a tile of b, [columns of the tile, padded rank].
  matrix_view<const G> tile(std::int64_t tile, std::int64_t k) const {
    return place(b_of_gradients_, tile, k);
  }
  /// Has it there. `made_logits`: of this wave, in which it was copied for that.
  void prepare(std::int64_t tile, std::int64_t k, bool made_logits) const {
    if (none() || (std::same_as<G, R> && made_logits)) return;
    copy(tile, place(b_of_gradients_, tile, k));
  }

  /// Has a tile of b in the k-th place for `add_logits`.
  void take_tile(std::int64_t tile, std::int64_t k) const {
    if (!none()) copy(tile, place(b_, tile, k));
  }
  /// To those of the weight, whose rows are those from `first` on.
  void add_logits(std::int64_t tile, std::int64_t k, std::int64_t first,
                  const matrix_view<R>& logits) const {
    if (none()) return;
    multiply_(gemm_operand<R>{.matrix = {u_.row(first), logits.rows, u_.columns, u_.pitch}},
              gemm_operand<R>{.matrix = place(b_, tile, k), .transposed = true}, logits, true);
  }

  /// What a tile of gradients adds to that of b.
  void add_b(const matrix_view<G>& gradient, bool is_raised, const matrix_view<R>& d_b,
             bool accumulate) const {
    const matrix_view<G>& u = u_of_gradients_;
    multiply_raised<G>(multiply_, is_raised, {.matrix = gradient, .transposed = true},
                       {.matrix = {u.data, u.rows, d_b.columns, u.pitch}}, d_b, accumulate);
  }

  /// Where gradients times b are summed, [rows, padded rank].
  const matrix_view<R>& sums() const { return q_; }

  /// Once the sums are whole: what they give the gradients of the hidden states and of a, [rank,
  /// width], of which those without rows are not wanted.
  void finish(const matrix_view<const R>& hidden, const std::vector<matrix_view<R>>& d_hidden,
              const matrix_view<R>& d_a, bool accumulate) const {
    scale_matrix(q_, scale());
    extremes<R> found;
    for (std::int64_t i = 0; i < q_.rows; ++i) found.add(q_.row(i), rank_);
    std::vector<matrix_view<R>> sums = d_hidden;
    if (accumulate) sums.push_back(d_a);
    const bool is_raised = worth_raising(found, std::span<const matrix_view<R>>{sums});
    if (is_raised) scale_matrix(q_, raised<R>::by);
    for_each_block(
        d_hidden.empty() ? 0 : q_.rows, block_rows, [&](std::int64_t first, std::int64_t rows) {
          const R* a = a_.data;
          for (const matrix_view<R>& part : d_hidden) {
            multiply_raised<R>(multiply_, is_raised, {.matrix = {q_.row(first), rows, rank_}},
                               {.matrix = {a, rank_, part.columns, a_.pitch}},
                               matrix_view<R>{part.row(first), rows, part.columns, part.pitch},
                               true);
            a += part.columns;
          }
        });
    const std::int64_t width = d_a.rows == 0 ? 0 : d_a.columns;
    for_each_block(width, block_columns, [&](std::int64_t first, std::int64_t columns) {
      multiply_raised<R>(multiply_, is_raised,
                         {.matrix = {q_.data, q_.rows, d_a.rows, q_.pitch}, .transposed = true},
                         {.matrix = {hidden.data + first, hidden.rows, columns, hidden.pitch}},
                         matrix_view<R>{d_a.data + first, d_a.rows, columns,
                                        d_a.rows > 1 ? d_a.pitch : d_a.columns},
                         accumulate);
    });
  }

 private:
  R scale() const { return static_cast<R>(lora_.scale); }

  template <class T>
  matrix_view<T> place(T* places, std::int64_t tile, std::int64_t k) const {
    return {places + k * tile_columns * rank_, size_of_tile(lora_.b.rows, tile), rank_};
  }
  template <class T>
  void copy(std::int64_t tile, const matrix_view<T>& to) const {
    const matrix_view<const S> from = rows_of_tile(lora_.b, tile);
    for (std::int64_t v = 0; v < from.rows; ++v) pad_row(from, v, to);
  }

  /// body(first, count) for at most `most` of `all` at a time.
  template <class Body>
  void for_each_block(std::int64_t all, std::int64_t most, const Body& body) const {
    on_.run((all + most - 1) / most,
            [&](std::int64_t i) { body(i * most, (std::min)(most, all - i * most)); });
  }

  lora_adapter<S> lora_;
  std::int64_t rank_;  ///< padded
  const Gemm& multiply_;
  E& on_;
  matrix_view<R> a_, u_, q_;
  matrix_view<G> u_of_gradients_;
  R* b_ = nullptr;
  G* b_of_gradients_ = nullptr;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
