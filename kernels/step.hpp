// A whole step of the C API out of its parts, for the host and for the device: what the parts hand
// to each other lies in the caller's scratch.
#pragma once

#include "context.hpp"
#include "sides.hpp"
#include "tokens.hpp"

#include <array>

namespace prospect::kernels {

/// Pieces of the scratch of a step, one after the other.
class arena {
 public:
  explicit arena(void* memory) : memory_{static_cast<std::byte*>(memory)} {}

  void* take(std::size_t bytes) {
    constexpr std::size_t alignment = 256;
    std::byte* const here = memory_ + used_;
    used_ += (bytes + alignment - 1) / alignment * alignment;
    return here;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

/// The chosen, rejected and third ones of pairs, of which the last may be absent, and dL/dP of
/// each.
struct side_rows {
  std::array<prospect_row, 3> which{}, d{};
};

/// `Backend` names the parts of one back end, and how coefficients of pairs are added up where a
/// sequence may be in several.
template <class Backend>
class step_of {
 public:
  step_of(const prospect_step* step, typename Backend::metrics* metrics,
          const prospect_context* context)
      : step_{versioned(step, "step")},
        metrics_{metrics},
        context_{versioned_or_zero(context, "context")},
        tokens_{versioned(step_.tokens, "tokens")} {
    context_.struct_size = sizeof context_;
    tokens_.struct_size = sizeof tokens_;
    with_storage("logits", step_.logits.dtype,
                 [&]<class S>(S) { matrix<S>("logits", step_.logits); });
    const sequence_layout layout = layout_of(tokens_.layout);
    if (const char* why = layout.shape_problem(step_.logits.rows)) {
      fail(PROSPECT_INVALID_ARGUMENT, std::string{"layout "} + why);
    }
    sequences_ = layout.sequences();
    if ((step_.pairs == nullptr) == (step_.completions == nullptr)) {
      fail(PROSPECT_INVALID_ARGUMENT, "step must have either pairs or completions");
    }
    if (step_.reducer != nullptr) {
      reducer_ = versioned(step_.reducer, "reducer");
      not_given("reducer.log_prob", reducer_.log_prob);
    }
    if (step_.pairs != nullptr) {
      read_pairs();
    } else {
      read_completions();
    }
  }

  void run() {
    // Once without memory: how much the parts take, and what is wrong with what they are given.
    void* const nowhere = reinterpret_cast<void*>(std::uintptr_t{4096});  // aligned, and not null
    std::size_t inner = 0;
    prospect_context asking = context_;
    asking.scratch = nullptr;
    asking.query = &inner;
    const std::size_t own = parts(arena{nowhere}, asking, 0);
    if (context_.query != nullptr) return answer(context_, own + inner);
    check_scratch(context_, own + inner, Backend::scratch_alignment);
    parts(arena{context_.scratch}, context_, inner);
  }

 private:
  /// Rows that a step makes itself.
  static void not_given(const char* name, const prospect_row& r) {
    if (given(r)) {
      fail(PROSPECT_INVALID_ARGUMENT,
           std::string{name} + " must not be given: in a step it is made from the logits");
    }
  }

  void read_pairs() {
    pairs_ = versioned(step_.pairs, "pairs");
    not_given("policy_chosen", pairs_.policy_chosen);
    not_given("policy_rejected", pairs_.policy_rejected);
    not_given("policy", pairs_.policy);
    not_given("chosen_tokens", pairs_.chosen_tokens);
    not_given("rejected_tokens", pairs_.rejected_tokens);
    not_given("tokens", pairs_.tokens);
    not_given("d_policy_chosen", pairs_.d_policy_chosen);
    not_given("d_policy_rejected", pairs_.d_policy_rejected);
    not_given("d_policy", pairs_.d_policy);
    not_given("policy_third", pairs_.policy_third);
    not_given("third_tokens", pairs_.third_tokens);
    not_given("d_policy_third", pairs_.d_policy_third);
    if (given(pairs_.reference_chosen) || given(pairs_.reference_rejected)) {
      fail(PROSPECT_INVALID_ARGUMENT,
           "reference_chosen and reference_rejected are one row in a step: give reference");
    }
    if (given(pairs_.reference)) {
      check_row("reference", pairs_.reference);
      if (pairs_.reference.size != sequences_) {
        fail(PROSPECT_INVALID_ARGUMENT, "reference must have an element for each sequence");
      }
    }
    by_index_ = given(pairs_.chosen) || given(pairs_.rejected);
    if (by_index_) check_row("chosen", pairs_.chosen);
    if (!by_index_ && given(pairs_.third)) {
      fail(PROSPECT_INVALID_ARGUMENT, "third is beside chosen and rejected in a step: give them");
    }
    if (!by_index_ && sequences_ % 2 != 0) {
      fail(PROSPECT_INVALID_ARGUMENT, "layout has " + std::to_string(sequences_) +
                                          " sequences, which are no two halves of pairs");
    }
  }

  void read_completions() {
    completions_ = versioned(step_.completions, "completions");
    not_given("policy", completions_.policy);
    not_given("tokens", completions_.tokens);
    not_given("d_policy", completions_.d_policy);
  }

  /// The row that the caller wants to have, or one in the scratch.
  static prospect_row wanted(const prospect_row& theirs, arena& space, std::int64_t size,
                             std::int32_t dtype) {
    if (theirs.size != 0) return theirs;
    const std::size_t bytes = static_cast<std::size_t>(size) * prospect_dtype_size(dtype);
    return prospect_row_of(space.take(bytes), size, dtype);
  }

  /// All parts in order, on `inner` bytes of scratch of their own behind the rows in between.
  /// @returns the bytes of those rows.
  std::size_t parts(arena space, prospect_context on, std::size_t inner) const {
    const std::int64_t rows = step_.logits.rows;
    const std::int32_t real = step_.logits.dtype == PROSPECT_F64 ? PROSPECT_F64 : PROSPECT_F32;
    const prospect_row none{};
    const prospect_row log_prob = wanted(step_.token_log_prob, space, rows, real);
    const prospect_row lse = wanted(none, space, rows, PROSPECT_F64);
    const prospect_row d_token = wanted(none, space, rows, real);
    const prospect_row sums = wanted(step_.log_prob, space, sequences_, PROSPECT_F64);
    const prospect_row counts = wanted(step_.counts, space, sequences_, PROSPECT_I32);
    const prospect_row d = wanted(step_.d_sequence, space, sequences_, PROSPECT_F64);
    const std::int64_t pairs = by_index_ ? pairs_.chosen.size : 0;
    side_rows sides;
    if (by_index_) sides.which = {pairs_.chosen, pairs_.rejected, pairs_.third};
    for (std::size_t k = 0; k < sides.which.size(); ++k) {
      if (given(sides.which[k])) sides.d[k] = wanted(none, space, pairs, PROSPECT_F64);
    }
    const std::size_t own = space.used();
    if (inner != 0) on.scratch = space.take(inner);
    on.scratch_size = inner;

    prospect_error error{};
    const auto done = [&](prospect_status status) {
      if (status != PROSPECT_OK) throw failure{status, error.message};
    };
    prospect_token_results results{};
    results.struct_size = sizeof results;
    results.log_prob = log_prob;
    results.lse = lse;
    done(Backend::log_probs(step_.logits, &tokens_, &results, &on, &error));
    prospect_token_reducer reducer = reducer_;
    reducer.struct_size = sizeof reducer;
    reducer.log_prob = log_prob;
    const bool reduces = step_.reducer != nullptr;
    done(reduces ? Backend::reduced_sums(&tokens_, &reducer, sums, counts, &on, &error)
                 : Backend::sums(&tokens_, log_prob, sums, counts, &on, &error));
    if (step_.pairs != nullptr) {
      evaluate_pairs(sums, counts, d, sides, on);
    } else {
      prospect_completions c = completions_;
      c.struct_size = sizeof c;
      c.policy = sums;
      c.tokens = counts;
      c.d_policy = d;
      done(Backend::completions(step_.loss, &c, metrics_, &on, &error));
    }
    done(reduces ? Backend::reduced_spread(&tokens_, &reducer, d, d_token, &on, &error)
                 : Backend::spread(&tokens_, d, d_token, &on, &error));
    prospect_token_coefficients coefficients{};
    coefficients.struct_size = sizeof coefficients;
    coefficients.log_prob = log_prob;
    coefficients.lse = lse;
    coefficients.d_token = d_token;
    done(Backend::gradient(step_.logits, step_.logits, &tokens_, &coefficients, &on, &error));

    return own;
  }

  /// Coefficients of the sequences, from pairs that are halves or named by indices.
  void evaluate_pairs(const prospect_row& sums, const prospect_row& counts, const prospect_row& d,
                      const side_rows& sides, const prospect_context& on) const {
    prospect_pairs p = pairs_;
    p.struct_size = sizeof p;
    if (by_index_) {
      p.policy = sums;
      p.tokens = counts;
      p.d_policy_chosen = sides.d[0];
      p.d_policy_rejected = sides.d[1];
      p.d_policy_third = sides.d[2];
    } else {
      const std::int64_t n = sequences_ / 2;
      const auto halves = [n](const prospect_row& row, prospect_row& chosen,
                              prospect_row& rejected) {
        chosen = prospect_row_slice(row, 0, n);
        rejected = prospect_row_slice(row, n, n);
      };
      halves(sums, p.policy_chosen, p.policy_rejected);
      halves(counts, p.chosen_tokens, p.rejected_tokens);
      halves(d, p.d_policy_chosen, p.d_policy_rejected);
      if (given(p.reference)) halves(p.reference, p.reference_chosen, p.reference_rejected);
      p.reference = {};
    }
    prospect_error error{};
    const prospect_status status = Backend::pairs(step_.loss, &p, metrics_, &on, &error);
    if (status != PROSPECT_OK) throw failure{status, error.message};
    if (!by_index_) return;
    sides_of_pairs views;
    for (std::size_t k = 0; k < sides.which.size(); ++k) {
      views.which[k] = indices("a side of pairs", sides.which[k]);
      views.d[k] = row<const double>("its coefficient", sides.d[k]);
    }
    Backend::add_up(views, row<double>("d_sequence", d), on);
  }

  prospect_step step_;
  typename Backend::metrics* metrics_;
  prospect_context context_;
  prospect_tokens tokens_;
  std::int64_t sequences_ = 0;
  prospect_pairs pairs_{};
  prospect_completions completions_{};
  prospect_token_reducer reducer_{};
  bool by_index_ = false;
};

}  // namespace prospect::kernels
