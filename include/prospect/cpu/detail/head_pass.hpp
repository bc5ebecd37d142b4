// One chunk of tokens at a time through the head: logits tile by tile, what is summed of them, and
// gradients. Which chunks, and in what order, is the schedules' (head_schedules.hpp).
#pragma once

#include <prospect/cpu/detail/head_adapter.hpp>
#include <prospect/cpu/detail/head_batch.hpp>
#include <prospect/cpu/detail/head_logits.hpp>
#include <prospect/cpu/detail/head_plan.hpp>
#include <prospect/cpu/detail/head_products.hpp>
#include <prospect/cpu/detail/head_raised.hpp>
#include <prospect/cpu/detail/head_tiles.hpp>
#include <prospect/cpu/gemm.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// What the window of logits holds at the start of a backward pass.
enum class head_source {
  nothing,   ///< the logits are computed again, wave by wave
  logits,    ///< of the chunk, whole rows
  gradients  ///< of the log-probs, whole rows
};

/// Whether a token's gradient is made from that. One that was kept, of a log-prob, serves where it
/// has to be scaled alone.
template <std::floating_point R>
bool takes_part(const row_coefficients<R>& by, head_source from) {
  const bool scales = by.softmax == by.onehot && by.d_entropy == 0;
  return !by.none() && (scales || from != head_source::gradients);
}

template <class Products, class Gemm, executor E>
class head_pass {
 public:
  using S = typename Products::S;
  using L = typename Products::L;
  using G = typename Products::G;
  using R = typename Products::R;

  head_pass(matrix_view<const S> hidden, const lm_head<S>& head, index_row targets,
            const head_options& options, head_workspace<R>& workspace, const Gemm& multiply, E& on)
      : batch_{hidden,
               head,
               targets,
               options,
               prospect::cpu::detail::rows_at_once<Products>(multiply),
               workspace.bytes()},
        multiply_{multiply},
        on_{on},
        weight_{head.weight},
        adapter_{head.lora, multiply, on},
        logits_{batch_, weight_, adapter_, multiply_} {}

  const head_batch<Products>& batch() const { return batch_; }

  /// Starts on a chunk: hidden states gathered and widened. `logits`: where they are to lie, if not
  /// in `memory`: whole rows, one after the other.
  void begin(const head_plan& p, std::span<const std::int64_t> tokens, std::byte* memory,
             R* logits = nullptr) {
    buffers_ = batch_.sizes().carve(p, memory, logits != nullptr);
    tokens_ = tokens;
    wave_ = p.wave;
    rows_ = round_up(count(), row_multiple);
    logits_.begin(p, buffers_, count(), rows_, logits);
    for_each_row(rows_, width() * std::int64_t{sizeof(R)}, on_, [&](std::int64_t i) {
      if (i >= count()) return clear_hidden(i);
      const S* const from = batch_.hidden().row(token(i));
      copy_row(from, width(), buffers_.hidden + i * width());
      if (buffers_.wide_hidden == nullptr) return;
      copy_row(from, width(), buffers_.wide_hidden + i * width());
    });
    weight_.begin(buffers_.weight);
    adapter_.begin(buffers_, hidden<R>());
  }

  /// The chunk's log-probs. Where the window holds whole rows, the logits stay in it.
  void scores(const token_outputs<R>& out) {
    start_sums();
    for_each_wave([&](std::int64_t first, std::int64_t last) {
      sum_tiles(first, last, out.statistics(), [](std::int64_t, std::int64_t) {});
    });
    for (std::int64_t i = 0; i < count(); ++i) put_scores(out, token(i), finish(whole(i)));
  }

  /// dL/dlogits of the chunk times the head, and times the hidden states.
  void gradients(head_source from, strided_span<const R> log_prob, strided_span<const double> lse,
                 const coefficient_rows<R>& coefficients, const head_gradients<S>& g,
                 bool accumulate) {
    // A token without a coefficient takes no part, not even as 0 times NaN.
    for (std::int64_t i = 0; i < count(); ++i) {
      if (takes_part(coefficients[token(i)], from)) continue;
      clear_hidden(i);
      adapter_.leave_out(i);
    }
    const sums_wanted sums{.hidden = wanted(g.hidden),
                           .adapter = !adapter_.none() && (wanted(g.hidden) || wanted(g.lora_a))};
    for_each_wave([&](std::int64_t first, std::int64_t last) {
      on_.run(last - first, [&](std::int64_t k) {
        const std::int64_t tile = first + k;
        const bool makes = from == head_source::nothing;
        if (makes) logits_.make(tile, k, [](std::int64_t, const matrix_view<const R>&) {});
        const matrix_view<R> logits = tile_of_window(tile);
        const extremes<R> found = write_gradient(tile, logits, from, log_prob, lse, coefficients);
        add_to_head(tile, k, logits, found, g, accumulate);
        prepare(tile, k, sums, makes);
      });
      add_sums(first, last, sums, [](std::int64_t, const matrix_view<R>&, std::int64_t) {});
    });
    if (sums.adapter) {
      adapter_.finish(hidden<R>(), sums.hidden ? d_hidden() : std::vector<matrix_view<R>>{},
                      g.lora_a, accumulate);
    }
    if (sums.hidden) store_hidden(g.hidden);
  }

  /// Makes the logits in rows that are kept the gradients of their log-probs.
  void gradients_in_place(strided_span<const R> log_prob, strided_span<const double> lse) {
    for_each_row(rows_, batch_.sizes().row_bytes(), on_, [&](std::int64_t i) {
      R* const x = logits_.kept_row(i);
      if (i >= count()) {
        std::fill(x, x + batch_.vocabulary(), R(0));
      } else {
        gradient_row(x, x, batch_.vocabulary(), target(i), log_prob[token(i)], lse[token(i)],
                     {.softmax = R(-1), .onehot = R(-1)}, map(i));
      }
    });
  }

  // ---- what schedules and sums that are carried along are made of ----

  std::int64_t width() const { return batch_.width(); }
  std::int64_t rows() const { return rows_; }
  std::int64_t count() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t token(std::int64_t i) const { return tokens_[static_cast<std::size_t>(i)]; }
  std::int64_t target(std::int64_t i) const { return batch_.target(token(i)); }
  logit_map map(std::int64_t i) const { return batch_.map(token(i)); }
  template <storage T>
  matrix_view<const T> hidden() const {
    if constexpr (std::same_as<T, L>) {
      return {buffers_.hidden, rows_, width()};
    } else {
      return {buffers_.wide_hidden, rows_, width()};
    }
  }
  /// The hidden gradients, `block_columns` at a time: without gaps where GEMMs like that best.
  std::vector<matrix_view<R>> d_hidden() const {
    std::vector<matrix_view<R>> parts;
    for (std::int64_t first = 0; first < width(); first += block_columns) {
      const std::int64_t columns = (std::min)(block_columns, width() - first);
      parts.push_back(Products::arranges
                          ? matrix_view<R>{buffers_.d_hidden + first * rows_, rows_, columns}
                          : matrix_view<R>{buffers_.d_hidden + first, rows_, columns, width()});
    }
    return parts;
  }
  const head_adapter<Products, Gemm, E>& adapter() const { return adapter_; }
  carried_step<R>* steps() const { return buffers_.steps; }
  vocabulary_partial& whole(std::int64_t i) { return whole_[static_cast<std::size_t>(i)]; }
  E& on() const { return on_; }

  /// Where the i-th row of gradients is kept.
  R* kept_row(std::byte* memory, std::int64_t i) const {
    return reinterpret_cast<R*>(memory + i * batch_.sizes().row_bytes());
  }

  void start_sums() { whole_.assign(tokens_.size(), {}); }

  /// Row i's target as a column of a tile, or -1.
  std::int64_t column(std::int64_t i, std::int64_t tile) const {
    return column_of(target(i), tile * tile_columns, columns(tile));
  }

  /// body(first, last) for tiles [first, last) at a time.
  template <class Body>
  void for_each_wave(const Body& body) const {
    const std::int64_t tiles = batch_.sizes().tiles(batch_.vocabulary());
    for (std::int64_t first = 0; first < tiles; first += wave_) {
      body(first, (std::min)(tiles, first + wave_));
    }
  }

  matrix_view<R> tile_of_window(std::int64_t tile) const { return logits_.of_tile(tile); }

  /// Logits of tiles [first, last) and their sums, then `combined(k, i)` after the k-th of them
  /// joined the sums of row i.
  template <class F>
  void sum_tiles(std::int64_t first, std::int64_t last, bool statistics, const F& combined) {
    on_.run(last - first, [&](std::int64_t k) {
      const std::int64_t tile = first + k;
      logits_.make(tile, k, [&](std::int64_t first_row, const matrix_view<const R>& logits) {
        const std::int64_t here = (std::min)(logits.rows, count() - first_row);
        for (std::int64_t r = 0; r < here; ++r) {
          const std::int64_t i = first_row + r;
          buffers_.partials[k * rows_ + i] =
              sum_row(logits.row(r), logits.columns, column(i, tile), statistics, map(i));
        }
      });
    });
    constexpr std::int64_t as_of_bytes = 16384;  // a row of these: some sixty to a task
    for_each_row(count(), as_of_bytes, on_, [&](std::int64_t i) {
      for (std::int64_t k = 0; k < last - first; ++k) {
        const vocabulary_partial& p = buffers_.partials[k * rows_ + i];
        whole(i) = first + k == 0 ? p : combine(whole(i), p);
        combined(k, i);
      }
    });
  }

  /// A tile of gradients, the k-th of its wave, as it goes into products that are added to `sums`.
  matrix_view<G> for_products(std::int64_t tile, std::int64_t k, const extremes<R>& found,
                              std::initializer_list<matrix_view<R>> sums = {}) {
    bool& is_raised = raised_[static_cast<std::size_t>(k)];
    is_raised = worth_raising(found, std::span{sums.begin(), sums.size()});
    if (is_raised) scale_matrix(tile_of_window(tile), raised<R>::by);
    return narrow_in_place<G>(tile_of_window(tile));
  }

  /// What the gradients of logits are multiplied by and summed over the vocabulary.
  struct sums_wanted {
    bool hidden, adapter;  ///< times the weight, times the adapter's b
  };
  /// Has these in the k-th place of a wave. `made_logits`: they were there for its logits.
  void prepare(std::int64_t tile, std::int64_t k, const sums_wanted& which,
               bool made_logits) const {
    if (which.hidden) weight_.prepare(tile, k, made_logits);
    if (which.adapter) adapter_.prepare(tile, k, made_logits);
  }

  /// Adds gradients of tiles [first, last) times their rows of weight and b, tile by tile, so that
  /// neither chunk nor workspace shows in the order of the sum. Before the k-th of them joins sums
  /// that are there already, `joining(k, sums, i)` is called, whose first row is row i.
  template <class F>
  void add_sums(std::int64_t first, std::int64_t last, const sums_wanted& which,
                const F& joining) const {
    const auto pieces = [](std::int64_t all, std::int64_t most) { return (all + most - 1) / most; };
    const auto all_hidden = which.hidden ? d_hidden() : std::vector<matrix_view<R>>{};
    const auto of_hidden = static_cast<std::int64_t>(all_hidden.size());
    const std::int64_t of_adapter =
        which.adapter ? pieces(adapter_.sums().columns, block_columns) : 0;
    const std::int64_t across = of_hidden + of_adapter;
    const std::int64_t most_rows = rows_of_sums(across);
    on_.run(pieces(rows_, most_rows) * across, [&](std::int64_t i) {
      const std::int64_t row = i / across * most_rows;
      const std::int64_t rows = (std::min)(most_rows, rows_ - row);
      const std::int64_t piece = i % across;
      if (piece < of_hidden) {
        const matrix_view<R>& part = all_hidden[static_cast<std::size_t>(piece)];
        add_block(first, last, {row, piece * block_columns},
                  {part.row(row), rows, part.columns, part.pitch}, weight_, joining);
      } else {
        const matrix_view<R>& all = adapter_.sums();
        const std::int64_t column = (piece - of_hidden) * block_columns;
        add_block(first, last, {row, column},
                  {all.row(row) + column, rows, (std::min)(block_columns, all.columns - column),
                   all.pitch},
                  adapter_, joining);
      }
    });
  }

  /// The chunk's gradients, into its tokens' rows.
  void store_hidden(const matrix_view<S>& to) const {
    const std::vector<matrix_view<R>> parts = d_hidden();
    for_each_row(count(), width() * std::int64_t{sizeof(R)}, on_, [&](std::int64_t i) {
      S* row = to.row(token(i));
      for (const matrix_view<R>& part : parts) {
        for (std::int64_t j = 0; j < part.columns; ++j) *row++ = store<S>(part.row(i)[j]);
      }
    });
  }

 private:
  std::int64_t columns(std::int64_t tile) const { return logits_.columns(tile); }

  /// Where a block of sums begins.
  struct block_place {
    std::int64_t row, column;
  };
  /// `factor.tile(tile, k)` is what gradients are multiplied by.
  template <class Factor, class F>
  void add_block(std::int64_t first, std::int64_t last, block_place at, const matrix_view<R>& sums,
                 const Factor& factor, const F& joining) const {
    for (std::int64_t tile = first; tile < last; ++tile) {
      const std::int64_t k = tile - first;
      const matrix_view<G> gradient = fronts_of<G>(tile_of_window(tile));
      const matrix_view<const G> factors = factor.tile(tile, k);
      if (tile != 0) joining(k, sums, at.row);
      const matrix_view<const G> a{gradient.row(at.row), sums.rows, columns(tile), gradient.pitch};
      const gemm_operand<G> b{
          .matrix = {factors.data + at.column, factors.rows, sums.columns, factors.pitch}};
      with_raised(is_raised(k), sums, tile != 0, [&] {
        multiply_by_blocks<Products::arranges && arranging_gemm<Gemm, G>>(
            multiply_, a, b, tile != 0,
            [&](std::int64_t row, std::int64_t rows) {
              return matrix_view<R>{sums.row(row), rows, sums.columns, sums.pitch};
            },
            [](std::int64_t, const matrix_view<R>&) {});
      });
    }
  }
  /// Rows of sums that one thread works on at a time, where there are so many pieces of each: all
  /// that it can have, if what they are multiplied by has to be arranged for them.
  std::int64_t rows_of_sums(std::int64_t pieces) const {
    const std::int64_t threads = threads_of(on_);
    if (!Products::arranges || threads == 0 || pieces == 0) return block_rows;
    const std::int64_t down = (threads + pieces - 1) / pieces;
    return round_up((rows_ + down - 1) / down, row_multiple);
  }
  void clear_hidden(std::int64_t i) const {
    std::fill_n(buffers_.hidden + i * width(), width(), L{});
    if (buffers_.wide_hidden != nullptr) {
      std::fill_n(buffers_.wide_hidden + i * width(), width(), R(0));
    }
  }
  bool is_raised(std::int64_t k) const { return raised_[static_cast<std::size_t>(k)]; }

  /// What a tile of gradients, the k-th of its wave, adds to those of the head.
  void add_to_head(std::int64_t tile, std::int64_t k, const matrix_view<R>& whole,
                   const extremes<R>& found, const head_gradients<S>& g, bool accumulate) {
    if (!g.bias.empty()) add_bias(whole, g.bias, tile, accumulate);
    const auto part = [&](const matrix_view<R>& m) {
      return wanted(m) ? rows_of_tile(m, tile) : matrix_view<R>{};
    };
    const matrix_view<R> weight = part(g.weight);
    const matrix_view<R> b = part(g.lora_b);
    const matrix_view<G> gradient =
        accumulate ? for_products(tile, k, found, {weight, b}) : for_products(tile, k, found);
    if (wanted(weight)) {
      multiply_raised<G>(multiply_, is_raised(k), {.matrix = gradient, .transposed = true},
                         {.matrix = hidden<G>()}, weight, accumulate);
    }
    if (wanted(b)) adapter_.add_b(gradient, is_raised(k), b, accumulate);
  }

  /// Makes a tile of logits, or of unscaled gradients, that of the loss.
  extremes<R> write_gradient(std::int64_t tile, matrix_view<R> logits, head_source from,
                             strided_span<const R> log_prob, strided_span<const double> lse,
                             const coefficient_rows<R>& coefficients) const {
    extremes<R> found;
    for (std::int64_t i = 0; i < rows_; ++i) {
      R* const x = logits.row(i);
      const auto by = i < count() ? coefficients[token(i)] : row_coefficients<R>{0, 0};
      if (!takes_part(by, from)) {
        std::fill(x, x + logits.columns, R(0));
        continue;
      }
      if (from == head_source::gradients) {
        scale_row(x, logits.columns, -by.softmax);
      } else {
        gradient_row(x, x, logits.columns, column(i, tile), log_prob[token(i)], lse[token(i)], by,
                     map(i));
      }
      found.add(x, logits.columns);
    }
    return found;
  }

  static void add_bias(const matrix_view<R>& gradient, const strided_span<R>& bias,
                       std::int64_t tile, bool accumulate) {
    double sums[tile_columns] = {};
    for (std::int64_t i = 0; i < gradient.rows; ++i) {
      for (std::int64_t j = 0; j < gradient.columns; ++j) sums[j] += gradient.row(i)[j];
    }
    for (std::int64_t j = 0; j < gradient.columns; ++j) {
      R& to = bias[tile * tile_columns + j];
      to = static_cast<R>((accumulate ? to : R(0)) + sums[j]);
    }
  }

  prospect::detail::default_float_mode mode_;  // also for what runs between the tasks
  head_batch<Products> batch_;
  const Gemm& multiply_;
  E& on_;
  head_weight<Products> weight_;
  head_adapter<Products, Gemm, E> adapter_;
  chunk_logits<Products, Gemm, E> logits_;

  head_buffers<Products> buffers_;
  std::span<const std::int64_t> tokens_;
  std::int64_t rows_ = 0;
  std::int64_t wave_ = 0;
  std::array<bool, static_cast<std::size_t>(wave_tiles)> raised_{};  ///< tiles of a wave
  std::vector<vocabulary_partial> whole_;
};

/// body(pass), in the types that `multiply` takes.
template <storage S, gemm<compute_t<S>> Gemm, executor E, class Body>
auto with_pass(const matrix_view<const S>& hidden, const lm_head<S>& head, const index_row& targets,
               const head_options& options, head_workspace<compute_t<S>>& workspace,
               const Gemm& multiply, E& on, const Body& body) {
  return with_products<S>(multiply, [&]<class Products>(Products) {
    head_pass<Products, Gemm, E> pass{hidden, head, targets, options, workspace, multiply, on};
    return body(pass);
  });
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
