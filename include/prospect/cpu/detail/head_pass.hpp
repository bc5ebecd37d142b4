// One chunk of tokens at a time through the head: logits tile by tile, what is summed of them, and
// gradients. Which chunks, and in what order, is the schedules' (head_schedules.hpp).
#pragma once

#include <prospect/cpu/detail/head_checks.hpp>
#include <prospect/cpu/detail/head_plan.hpp>
#include <prospect/cpu/detail/head_raised.hpp>
#include <prospect/cpu/gemm.hpp>
#include <prospect/layout.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
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

template <storage S, gemm<compute_t<S>> Gemm, executor E>
class head_pass {
 public:
  using R = compute_t<S>;

  head_pass(matrix_view<const S> hidden, const lm_head<S>& head, index_row targets,
            const head_options& options, head_workspace<R>& workspace, const Gemm& multiply, E& on)
      : hidden_{hidden},
        head_{head},
        options_{token_options_of(options)},
        rows_of_tokens_{check_head(hidden, head, targets, options_)},
        workspace_{workspace},
        multiply_{multiply},
        on_{on},
        sizes_{hidden.columns, head.weight.rows, workspace.bytes()} {}

  // ---- the whole batch ----

  const head_sizes<S>& sizes() const { return sizes_; }
  const token_options& options() const { return options_; }
  std::int64_t vocabulary() const { return head_.weight.rows; }
  std::int64_t tokens() const { return hidden_.rows; }

  void check(const head_gradients<S>& g) const { check_gradients(g, hidden_, head_, options_); }

  /// The scored tokens, ascending.
  std::vector<std::int64_t> scored() const {
    std::vector<std::int64_t> tokens;
    add_scored(0, hidden_.rows, tokens);
    return tokens;
  }
  /// Those that belong to a sequence.
  std::vector<std::int64_t> scored(const sequence_layout& layout) const {
    std::vector<std::int64_t> tokens;
    for (std::int64_t i = 0; i < layout.sequences(); ++i) {
      add_scored(layout.begin(i), layout.end(i), tokens);
    }
    return tokens;
  }

  /// As `head_sizes::plan`, refused where the workspace is too small for any.
  head_plan plan(std::int64_t tokens, bool whole_rows, std::int64_t kept = 0) const {
    const head_plan p = sizes_.plan(tokens, whole_rows, kept);
    if (p.rows == 0) {
      reject_workspace(kept + sizes_.bytes({row_multiple, p.window, p.wave}), "at least");
    }
    return p;
  }
  [[noreturn]] void reject_workspace(std::int64_t needed, const std::string& what_for) const {
    reject("workspace", "of " + std::to_string(workspace_.bytes()) + " bytes is too small: " +
                            std::to_string(needed) + " are needed " + what_for);
  }

  /// What a ticket remembers of this (FNV-1a).
  head_origin origin(std::span<const std::int64_t> scored) const {
    head_origin from{.hidden = hidden_.data,
                     .tokens = hidden_.rows,
                     .width = width(),
                     .hidden_pitch = hidden_.rows > 1 ? hidden_.pitch : width(),
                     .weight = head_.weight.data,
                     .vocabulary = vocabulary(),
                     .weight_pitch = vocabulary() > 1 ? head_.weight.pitch : width(),
                     .bias = head_.bias.data(),
                     .soft_cap = options_.soft_cap};
    const auto mix = [](std::uint64_t& hash, std::int64_t x) {
      hash = (hash ^ static_cast<std::uint64_t>(x)) * 0x100000001b3U;
    };
    for (const std::int64_t t : scored) {
      mix(from.targets, t);
      mix(from.targets, targets()[t]);
      mix(from.temperatures,
          __builtin_bit_cast(std::int64_t, rows_of_tokens_.maps[t].inverse_temperature));
    }
    return from;
  }

  /// What tokens without a gradient, and a batch without tokens, leave.
  void clear(const head_gradients<S>& g, bool any_tokens) const {
    fill_rows(g.hidden, 0);
    const bool overwrites = !any_tokens && !g.accumulate;
    fill_rows(g.weight, overwrites ? 0 : width());
    if (!overwrites) return;
    for (std::int64_t v = 0; v < g.bias.size(); ++v) g.bias[v] = 0;
  }

  // ---- a chunk ----

  /// Starts on a chunk: hidden states gathered and widened. `logits`: where they are to lie, if not
  /// in `memory`.
  void begin(const head_plan& p, std::span<const std::int64_t> tokens, std::byte* memory,
             R* logits = nullptr) {
    buffers_ = sizes_.carve(p, memory, logits == nullptr);
    if (logits != nullptr) buffers_.logits = logits;
    tokens_ = tokens;
    window_ = p.window;
    wave_ = p.wave;
    rows_ = round_up(static_cast<std::int64_t>(tokens.size()), row_multiple);
    for_each_row(rows_, width() * std::int64_t{sizeof(R)}, on_, [&](std::int64_t i) {
      R* const to = buffers_.hidden + i * width();
      if (i >= count()) {
        std::fill(to, to + width(), R(0));
        return;
      }
      const S* const from = hidden_.row(token(i));
      for (std::int64_t j = 0; j < width(); ++j) to[j] = load(from[j]);
    });
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
      R* const row = buffers_.hidden + i * width();
      if (!takes_part(coefficients[token(i)], from)) std::fill(row, row + width(), R(0));
    }
    for_each_wave([&](std::int64_t first, std::int64_t last) {
      on_.run(last - first, [&](std::int64_t k) {
        const std::int64_t tile = first + k;
        const matrix_view<R> logits =
            from == head_source::nothing ? make_logits(tile, k) : tile_of_window(tile);
        const extremes<R> found = write_gradient(tile, logits, from, log_prob, lse, coefficients);
        add_to_head(tile, k, logits, found, g, accumulate);
        if (from != head_source::nothing && wanted(g.hidden)) weight_tile(tile, k);  // for below
      });
      if (wanted(g.hidden)) {
        add_hidden(first, last, [](std::int64_t, const matrix_view<R>&, std::int64_t) {});
      }
    });
    if (!wanted(g.hidden)) return;
    for (std::int64_t i = 0; i < count(); ++i) {
      S* const to = g.hidden.row(token(i));
      const R* const from_row = d_hidden(i);
      for (std::int64_t j = 0; j < width(); ++j) to[j] = store<S>(from_row[j]);
    }
  }

  /// Makes the chunk's whole rows of logits the gradients of their log-probs.
  void gradients_in_place(strided_span<const R> log_prob, strided_span<const double> lse) {
    for_each_row(rows_, sizes_.row_bytes(), on_, [&](std::int64_t i) {
      R* const x = buffers_.logits + i * sizes_.pitch(window_);
      if (i >= count()) {
        std::fill(x, x + vocabulary(), R(0));
      } else {
        gradient_row(x, x, vocabulary(), target(i), log_prob[token(i)], lse[token(i)],
                     {.softmax = R(-1), .onehot = R(-1)}, map(i));
      }
    });
  }

  // ---- what schedules and sums that are carried along are made of ----

  std::int64_t width() const { return hidden_.columns; }
  std::int64_t rows() const { return rows_; }
  std::int64_t count() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t token(std::int64_t i) const { return tokens_[static_cast<std::size_t>(i)]; }
  std::int64_t target(std::int64_t i) const { return targets()[token(i)]; }
  logit_map map(std::int64_t i) const { return rows_of_tokens_.maps[token(i)]; }
  const S* weight_of(std::int64_t v) const { return head_.weight.row(v); }
  const R* d_hidden(std::int64_t i) const { return buffers_.d_hidden + i * width(); }
  carried_step<R>* steps() const { return buffers_.steps; }
  vocabulary_partial& whole(std::int64_t i) { return whole_[static_cast<std::size_t>(i)]; }
  E& on() const { return on_; }

  /// Where the i-th row of gradients is kept.
  R* kept_row(std::byte* memory, std::int64_t i) const {
    return reinterpret_cast<R*>(memory + i * sizes_.row_bytes());
  }

  void start_sums() { whole_.assign(tokens_.size(), {}); }

  /// Row i's target as a column of a tile, or -1.
  std::int64_t column(std::int64_t i, std::int64_t tile) const {
    return column_of(target(i), tile * tile_columns, columns(tile));
  }

  /// body(first, last) for tiles [first, last) at a time.
  template <class Body>
  void for_each_wave(const Body& body) const {
    const std::int64_t tiles = sizes_.tiles(vocabulary());
    for (std::int64_t first = 0; first < tiles; first += wave_) {
      body(first, (std::min)(tiles, first + wave_));
    }
  }

  /// The window holds all tiles, or a wave of them.
  matrix_view<R> tile_of_window(std::int64_t tile) const {
    const std::int64_t first = (tile * tile_columns) % round_up(window_, tile_columns);
    return {buffers_.logits + first, rows_, columns(tile), sizes_.pitch(window_)};
  }

  /// Logits of tiles [first, last) and their sums, then `combined(k, i)` after the k-th of them
  /// joined the sums of row i.
  template <class F>
  void sum_tiles(std::int64_t first, std::int64_t last, bool statistics, const F& combined) {
    on_.run(last - first, [&](std::int64_t k) {
      const std::int64_t tile = first + k;
      const matrix_view<R> logits = make_logits(tile, k);
      for (std::int64_t i = 0; i < count(); ++i) {
        buffers_.partials[k * rows_ + i] =
            sum_row(logits.row(i), logits.columns, column(i, tile), statistics, map(i));
      }
    });
    for (std::int64_t k = 0; k < last - first; ++k) {
      for (std::int64_t i = 0; i < count(); ++i) {
        const vocabulary_partial& p = buffers_.partials[k * rows_ + i];
        whole(i) = first + k == 0 ? p : combine(whole(i), p);
        combined(k, i);
      }
    }
  }

  /// Before a tile of gradients, the k-th of its wave, goes into a product.
  void raise_if_tiny(std::int64_t tile, std::int64_t k, const extremes<R>& found,
                     const matrix_view<R>& sums = {}) {
    bool& is_raised = raised_[static_cast<std::size_t>(k)];
    is_raised = worth_raising(found, sums);
    if (is_raised) scale_matrix(tile_of_window(tile), raised<R>::by);
  }

  /// d_hidden += gradient of tiles [first, last) times their weights, tile by tile, so that neither
  /// chunk nor workspace shows in the order of the sum. Before the k-th of them joins sums that are
  /// there already, `joining(k, sums, i)` is called, whose first row is row i.
  template <class F>
  void add_hidden(std::int64_t first, std::int64_t last, const F& joining) const {
    const std::int64_t down = (rows_ + block_rows - 1) / block_rows;
    const std::int64_t across = (width() + block_columns - 1) / block_columns;
    on_.run(down * across, [&](std::int64_t i) {
      const std::int64_t row = i / across * block_rows;
      const std::int64_t column = i % across * block_columns;
      const std::int64_t rows = (std::min)(block_rows, rows_ - row);
      const std::int64_t width_here = (std::min)(block_columns, width() - column);
      const matrix_view<R> sums{buffers_.d_hidden + row * width() + column, rows, width_here,
                                width()};
      for (std::int64_t tile = first; tile < last; ++tile) {
        const matrix_view<R> gradient = tile_of_window(tile);
        const matrix_view<const R> weight = widened_tile(tile, tile - first);
        if (tile != 0) joining(tile - first, sums, row);
        multiply_raised(tile - first,
                        {.matrix = {gradient.row(row), rows, columns(tile), gradient.pitch}},
                        {.matrix = {weight.data + column, weight.rows, width_here, weight.pitch}},
                        sums, tile != 0);
      }
    });
  }

 private:
  static constexpr bool widens = head_sizes<S>::widens;

  const scored_targets& targets() const { return rows_of_tokens_.targets; }
  void add_scored(std::int64_t first, std::int64_t last, std::vector<std::int64_t>& tokens) const {
    for (std::int64_t t = first; t < last; ++t) {
      if (targets()[t] != ignored_target) tokens.push_back(t);
    }
  }

  std::int64_t columns(std::int64_t tile) const {
    return (std::min)(tile_columns, vocabulary() - tile * tile_columns);
  }
  /// Of a matrix with a row for each token of the vocabulary.
  template <class T>
  matrix_view<T> rows_of(const matrix_view<T>& m, std::int64_t tile) const {
    return {m.row(tile * tile_columns), columns(tile), m.columns, m.rows > 1 ? m.pitch : m.columns};
  }

  /// Makes every row 0 from column `first` to the last that is written.
  template <class T>
  void fill_rows(const matrix_view<T>& m, std::int64_t first) const {
    const std::int64_t last = end_of_rows(m, options_);
    if (first == last) return;
    for (std::int64_t i = 0; i < m.rows; ++i) zero_columns(m, i, first, last);
  }

  R* weight_place(std::int64_t k) const { return buffers_.weight + k * tile_columns * width(); }
  /// A tile of the weight in the type of arithmetic: where it is, or where it was widened to.
  matrix_view<const R> widened_tile(std::int64_t tile, std::int64_t k) const {
    if constexpr (widens) {
      return {weight_place(k), columns(tile), width(), width()};
    } else {
      static_cast<void>(k);
      return rows_of(head_.weight, tile);
    }
  }
  /// The same, widened into the k-th place now.
  matrix_view<const R> weight_tile(std::int64_t tile, std::int64_t k) const {
    if constexpr (widens) {
      const matrix_view<const S> w = rows_of(head_.weight, tile);
      R* const place = weight_place(k);
      for (std::int64_t v = 0; v < w.rows; ++v) {
        for (std::int64_t j = 0; j < width(); ++j) place[v * width() + j] = load(w.row(v)[j]);
      }
    }
    return widened_tile(tile, k);
  }

  /// What a tile of gradients, the k-th of its wave, adds to those of weight and bias.
  void add_to_head(std::int64_t tile, std::int64_t k, const matrix_view<R>& gradient,
                   const extremes<R>& found, const head_gradients<S>& g, bool accumulate) {
    if (!g.bias.empty()) add_bias(gradient, g.bias, tile, accumulate);
    if (!wanted(g.weight)) return raise_if_tiny(tile, k, found);
    const matrix_view<R> sums = rows_of(g.weight, tile);
    raise_if_tiny(tile, k, found, accumulate ? sums : matrix_view<R>{});
    multiply_raised(k, {.matrix = gradient, .transposed = true},
                    {.matrix = {buffers_.hidden, rows_, width(), width()}}, sums, accumulate);
  }

  /// c = a b, or c += a b, where `a` is of the k-th tile of a wave.
  void multiply_raised(std::int64_t k, const gemm_operand<R>& a, const gemm_operand<R>& b,
                       const matrix_view<R>& c, bool accumulate) const {
    const bool is_raised = raised_[static_cast<std::size_t>(k)];
    if (is_raised && accumulate) scale_matrix(c, raised<R>::by);
    multiply_(a, b, c, accumulate);
    if (is_raised) scale_matrix(c, raised<R>::back);
  }

  matrix_view<R> make_logits(std::int64_t tile, std::int64_t k) const {
    const matrix_view<R> logits = tile_of_window(tile);
    multiply_(gemm_operand<R>{.matrix = {buffers_.hidden, rows_, width(), width()}},
              gemm_operand<R>{.matrix = weight_tile(tile, k), .transposed = true}, logits, false);
    if (!head_.bias.empty()) {
      for (std::int64_t i = 0; i < count(); ++i) {
        for (std::int64_t j = 0; j < logits.columns; ++j) {
          logits.row(i)[j] += load(head_.bias[tile * tile_columns + j]);
        }
      }
    }
    return logits;
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
  matrix_view<const S> hidden_;
  lm_head<S> head_;
  token_options options_;
  checked_rows rows_of_tokens_;
  head_workspace<R>& workspace_;
  const Gemm& multiply_;
  E& on_;
  head_sizes<S> sizes_;

  head_buffers<R> buffers_;
  std::span<const std::int64_t> tokens_;
  std::int64_t rows_ = 0;
  std::int64_t window_ = 0;
  std::int64_t wave_ = 0;
  std::array<bool, static_cast<std::size_t>(wave_tiles)> raised_{};  ///< tiles of a wave
  std::vector<vocabulary_partial> whole_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
