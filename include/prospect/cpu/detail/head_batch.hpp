// The whole batch that a head path was given: checked, and what schedules ask of it before and
// around the work on chunks (head_pass.hpp).
#pragma once

#include <prospect/cpu/detail/head_checks.hpp>
#include <prospect/cpu/detail/head_plan.hpp>
#include <prospect/layout.hpp>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

template <class Products>
class head_batch {
 public:
  using S = typename Products::S;

  head_batch(matrix_view<const S> hidden, const lm_head<S>& head, index_row targets,
             const head_options& options, std::int64_t rows_at_once, std::int64_t workspace)
      : hidden_{hidden},
        head_{head},
        options_{token_options_of(options)},
        rows_{check_head(hidden, head, targets, options_)},
        workspace_{workspace},
        sizes_{hidden.columns, head.weight.rows, head.lora.a.rows, rows_at_once, workspace} {}

  const matrix_view<const S>& hidden() const { return hidden_; }
  const lm_head<S>& head() const { return head_; }
  const token_options& options() const { return options_; }
  const head_sizes<Products>& sizes() const { return sizes_; }
  std::int64_t tokens() const { return hidden_.rows; }
  std::int64_t width() const { return hidden_.columns; }
  std::int64_t vocabulary() const { return head_.weight.rows; }
  std::int64_t target(std::int64_t token) const { return rows_.targets[token]; }
  logit_map map(std::int64_t token) const { return rows_.maps[token]; }

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
  head_plan plan(std::int64_t tokens, head_holds holds, std::int64_t kept_bytes = 0,
                 std::int64_t threads = 0) const {
    const head_plan p = sizes_.plan(tokens, holds, kept_bytes, threads);
    if (p.rows == 0) {
      reject_workspace(kept_bytes + sizes_.bytes({row_multiple, p.window, p.wave, holds}),
                       "at least");
    }
    return p;
  }
  [[noreturn]] void reject_workspace(std::int64_t needed, const std::string& what_for) const {
    reject("workspace", "of " + std::to_string(workspace_) + " bytes is too small: " +
                            std::to_string(needed) + " are needed " + what_for);
  }

  /// What a ticket remembers of this (FNV-1a).
  head_origin origin(std::span<const std::int64_t> scored) const {
    const lora_adapter<S>& lora = head_.lora;
    head_origin from{.hidden = hidden_.data,
                     .tokens = hidden_.rows,
                     .width = width(),
                     .hidden_pitch = pitch_of(hidden_),
                     .weight = head_.weight.data,
                     .vocabulary = vocabulary(),
                     .weight_pitch = pitch_of(head_.weight),
                     .bias = head_.bias.data(),
                     .lora_a = lora.a.data,
                     .lora_b = lora.b.data,
                     .rank = lora.a.rows,
                     .lora_a_pitch = pitch_of(lora.a),
                     .lora_b_pitch = pitch_of(lora.b),
                     .lora_scale = lora.empty() ? 0 : lora.scale,
                     .soft_cap = options_.soft_cap};
    const auto mix = [](std::uint64_t& hash, std::int64_t x) {
      hash = (hash ^ static_cast<std::uint64_t>(x)) * 0x100000001b3U;
    };
    for (const std::int64_t t : scored) {
      mix(from.targets, t);
      mix(from.targets, target(t));
      mix(from.temperatures, __builtin_bit_cast(std::int64_t, map(t).inverse_temperature));
    }
    return from;
  }

  /// What tokens without a gradient, and a batch without tokens, leave.
  void clear(const head_gradients<S>& g, bool any_tokens) const {
    const bool overwrites = !any_tokens && !g.accumulate;
    fill_rows(g.hidden, true);
    fill_rows(g.weight, overwrites);
    fill_rows(g.lora_a, overwrites);
    fill_rows(g.lora_b, overwrites);
    if (!overwrites) return;
    for (std::int64_t v = 0; v < g.bias.size(); ++v) g.bias[v] = 0;
  }

 private:
  void add_scored(std::int64_t first, std::int64_t last, std::vector<std::int64_t>& tokens) const {
    for (std::int64_t t = first; t < last; ++t) {
      if (target(t) != ignored_target) tokens.push_back(t);
    }
  }

  /// A matrix of one row has none.
  static std::int64_t pitch_of(const matrix_view<const S>& m) {
    return m.rows > 1 ? m.pitch : m.columns;
  }

  /// Makes every row 0, or its padding alone, as far as it is written.
  template <class T>
  void fill_rows(const matrix_view<T>& m, bool whole) const {
    const std::int64_t first = whole ? 0 : m.columns;
    const std::int64_t last = end_of_rows(m, options_);
    if (first == last) return;
    for (std::int64_t i = 0; i < m.rows; ++i) zero_columns(m, i, first, last);
  }

  matrix_view<const S> hidden_;
  lm_head<S> head_;
  token_options options_;
  checked_rows rows_;
  std::int64_t workspace_;
  head_sizes<Products> sizes_;
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
