// The frozen head: the gradients of log-probs by their hidden states while the logits pass by once.
//
//   dlogp_y/dh = (1 - p_y) w_y - sum over the others of p_j w_j
//
// where w_j is a row of the weight and, with an adapter, of scale b a as well: of the latter its
// row of b is summed, and multiplied by a once. The sums are carried along with e^(z - reference)
// for p, and shrink where a later tile of logits is so high that the reference has to be raised.
#pragma once

#include <prospect/cpu/detail/head_pass.hpp>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Works on the chunk that `pass` has begun.
template <class Products, class Gemm, executor E>
class carried_gradient {
 public:
  using S = typename Products::S;
  using R = typename Products::R;

  explicit carried_gradient(head_pass<Products, Gemm, E>& pass)
      : pass_{pass}, sums_(static_cast<std::size_t>(pass.count())) {}

  /// The chunk's log-probs, and the gradient of each in its row of `d_hidden`.
  void run(const token_outputs<R>& out, matrix_view<S> d_hidden) {
    const bool adapted = !pass_.adapter().none();
    const typename head_pass<Products, Gemm, E>::sums_wanted sums{.hidden = true,
                                                                  .adapter = adapted};
    pass_.start_sums();
    pass_.for_each_wave([&](std::int64_t first, std::int64_t last) {
      pass_.sum_tiles(first, last, out.statistics(),
                      [&](std::int64_t k, std::int64_t i) { step(k, i) = raise_reference(i); });
      pass_.on().run(last - first, [&](std::int64_t k) {
        pass_.for_products(first + k, k, write_others(first + k, k));
        pass_.prepare(first + k, k, sums, true);
      });
      pass_.add_sums(first, last, sums,
                     [&](std::int64_t k, const matrix_view<R>& block, std::int64_t row) {
                       shrink(k, block, row);
                     });
    });
    const std::vector<matrix_view<R>> parts = pass_.d_hidden();
    for_each_row(pass_.count(), pass_.width() * std::int64_t{sizeof(R)}, pass_.on(),
                 [&](std::int64_t i) { put(i, out, parts); });
    if (adapted) pass_.adapter().finish(pass_.template hidden<R>(), parts, {}, false);
    pass_.store_hidden(d_hidden);
  }

 private:
  static constexpr double none = -std::numeric_limits<double>::infinity();

  /// A row's sum: what its terms are relative to, and dz/dx of its target.
  struct carried_sum {
    double reference = none;
    double target_slope = 0;
  };
  carried_sum& carried(std::int64_t i) { return sums_[static_cast<std::size_t>(i)]; }
  carried_step<R>& step(std::int64_t k, std::int64_t i) const {
    return pass_.steps()[k * pass_.rows() + i];
  }

  /// Before the terms of row i that were summed last.
  carried_step<R> raise_reference(std::int64_t i) {
    constexpr double much_higher = 4;  // nats
    const vocabulary_partial& w = pass_.whole(i);
    double& reference = carried(i).reference;
    const double before = reference;
    if (w.exponentials == 0 || w.shift <= before + much_higher) return {before, R(1)};
    reference = w.shift;
    const auto by = static_cast<R>(std::exp(before - reference));
    return {reference, by < smallest_normal<R> ? R(0) : by};  // nothing is left either way
  }

  /// Makes a tile of logits, the k-th of its wave, e^(z - reference) dz/dx but for the targets.
  extremes<R> write_others(std::int64_t tile, std::int64_t k) {
    extremes<R> found;
    const matrix_view<R> logits = pass_.tile_of_window(tile);
    for (std::int64_t i = 0; i < pass_.rows(); ++i) {
      R* const x = logits.row(i);
      const bool is_token = i < pass_.count();
      const std::int64_t target = is_token ? pass_.column(i, tile) : -1;
      if (target >= 0) {
        carried(i).target_slope = pass_.map(i).slope(static_cast<double>(x[target]));
      }
      if (is_token && step(k, i).reference > none) {
        gradient_row(x, x, logits.columns, -1, R(0), step(k, i).reference,
                     {.softmax = R(1), .onehot = R(0)}, pass_.map(i));
      } else {
        std::fill(x, x + logits.columns, R(0));
      }
      if (target >= 0) x[target] = 0;
      found.add(x, logits.columns);
    }
    return found;
  }

  /// Makes a part of the sums, whose first row is row `first`, relative to what the k-th tile of a
  /// wave is relative to.
  void shrink(std::int64_t k, const matrix_view<R>& sums, std::int64_t first) const {
    for (std::int64_t i = 0; i < (std::min)(sums.rows, pass_.count() - first); ++i) {
      const R by = step(k, first + i).shrinks_to;
      if (by == 1) continue;
      scale_row(sums.row(i), sums.columns, by);
    }
  }

  /// Row i's scores, and its sums made those of its gradient.
  void put(std::int64_t i, const token_outputs<R>& out,
           const std::vector<matrix_view<R>>& d_hidden) {
    const vocabulary_partial& w = pass_.whole(i);
    const token_scores scores = finish(w);
    put_scores(out, pass_.token(i), scores);
    const auto [reference, target_slope] = carried(i);
    const auto own = static_cast<R>(
        -target_slope * gradient_at_target(w.target, scores.log_prob, scores.lse, 1, 1));
    const auto others =
        static_cast<R>(is_nan(scores.lse) ? scores.lse : std::exp(reference - scores.lse));
    const auto combine = [&](const S* of_target, const matrix_view<R>& sums) {
      R* const sum = sums.row(i);
      for (std::int64_t j = 0; j < sums.columns; ++j) {
        sum[j] = own * load(of_target[j]) - others * sum[j];
      }
    };
    const lm_head<S>& head = pass_.batch().head();
    const S* of_target = head.weight.row(pass_.target(i));
    for (const matrix_view<R>& part : d_hidden) {
      combine(of_target, part);
      of_target += part.columns;
    }
    if (head.lora.empty()) return;
    const matrix_view<R>& all = pass_.adapter().sums();
    combine(head.lora.b.row(pass_.target(i)), {all.data, all.rows, head.lora.b.columns, all.pitch});
  }

  head_pass<Products, Gemm, E>& pass_;
  std::vector<carried_sum> sums_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
