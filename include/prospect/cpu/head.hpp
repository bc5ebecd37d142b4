// Phases 1 and 3 from hidden states: log-probabilities and gradients through the LM head, without
// ever holding the logits. Chunks of tokens meet tiles of the vocabulary; the products are a
// GEMM's, what happens to a row of logits is the token functions'. Needs Eigen, and is therefore
// not part of prospect.hpp.
//
// Matrix products per call, in units of tokens x hidden x vocabulary multiply-adds:
//
//   head_log_probs                 1
//   head_log_probs_and_gradient    2      frozen head: coefficients are applied afterwards
//   head_gradient                  3      trained head, after head_log_probs: 4 in all, or
//                                         4 - f where a share f of the gradients was kept
//   head_step                      3      trained head, coefficients known as soon as the log-probs
//   of
//                                         a few sequences are
//
// Tokens that are not scored take no part in any product.
#pragma once

#include <prospect/cpu/gemm.hpp>
#include <prospect/cpu/tokens.hpp>

#include <cstddef>
#include <memory>
#include <new>
#include <span>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1::cpu {

/// The last layer of a language model: logits = hidden weight^T + bias.
template <storage S>
struct lm_head {
  matrix_view<const S> weight;   ///< [vocabulary, hidden], any pitch
  strided_span<const S> bias{};  ///< [vocabulary]; empty: none
};

/// As in `token_options`.
struct head_options {
  double temperature = 1;
  double soft_cap = std::numeric_limits<double>::infinity();
};

/// What a backward pass leaves; a part that is empty is neither written nor computed.
template <storage S>
struct head_gradients {
  matrix_view<S> hidden{};             ///< [tokens, hidden]
  matrix_view<compute_t<S>> weight{};  ///< [vocabulary, hidden]
  strided_span<compute_t<S>> bias{};   ///< [vocabulary]
  bool accumulate = false;             ///< add to weight and bias instead of overwriting them
};

/// Memory for the head path, allocated at its first use and never more than `bytes` (beside it only
/// the GEMM's own packing buffers and some bookkeeping, about 100 bytes per token). Keep it from
/// step to step; one call at a time. Between a forward and a backward pass it holds the gradients
/// that were kept.
template <std::floating_point R>
class head_workspace {
 public:
  explicit head_workspace(std::int64_t bytes) : bytes_{bytes} {}
  std::int64_t bytes() const noexcept { return bytes_; }
  /// How many tokens' gradients the last `head_log_probs` kept.
  std::int64_t kept() const noexcept { return kept_; }
  /// A number made of what they were computed from.
  std::uint64_t kept_for() const noexcept { return kept_for_; }

  /// The first `bytes` bytes, on a cache line.
  std::byte* memory(std::int64_t bytes) {
    if (bytes > allocated_) {
      memory_.reset();  // before the new one, so that there are never two
      memory_.reset(static_cast<std::byte*>(
          ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{line})));
      allocated_ = bytes;
      kept_ = 0;
    }
    return memory_.get();
  }
  void keep(std::int64_t tokens, std::uint64_t for_what = 0) noexcept {
    kept_ = tokens;
    kept_for_ = for_what;
  }

  static constexpr std::int64_t line = 64;

 private:
  struct release {
    void operator()(std::byte* p) const { ::operator delete(p, std::align_val_t{line}); }
  };
  std::int64_t bytes_;
  std::int64_t allocated_ = 0;
  std::int64_t kept_ = 0;
  std::uint64_t kept_for_ = 0;
  std::unique_ptr<std::byte, release> memory_;
};

namespace detail {

constexpr std::int64_t round_up(std::int64_t n, std::int64_t to) { return (n + to - 1) / to * to; }

/// Columns of one GEMM that makes logits. Fixed, because the sums of a row are combined tile by
/// tile: whatever the workspace, the log-probs are the same bits.
inline constexpr std::int64_t tile_columns = 1024;
/// Rows are padded with zeros to a multiple of this, so that every row takes the GEMM's main path
/// and its result does not depend on its neighbours. (Eigen's other path is for dimensions that add
/// up to less than 20.)
inline constexpr std::int64_t row_multiple = 24;
/// Tiles that are worked on before the threads meet.
inline constexpr std::int64_t wave_tiles = 16;
/// The part of the hidden gradient that one thread works on.
inline constexpr std::int64_t block_rows = 504;  // a multiple of row_multiple
inline constexpr std::int64_t block_columns = 512;

/// Which tokens a pass is about, and in how large chunks it goes through them.
struct head_plan {
  std::int64_t rows;    ///< in a chunk, a multiple of row_multiple
  std::int64_t window;  ///< columns of logits held at once
  std::int64_t wave;    ///< tiles the threads work on before they meet
};

template <storage S, gemm<compute_t<S>> Gemm, executor E>
class head_pass {
 public:
  using R = compute_t<S>;

  head_pass(matrix_view<const S> hidden, const lm_head<S>& head, index_row targets,
            const head_options& options, head_workspace<R>& workspace, const Gemm& multiply, E& on)
      : hidden_{hidden},
        head_{head},
        targets_{targets},
        map_{map_of({.temperature = options.temperature, .soft_cap = options.soft_cap})},
        workspace_{workspace},
        multiply_{multiply},
        on_{on} {
    check_matrix("hidden", hidden);
    check_matrix("head.weight", head.weight);
    if (head.weight.columns != hidden.columns) {
      reject("head.weight", "has " + std::to_string(head.weight.columns) + " columns, hidden has " +
                                std::to_string(hidden.columns));
    }
    optional_row("head.bias", head.bias, vocabulary());
    if (targets.size() != hidden.rows) {
      reject("targets", "has " + std::to_string(targets.size()) + " elements, hidden has " +
                            std::to_string(hidden.rows) + " rows");
    }
    check_indices("targets", targets, vocabulary());
  }

  void check_gradients(const head_gradients<S>& g) const {
    if (wanted(g.hidden)) {
      check_matrix("gradients.hidden", g.hidden);
      if (g.hidden.rows != hidden_.rows || g.hidden.columns != width()) {
        reject("gradients.hidden", "differs in size from hidden");
      }
      if (g.hidden.data == hidden_.data) reject("gradients.hidden", "must not be hidden itself");
    }
    if (wanted(g.weight)) {
      check_matrix("gradients.weight", g.weight);
      if (g.weight.rows != vocabulary() || g.weight.columns != width()) {
        reject("gradients.weight", "differs in size from head.weight");
      }
    }
    output_row("gradients.bias", g.bias, vocabulary());
  }

  /// Chunks of `tokens` tokens that fit into what is left of the workspace beside `kept` bytes.
  /// Whole rows of logits, or as many tiles as keep the threads busy, but rather more rows than
  /// more tiles.
  head_plan plan(std::int64_t tokens, bool whole_rows, std::int64_t kept = 0) const {
    const std::int64_t all = round_up(std::max<std::int64_t>(tokens, 1), row_multiple);
    const std::int64_t most = whole_rows ? all : std::min(max_rows, all);
    const std::int64_t room = workspace_.bytes() - kept;
    const auto rows_that_fit = [&](std::int64_t window) {
      std::int64_t rows = most;
      while (rows > 0 && bytes({rows, window, wave_of(window)}) > room) rows -= row_multiple;
      return rows;
    };
    if (!whole_rows) {
      for (std::int64_t tiles = wave_tiles; tiles > 1; tiles /= 2) {
        const std::int64_t window = std::min(tiles * tile_columns, vocabulary());
        const std::int64_t rows = rows_that_fit(window);
        if (rows >= std::min(most, good_rows)) return {rows, window, wave_of(window)};
      }
    }
    const std::int64_t window = whole_rows ? vocabulary() : std::min(tile_columns, vocabulary());
    const std::int64_t rows = rows_that_fit(window);
    if (rows <= 0) {
      reject_workspace(kept + bytes({row_multiple, window, wave_of(window)}), "at least");
    }
    return {rows, window, wave_of(window)};
  }

  [[noreturn]] void reject_workspace(std::int64_t needed, const std::string& what_for) const {
    reject("workspace", "of " + std::to_string(workspace_.bytes()) + " bytes is too small: " +
                            std::to_string(needed) + " are needed " + what_for);
  }

  /// Bytes of everything a chunk needs.
  std::int64_t bytes(const head_plan& p) const { return carve(p, nullptr).bytes; }

  /// Bytes of one row of logits that stays.
  std::int64_t row_bytes() const {
    return pitch(vocabulary()) * static_cast<std::int64_t>(sizeof(R));
  }

  /// Starts on a chunk: hidden states gathered and widened. `logits`: where they are to lie, if not
  /// in `memory`.
  void begin(const head_plan& p, std::span<const std::int64_t> tokens, std::byte* memory,
             R* logits = nullptr) {
    buffers_ = carve(p, memory, logits == nullptr);
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
      const S* const from = hidden_.row(tokens_[static_cast<std::size_t>(i)]);
      for (std::int64_t j = 0; j < width(); ++j) to[j] = load(from[j]);
    });
  }

  /// The chunk's log-probs. Where the window holds whole rows, the logits stay in it.
  void scores(const token_outputs<R>& out) {
    whole_.assign(static_cast<std::size_t>(count()), {});
    for_each_wave([&](std::int64_t first, std::int64_t last) {
      sum_tiles(first, last, out.statistics(), [](std::int64_t, std::int64_t) {});
    });
    for (std::int64_t i = 0; i < count(); ++i) put_scores(out, token(i), finish(whole(i)));
  }

  /// The chunk's log-probs and the gradients of each by its hidden state, while its logits pass by:
  ///
  ///   dlogp_y/dh = (1 - p_y) w_y - sum over the others of p_j w_j
  ///
  /// The sum is carried along with e^(z - reference) for p, and shrinks where a later tile of
  /// logits is so high that the reference has to be raised.
  void scores_and_gradients(const token_outputs<R>& out, matrix_view<S> d_hidden) {
    whole_.assign(static_cast<std::size_t>(count()), {});
    carried_.assign(static_cast<std::size_t>(count()), {});
    for_each_wave([&](std::int64_t first, std::int64_t last) {
      sum_tiles(first, last, out.statistics(),
                [&](std::int64_t k, std::int64_t i) { step(k, i) = raise_reference(i); });
      on_.run(last - first, [&](std::int64_t k) { write_others(first + k, k); });
      add_hidden(first, last, true);
    });
    for_each_row(count(), width() * std::int64_t{sizeof(R)}, on_,
                 [&](std::int64_t i) { put_carried(i, out, d_hidden.row(token(i))); });
  }

  /// dL/dlogits of the chunk times the head, and times the hidden states. `source` says what the
  /// window holds.
  enum class source {
    nothing,   ///< the logits are computed again, wave by wave
    logits,    ///< of the chunk, whole rows
    gradients  ///< of the log-probs, whole rows
  };
  void gradients(source from, strided_span<const R> log_prob, strided_span<const double> lse,
                 strided_span<const R> d_token, const head_gradients<S>& g, bool accumulate) {
    // A token without a coefficient takes no part, not even as 0 times NaN.
    for (std::int64_t i = 0; i < count(); ++i) {
      R* const row = buffers_.hidden + i * width();
      if (d_token[token(i)] == 0) std::fill(row, row + width(), R(0));
    }
    for_each_wave([&](std::int64_t first, std::int64_t last) {
      on_.run(last - first, [&](std::int64_t k) {
        const std::int64_t tile = first + k;
        const matrix_view<R> logits =
            from == source::nothing ? make_logits(tile, k) : tile_of_window(tile);
        write_gradient(tile, logits, from, log_prob, lse, d_token);
        if (wanted(g.weight)) {
          product({.matrix = logits, .transposed = true}, {.matrix = hidden_chunk()},
                  rows_of(g.weight, tile), accumulate);
        }
        if (!g.bias.empty()) add_bias(logits, g.bias, tile, accumulate);
        if (from != source::nothing && wanted(g.hidden)) weight_tile(tile, k);  // widened for below
      });
      if (wanted(g.hidden)) add_hidden(first, last);
    });
    if (!wanted(g.hidden)) return;
    for (std::int64_t i = 0; i < count(); ++i) {
      S* const to = g.hidden.row(token(i));
      const R* const from_row = buffers_.d_hidden + i * width();
      for (std::int64_t j = 0; j < width(); ++j) to[j] = store<S>(from_row[j]);
    }
  }

  /// Makes the chunk's whole rows of logits the gradients of their log-probs.
  void gradients_in_place(strided_span<const R> log_prob, strided_span<const double> lse) {
    for_each_row(rows_, row_bytes(), on_, [&](std::int64_t i) {
      R* const x = buffers_.logits + i * pitch(window_);
      if (i >= count()) {
        std::fill(x, x + vocabulary(), R(0));
      } else {
        gradient_row(x, x, vocabulary(), targets_[token(i)], log_prob[token(i)], lse[token(i)],
                     R(-1), R(-1), map_);
      }
    });
  }

  /// How many tokens' gradients the workspace can keep beside what a chunk needs.
  std::int64_t tokens_to_keep(std::int64_t tokens) const {
    const std::int64_t smallest = bytes({row_multiple, std::min(tile_columns, vocabulary()), 1});
    const head_plan comfortable{std::min(good_rows, round_up(tokens, row_multiple)),
                                std::min(4 * tile_columns, vocabulary()), 4};
    const std::int64_t chunk =
        std::max(smallest, std::min(bytes(comfortable), workspace_.bytes() / 4));
    const std::int64_t rows = (workspace_.bytes() - chunk) / row_bytes();
    return std::clamp<std::int64_t>(rows / row_multiple * row_multiple, 0, tokens);
  }
  std::int64_t kept_bytes(std::int64_t tokens) const {
    return round_up(round_up(tokens, row_multiple) * row_bytes(), head_workspace<R>::line);
  }
  R* kept_row(std::byte* memory, std::int64_t i) const {
    return reinterpret_cast<R*>(memory + i * row_bytes());
  }

  /// What tokens without a gradient, and a batch without tokens, leave.
  void clear(const head_gradients<S>& g, bool any_tokens) const {
    if (wanted(g.hidden)) {
      for (std::int64_t t = 0; t < hidden_.rows; ++t) {
        std::fill(g.hidden.row(t), g.hidden.row(t) + width(), store<S>(R(0)));
      }
    }
    if (any_tokens || g.accumulate) return;
    if (wanted(g.weight)) {
      for (std::int64_t v = 0; v < vocabulary(); ++v) {
        std::fill(g.weight.row(v), g.weight.row(v) + width(), R(0));
      }
    }
    for (std::int64_t v = 0; v < g.bias.size(); ++v) g.bias[v] = 0;
  }

  /// Tells batches apart: sizes, targets and where the weight lies (FNV-1a).
  std::uint64_t fingerprint() const {
    std::uint64_t hash = 0xcbf29ce484222325U;
    const auto mix = [&hash](std::uint64_t x) { hash = (hash ^ x) * 0x100000001b3U; };
    mix(static_cast<std::uint64_t>(vocabulary()));
    mix(static_cast<std::uint64_t>(width()));
    mix(static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(head_.weight.data)));
    mix(__builtin_bit_cast(std::uint64_t, map_.inverse_temperature));
    mix(__builtin_bit_cast(std::uint64_t, map_.soft_cap));
    for (std::int64_t t = 0; t < targets_.size(); ++t) {
      mix(static_cast<std::uint64_t>(targets_[t]));
    }
    return hash;
  }

  /// The most that a chunk may ever take.
  std::int64_t largest_chunk(std::int64_t tokens) const {
    const std::int64_t window = std::min(wave_tiles * tile_columns, vocabulary());
    return bytes({std::min(max_rows, round_up(tokens, row_multiple)), window, wave_of(window)});
  }

  std::vector<std::int64_t> scored() const {
    std::vector<std::int64_t> tokens;
    for (std::int64_t t = 0; t < targets_.size(); ++t) {
      if (targets_[t] != ignored_target) tokens.push_back(t);
    }
    return tokens;
  }

  std::int64_t vocabulary() const { return head_.weight.rows; }

 private:
  static constexpr std::int64_t max_rows = 4096;
  static constexpr std::int64_t good_rows = 512;
  static constexpr bool widens = !std::same_as<S, R>;

  static constexpr double none = -std::numeric_limits<double>::infinity();

  /// A row's sum in the hidden gradient: what its terms are relative to, and dz/dx of its target.
  struct carried_sum {
    double reference = none;
    double target_slope = 0;
  };
  /// What the terms of a row in a tile are relative to, and what that makes of those before them.
  struct carried_step {
    double reference;
    R shrinks_to;
  };

  struct buffers {
    R* hidden = nullptr;                     ///< [rows, width]
    R* d_hidden = nullptr;                   ///< [rows, width]
    R* logits = nullptr;                     ///< [rows, window]
    R* weight = nullptr;                     ///< [wave, width], where storage has to be widened
    vocabulary_partial* partials = nullptr;  ///< [wave, rows]
    carried_step* steps = nullptr;           ///< [wave, rows]
    std::int64_t bytes = 0;
  };

  /// The same code counts and hands out.
  buffers carve(const head_plan& p, std::byte* memory, bool own_logits = true) const {
    buffers b;
    const auto take = [&]<class T>(T*& pointer, std::int64_t n) {
      if (memory != nullptr) pointer = reinterpret_cast<T*>(memory + b.bytes);
      b.bytes = round_up(b.bytes + n * std::int64_t{sizeof(T)}, head_workspace<R>::line);
    };
    take(b.hidden, p.rows * width());
    take(b.d_hidden, p.rows * width());
    if (own_logits) take(b.logits, p.rows * pitch(p.window));
    if (widens) take(b.weight, p.wave * tile_columns * width());
    take(b.partials, p.wave * p.rows);
    take(b.steps, p.wave * p.rows);
    return b;
  }

  template <class T>
  static bool wanted(const matrix_view<T>& m) {
    return m.data != nullptr;
  }
  static std::int64_t tiles_of(std::int64_t columns) {
    return (columns + tile_columns - 1) / tile_columns;
  }
  static std::int64_t wave_of(std::int64_t window) {
    return std::min(wave_tiles, tiles_of(window));
  }
  std::int64_t width() const { return hidden_.columns; }
  /// Between rows of logits: not a multiple of a page, which would put all rows in the same cache
  /// set.
  static std::int64_t pitch(std::int64_t columns) { return round_up(columns, 16) + 16; }
  std::int64_t tiles() const { return tiles_of(vocabulary()); }
  std::int64_t count() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t token(std::int64_t i) const { return tokens_[static_cast<std::size_t>(i)]; }
  std::int64_t columns(std::int64_t tile) const {
    return std::min(tile_columns, vocabulary() - tile * tile_columns);
  }
  /// Row i's target as a column of a tile, or -1.
  std::int64_t column(std::int64_t i, std::int64_t tile) const {
    return column_of(targets_[token(i)], tile * tile_columns, columns(tile));
  }
  matrix_view<R> hidden_chunk() const { return {buffers_.hidden, rows_, width(), width()}; }
  template <class T>
  matrix_view<T> rows_of(const matrix_view<T>& m, std::int64_t tile) const {
    return {m.row(tile * tile_columns), columns(tile), m.columns, m.pitch};
  }

  /// Makes a tile of logits, or of unscaled gradients, that of the loss.
  void write_gradient(std::int64_t tile, matrix_view<R> logits, source from,
                      strided_span<const R> log_prob, strided_span<const double> lse,
                      strided_span<const R> d_token) const {
    for (std::int64_t i = 0; i < rows_; ++i) {
      R* const x = logits.row(i);
      const R d = i < count() ? d_token[token(i)] : R(0);
      if (d == 0) {
        std::fill(x, x + logits.columns, R(0));
      } else if (from == source::gradients) {
        scale_row(x, logits.columns, d);
      } else {
        gradient_row(x, x, logits.columns, column(i, tile), log_prob[token(i)], lse[token(i)], -d,
                     -d, map_);
      }
    }
  }

  carried_sum& carried(std::int64_t i) { return carried_[static_cast<std::size_t>(i)]; }
  carried_step& step(std::int64_t k, std::int64_t i) const { return buffers_.steps[k * rows_ + i]; }

  /// Before the terms of row i that were summed last.
  carried_step raise_reference(std::int64_t i) {
    constexpr double much_higher = 4;  // nats
    const vocabulary_partial& w = whole(i);
    double& reference = carried(i).reference;
    const double before = reference;
    if (w.exponentials == 0 || w.shift <= before + much_higher) return {before, R(1)};
    reference = w.shift;
    return {reference, static_cast<R>(std::exp(before - reference))};
  }

  /// Makes a tile of logits, the k-th of its wave, e^(z - reference) dz/dx but for the targets.
  void write_others(std::int64_t tile, std::int64_t k) {
    const matrix_view<R> logits = tile_of_window(tile);
    for (std::int64_t i = 0; i < rows_; ++i) {
      R* const x = logits.row(i);
      const std::int64_t target = i < count() ? column(i, tile) : -1;
      if (target >= 0) carried(i).target_slope = map_.slope(static_cast<double>(x[target]));
      if (i < count() && step(k, i).reference > none) {
        gradient_row(x, x, logits.columns, -1, R(0), step(k, i).reference, R(1), R(0), map_);
      } else {
        std::fill(x, x + logits.columns, R(0));
      }
      if (target >= 0) x[target] = 0;
    }
  }

  /// Makes a part of the hidden gradient, whose first row is row `first`, relative to what the
  /// k-th tile of a wave is relative to.
  void shrink(std::int64_t k, matrix_view<R> sums, std::int64_t first) const {
    for (std::int64_t i = 0; i < std::min(sums.rows, count() - first); ++i) {
      const R by = step(k, first + i).shrinks_to;
      if (by == 1) continue;
      R* const sum = sums.row(i);
      for (std::int64_t j = 0; j < sums.columns; ++j) sum[j] *= by;
    }
  }

  /// Row i's scores and its gradient, from its sums.
  void put_carried(std::int64_t i, const token_outputs<R>& out, S* d_hidden) {
    const vocabulary_partial& w = whole(i);
    const token_scores scores = finish(w);
    put_scores(out, token(i), scores);
    const auto [reference, target_slope] = carried(i);
    const auto own = static_cast<R>(
        -target_slope * gradient_at_target(w.target, scores.log_prob, scores.lse, 1, 1));
    const auto others =
        static_cast<R>(std::isnan(scores.lse) ? scores.lse : std::exp(reference - scores.lse));
    const S* const weight = head_.weight.row(targets_[token(i)]);
    const R* const sum = buffers_.d_hidden + i * width();
    for (std::int64_t j = 0; j < width(); ++j) {
      d_hidden[j] = store<S>(own * load(weight[j]) - others * sum[j]);
    }
  }

  /// The window holds all tiles, or a wave of them.
  matrix_view<R> tile_of_window(std::int64_t tile) const {
    const std::int64_t first = (tile * tile_columns) % round_up(window_, tile_columns);
    return {buffers_.logits + first, rows_, columns(tile), pitch(window_)};
  }

  /// body(first, last) for tiles [first, last) at a time.
  template <class Body>
  void for_each_wave(const Body& body) const {
    for (std::int64_t first = 0; first < tiles(); first += wave_) {
      body(first, std::min(tiles(), first + wave_));
    }
  }

  /// A tile of the weight in the type of arithmetic: where it is, or widened into the k-th place.
  matrix_view<const R> weight_tile(std::int64_t tile, std::int64_t k) const {
    const matrix_view<const S> w = rows_of(head_.weight, tile);
    if constexpr (!widens) {
      static_cast<void>(k);
      return w;
    } else {
      R* const place = buffers_.weight + k * tile_columns * width();
      for (std::int64_t v = 0; v < w.rows; ++v) {
        for (std::int64_t j = 0; j < width(); ++j) place[v * width() + j] = load(w.row(v)[j]);
      }
      return {place, w.rows, width(), width()};
    }
  }

  matrix_view<R> make_logits(std::int64_t tile, std::int64_t k) const {
    const matrix_view<R> logits = tile_of_window(tile);
    product({.matrix = hidden_chunk()}, {.matrix = weight_tile(tile, k), .transposed = true},
            logits, false);
    if (!head_.bias.empty()) {
      for (std::int64_t i = 0; i < count(); ++i) {
        for (std::int64_t j = 0; j < logits.columns; ++j) {
          logits.row(i)[j] += load(head_.bias[tile * tile_columns + j]);
        }
      }
    }
    return logits;
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

  /// Logits of tiles [first, last) and their sums, then `combined(k, i)` after the k-th of them
  /// joined the sums of row i.
  template <class F>
  void sum_tiles(std::int64_t first, std::int64_t last, bool statistics, const F& combined) {
    on_.run(last - first, [&](std::int64_t k) {
      const std::int64_t tile = first + k;
      const matrix_view<R> logits = make_logits(tile, k);
      for (std::int64_t i = 0; i < count(); ++i) {
        buffers_.partials[k * rows_ + i] =
            sum_row(logits.row(i), logits.columns, column(i, tile), statistics, map_);
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
  vocabulary_partial& whole(std::int64_t i) { return whole_[static_cast<std::size_t>(i)]; }

  /// d_hidden += gradient of tiles [first, last) times their weights, tile by tile, so that neither
  /// chunk nor workspace shows in the order of the sum. If it is carried, it shrinks before a tile
  /// that says so.
  void add_hidden(std::int64_t first, std::int64_t last, bool sum_is_carried = false) const {
    const std::int64_t down = (rows_ + block_rows - 1) / block_rows;
    const std::int64_t across = (width() + block_columns - 1) / block_columns;
    on_.run(down * across, [&](std::int64_t i) {
      const std::int64_t row = i / across * block_rows;
      const std::int64_t column = i % across * block_columns;
      const std::int64_t rows = std::min(block_rows, rows_ - row);
      const std::int64_t width_here = std::min(block_columns, width() - column);
      for (std::int64_t tile = first; tile < last; ++tile) {
        const matrix_view<R> gradient = tile_of_window(tile);
        const matrix_view<const R> weight = [&]() -> matrix_view<const R> {
          if constexpr (widens) {
            return {buffers_.weight + (tile - first) * tile_columns * width(), columns(tile),
                    width(), width()};
          } else {
            return rows_of(head_.weight, tile);
          }
        }();
        if (sum_is_carried && tile != 0) {
          shrink(tile - first,
                 {buffers_.d_hidden + row * width() + column, rows, width_here, width()}, row);
        }
        product({.matrix = {gradient.row(row), rows, columns(tile), gradient.pitch}},
                {.matrix = {weight.data + column, weight.rows, width_here, weight.pitch}},
                {buffers_.d_hidden + row * width() + column, rows, width_here, width()}, tile != 0);
      }
    });
  }

  void product(gemm_operand<R> a, gemm_operand<R> b, matrix_view<R> c, bool accumulate) const {
    multiply_(a, b, c, accumulate);
  }

  matrix_view<const S> hidden_;
  lm_head<S> head_;
  index_row targets_;
  logit_map map_;
  head_workspace<R>& workspace_;
  const Gemm& multiply_;
  E& on_;

  buffers buffers_;
  std::span<const std::int64_t> tokens_;
  std::int64_t rows_ = 0;
  std::int64_t window_ = 0;
  std::int64_t wave_ = 0;
  std::vector<vocabulary_partial> whole_;
  std::vector<carried_sum> carried_;
};

/// As many chunks as it takes, none of them much shorter than the others: each goes through the
/// whole head.
constexpr std::int64_t even_chunk(std::int64_t tokens, std::int64_t most) {
  const std::int64_t chunks = std::max<std::int64_t>((tokens + most - 1) / most, 1);
  return std::min(most, round_up((tokens + chunks - 1) / chunks, row_multiple));
}

template <class F>
void for_each_chunk(std::span<const std::int64_t> tokens, std::int64_t most_rows, const F& f) {
  const auto step =
      static_cast<std::size_t>(even_chunk(static_cast<std::int64_t>(tokens.size()), most_rows));
  for (std::size_t first = 0; first < tokens.size(); first += step) {
    f(tokens.subspan(first, std::min(step, tokens.size() - first)), first);
  }
}

template <std::floating_point R>
void zero_scores(const token_outputs<R>& out, index_row targets) {
  for (std::int64_t t = 0; t < targets.size(); ++t) {
    if (targets[t] == ignored_target) put_scores(out, t, {});
  }
}

/// Outputs with the two that gradients are made from, whether the caller wants them or not.
template <std::floating_point R>
class with_log_probs {
 public:
  with_log_probs(const token_outputs<R>& out, std::int64_t rows) : outputs{out} {
    const auto n = static_cast<std::size_t>(rows);
    if (out.log_prob.empty()) outputs.log_prob = log_prob_ = std::vector<R>(n);
    if (out.lse.empty()) outputs.lse = lse_ = std::vector<double>(n);
  }
  with_log_probs(const with_log_probs&) = delete;
  with_log_probs& operator=(const with_log_probs&) = delete;

  token_outputs<R> outputs;

 private:
  std::vector<R> log_prob_;
  std::vector<double> lse_;
};

template <storage S, class Coefficients, class Gemm, class E>
void head_rows_once(matrix_view<const S> hidden, const lm_head<S>& head, index_row targets,
                    const sequence_layout& layout, std::int64_t group,
                    const token_outputs<compute_t<S>>& out, const Coefficients& coefficients,
                    strided_span<const compute_t<S>> d_token, const head_gradients<S>& gradients,
                    head_workspace<compute_t<S>>& workspace, const head_options& options,
                    const Gemm& multiply, E& on) {
  using R = compute_t<S>;
  using source = typename head_pass<S, Gemm, E>::source;
  head_pass<S, Gemm, E> pass{hidden, head, targets, options, workspace, multiply, on};
  check_outputs(out, hidden.rows);
  check_layout(layout, targets);
  if (group < 1 || layout.sequences() % group != 0) {
    reject("group", "must divide the number of sequences");
  }
  pass.check_gradients(gradients);
  const std::vector<std::int64_t> scored = pass.scored();
  const auto n = static_cast<std::int64_t>(scored.size());
  const head_plan plan = pass.plan(n, true);

  // As many groups of sequences at a time as fit.
  struct part {
    std::int64_t first, last;  // sequences
    std::size_t taken, next;   // their scored tokens
  };
  std::vector<part> parts;
  const std::int64_t even = even_chunk(n, plan.rows);
  std::size_t next = 0;
  for (std::int64_t first = 0; first < layout.sequences(); first += group) {
    const std::size_t start = next;
    const std::int64_t last = first + group;
    while (next < scored.size() && scored[next] < layout.end(last - 1)) ++next;
    const bool joins = !parts.empty() &&
                       next - parts.back().taken <= static_cast<std::size_t>(plan.rows) &&
                       parts.back().next - parts.back().taken < static_cast<std::size_t>(even);
    if (joins) {
      parts.back().last = last;
      parts.back().next = next;
      continue;
    }
    const auto tokens = static_cast<std::int64_t>(next - start);
    if (tokens > plan.rows) {
      pass.reject_workspace(
          pass.bytes({round_up(tokens, row_multiple), plan.window, plan.wave}),
          "for sequences " + std::to_string(first) + " to " + std::to_string(last - 1));
    }
    parts.push_back({first, last, start, next});
  }

  zero_scores(out, targets);
  pass.clear(gradients, n > 0);
  workspace.keep(0);
  std::byte* const memory = workspace.memory(pass.bytes(plan));
  const with_log_probs<R> both{out, hidden.rows};
  const token_outputs<R>& needed = both.outputs;

  bool accumulate = gradients.accumulate;
  for (const part& p : parts) {
    const auto tokens = std::span<const std::int64_t>{scored}.subspan(p.taken, p.next - p.taken);
    if (!tokens.empty()) {
      pass.begin(plan, tokens, memory);
      pass.scores(needed);
    }
    coefficients(p.first, p.last);
    if (!tokens.empty()) {
      pass.gradients(source::logits, needed.log_prob, needed.lse, d_token, gradients, accumulate);
      accumulate = true;
    }
  }
}

}  // namespace detail

/// Log-probabilities of the target tokens from hidden states ([tokens, hidden]), as
/// `token_log_probs` gives them from logits.
///
/// @param keep_gradients whether `head_gradient` for the same tokens follows: as many tokens as the
///        workspace holds then need no second product with the head.
/// @throws std::invalid_argument for sizes that differ, a target outside the vocabulary, or a
///         workspace too small for a few tokens (the message says how large it must be).
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
void head_log_probs(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
                    index_row targets, const token_outputs<compute_t<S>>& out,
                    head_workspace<compute_t<S>>& workspace, bool keep_gradients = false,
                    const head_options& options = {}, const Gemm& multiply = {},
                    E& on = thread_pool::shared()) {
  using R = compute_t<S>;
  detail::head_pass<S, Gemm, E> pass{hidden, head, targets, options, workspace, multiply, on};
  detail::check_outputs(out, hidden.rows);
  const std::vector<std::int64_t> scored = pass.scored();
  const auto n = static_cast<std::int64_t>(scored.size());
  static_cast<void>(pass.plan(1, false));  // refuses a workspace that is too small
  detail::zero_scores(out, targets);
  workspace.keep(0);
  if (n == 0) return;

  std::int64_t kept = 0;
  if (keep_gradients) kept = pass.tokens_to_keep(n);
  const std::int64_t kept_bytes = pass.kept_bytes(kept);
  std::byte* const memory = workspace.memory(
      keep_gradients ? std::min(workspace.bytes(), kept_bytes + pass.largest_chunk(n))
                     : pass.bytes(pass.plan(n, false)));
  const std::span<const std::int64_t> all{scored};
  if (kept > 0) {
    const detail::with_log_probs<R> both{out, hidden.rows};
    const token_outputs<R>& needed = both.outputs;
    const detail::head_plan plan = pass.plan(kept, false, kept_bytes);
    detail::for_each_chunk(all.first(std::size_t(kept)), plan.rows, [&](auto chunk, auto first) {
      pass.begin({plan.rows, pass.vocabulary(), plan.wave}, chunk, memory + kept_bytes,
                 pass.kept_row(memory, std::int64_t(first)));
      pass.scores(needed);
      pass.gradients_in_place(needed.log_prob, needed.lse);
    });
  }
  if (kept < n) {
    const detail::head_plan plan = pass.plan(n - kept, false, kept_bytes);
    detail::for_each_chunk(all.subspan(std::size_t(kept)), plan.rows, [&](auto chunk, auto) {
      pass.begin(plan, chunk, memory + kept_bytes);
      pass.scores(out);
    });
  }
  workspace.keep(kept, pass.fingerprint());
}

/// The frozen head: log-probabilities, and in `d_hidden` ([tokens, hidden]) the gradient of each
/// token's log-prob by its hidden state, to be multiplied by the coefficients once they are known
/// (`scale_rows`). Rows whose target is -100 become 0.
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
void head_log_probs_and_gradient(matrix_view<const std::type_identity_t<S>> hidden,
                                 const lm_head<S>& head, index_row targets,
                                 const token_outputs<compute_t<S>>& out,
                                 matrix_view<std::type_identity_t<S>> d_hidden,
                                 head_workspace<compute_t<S>>& workspace,
                                 const head_options& options = {}, const Gemm& multiply = {},
                                 E& on = thread_pool::shared()) {
  if (d_hidden.data == nullptr && hidden.rows > 0) detail::reject("d_hidden", "is missing");
  detail::check_matrix("hidden", hidden);
  detail::head_pass<S, Gemm, E> pass{hidden, head, targets, options, workspace, multiply, on};
  detail::check_outputs(out, hidden.rows);
  const head_gradients<S> gradients{.hidden = d_hidden};
  pass.check_gradients(gradients);
  const std::vector<std::int64_t> scored = pass.scored();
  const auto n = static_cast<std::int64_t>(scored.size());
  const detail::head_plan plan = pass.plan(n, false);
  detail::zero_scores(out, targets);
  pass.clear(gradients, n > 0);
  workspace.keep(0);
  std::byte* const memory = workspace.memory(pass.bytes(plan));
  detail::for_each_chunk(std::span<const std::int64_t>{scored}, plan.rows, [&](auto chunk, auto) {
    pass.begin(plan, chunk, memory);
    pass.scores_and_gradients(out, d_hidden);
  });
}

/// A trained head, backward: the gradient of the loss by hidden states, weight and bias, from one
/// coefficient per token. `log_prob` and `lse` are what `head_log_probs` gave for the same
/// arguments. Logits are computed again, but for the tokens whose gradients `workspace` kept.
template <storage S, gemm<compute_t<S>> Gemm = eigen_gemm, executor E = thread_pool>
void head_gradient(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
                   index_row targets, strided_span<const compute_t<S>> log_prob,
                   strided_span<const double> lse, strided_span<const compute_t<S>> d_token,
                   const head_gradients<S>& gradients, head_workspace<compute_t<S>>& workspace,
                   const head_options& options = {}, const Gemm& multiply = {},
                   E& on = thread_pool::shared()) {
  using source = typename detail::head_pass<S, Gemm, E>::source;
  detail::head_pass<S, Gemm, E> pass{hidden, head, targets, options, workspace, multiply, on};
  detail::require_row("log_prob", log_prob, hidden.rows);
  detail::require_row("lse", lse, hidden.rows);
  detail::require_row("d_token", d_token, hidden.rows);
  pass.check_gradients(gradients);

  std::vector<std::int64_t> kept = pass.scored();
  if (workspace.kept() > 0 && workspace.kept_for() != pass.fingerprint()) {
    detail::reject("workspace", "keeps the gradients of another batch, head or options");
  }
  std::vector<std::int64_t> others;
  for (std::size_t i = std::size_t(workspace.kept()); i < kept.size(); ++i) {
    if (d_token[kept[i]] != 0) others.push_back(kept[i]);
  }
  kept.resize(std::size_t(workspace.kept()));
  const std::int64_t kept_bytes = pass.kept_bytes(workspace.kept());
  static_cast<void>(pass.plan(1, false, kept_bytes));  // refuses a workspace that is too small
  pass.clear(gradients, !kept.empty() || !others.empty());

  bool accumulate = gradients.accumulate;
  const auto run = [&](const std::vector<std::int64_t>& tokens, source from) {
    if (tokens.empty()) return;
    detail::head_plan plan = pass.plan(std::int64_t(tokens.size()), false, kept_bytes);
    std::byte* const memory = workspace.memory(kept_bytes + pass.bytes(plan));
    if (from == source::gradients) plan.window = pass.vocabulary();
    detail::for_each_chunk(
        std::span<const std::int64_t>{tokens}, plan.rows, [&](auto chunk, auto first) {
          pass.begin(
              plan, chunk, memory + kept_bytes,
              from == source::gradients ? pass.kept_row(memory, std::int64_t(first)) : nullptr);
          pass.gradients(from, log_prob, lse, d_token, gradients, accumulate);
          accumulate = true;
        });
  };
  // Once used they are scaled: a second call, or one after an exception, computes them again.
  workspace.keep(0);
  run(kept, source::gradients);
  run(others, source::nothing);
}

/// A trained head in one go, for losses whose coefficients are known as soon as the log-probs of a
/// few sequences are: a KL reference point given beforehand, a normaliser that is a number.
///
/// Goes through the batch in chunks of whole sequences, `group` of them at a time (2 for pairs that
/// stand next to each other): once the chunk's results are in `out`, which must take log_prob and
/// lse, `coefficients(first, last)` is called and writes what stands in `d_token` for the tokens of
/// sequences [first, last); then the chunk's gradients follow, its logits still in memory.
template <storage S, class Coefficients, gemm<compute_t<S>> Gemm = eigen_gemm,
          executor E = thread_pool>
  requires std::invocable<const Coefficients&, std::int64_t, std::int64_t>
void head_step(matrix_view<const std::type_identity_t<S>> hidden, const lm_head<S>& head,
               index_row targets, const sequence_layout& layout, std::int64_t group,
               const token_outputs<compute_t<S>>& out, const Coefficients& coefficients,
               strided_span<const compute_t<S>> d_token, const head_gradients<S>& gradients,
               head_workspace<compute_t<S>>& workspace, const head_options& options = {},
               const Gemm& multiply = {}, E& on = thread_pool::shared()) {
  detail::require_row("log_prob", out.log_prob, hidden.rows);
  detail::require_row("lse", out.lse, hidden.rows);
  detail::require_row("d_token", d_token, hidden.rows);
  detail::head_rows_once<S>(hidden, head, targets, layout, group, out, coefficients, d_token,
                            gradients, workspace, options, multiply, on);
}

}  // namespace prospect::inline v1::cpu
PROSPECT_STRICT_END
