// Argument checks of the CPU back end: each throws std::invalid_argument with the name of the
// argument, before any work is done.
#pragma once

#include <prospect/batch.hpp>
#include <prospect/core/error.hpp>
#include <prospect/core/extent.hpp>
#include <prospect/core/isa.hpp>
#include <prospect/losses/parts/next_token.hpp>
#include <prospect/losses/reads.hpp>
#include <prospect/reference_point.hpp>

#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

[[noreturn]] inline void reject(std::string_view argument, std::string_view why) {
  prospect::detail::refuse(
      std::string{"prospect: "}.append(argument).append(" ").append(why).c_str());
}

/// What a check of memory found, if anything.
inline void describes_memory(std::string_view name, const char* problem) {
  if (problem != nullptr) reject(name, problem);
}

[[noreturn, gnu::cold, gnu::noinline]] inline void wrong_size(std::string_view name,
                                                              std::int64_t has,
                                                              std::int64_t needed) {
  reject(name,
         "has " + std::to_string(has) + " elements, " + std::to_string(needed) + " are needed");
}

/// A row that must be there, with exactly `size` elements.
template <class Row>
void require_row(std::string_view name, const Row& row, std::int64_t size) {
  if (row.size() != size) wrong_size(name, row.size(), size);
  describes_memory(name, prospect::detail::view_problem(row));
}

/// A row that may be left out.
template <class Row>
void optional_row(std::string_view name, const Row& row, std::int64_t size) {
  if (!row.empty()) require_row(name, row, size);
}

/// An output: optional, and each element a place of its own.
template <class Row>
void output_row(std::string_view name, const Row& row, std::int64_t size) {
  optional_row(name, row, size);
  if (row.size() > 1 && row.stride() == 0)
    reject(name, "has stride 0: every result would overwrite the last");
}

inline void token_counts(std::string_view name, strided_span<const std::int32_t> row,
                         std::int64_t size) {
  optional_row(name, row, size);
  for (std::int64_t i = 0; i < row.size(); ++i) {
    if (row[i] < 0) reject(name, "is negative at " + std::to_string(i));
  }
}

inline void parameters(const char* problem) {
  if (problem != nullptr) prospect::detail::refuse((std::string{"prospect: "} + problem).c_str());
}

inline void valid(const normaliser& by) {
  if (!by.valid()) reject("normaliser", "needs a positive, finite count");
}

template <class R>
constexpr R not_a_number = std::numeric_limits<R>::quiet_NaN();

/// An input by name, and whether the caller gave it.
struct given_row {
  std::string_view name;
  bool given;
};

/// Refuses a row that is missing but read. The formula is only asked when something is missing.
template <class Reads>
void require_if_read(std::initializer_list<given_row> rows, const Reads& reads,
                     std::string_view why) {
  for (const given_row& row : rows) {
    if (row.given) continue;
    if (reads()) reject(row.name, why);
    return;  // what is unread is unread in every row
  }
}

/// A missing reference is never a zero one.
template <class R, class L>
void reference_rows(const L& loss, std::initializer_list<given_row> rows) {
  require_if_read(
      rows, [&] { return reads_reference<R>(loss); },
      "is missing, and this loss reads the reference (a zero reference must be passed)");
}
template <class R, class L>
void tokens_rows(const L& loss, std::initializer_list<given_row> rows) {
  require_if_read(
      rows, [&] { return reads_tokens<R>(loss); },
      "is missing, and this loss averages over tokens");
}

/// A margin that a loss would drop is refused.
template <class R, class L>
void margin_row(const L& loss, bool given) {
  if (given && !reads_margin<R>(loss)) {
    reject("margin",
           "is given, and this loss does not read it (it must use log_ratio_margin() or "
           "mean_log_ratio_margin())");
  }
}

/// Completions that a loss regresses have targets, and no others.
template <class R, class L>
void target_row(const L& loss, bool given) {
  if (given == reads_target<R>(loss)) return;
  reject("target", given ? "is given, and this loss does not read it"
                         : "is missing, and this loss regresses on it");
}

/// What a call says about next-token terms.
struct given_next_tokens {
  bool policy, tokens, d_policy;  ///< of a third completion
  bool chosen_tokens;
};

/// A third completion that a loss would drop is refused, as one is that is missing; and a count of
/// pairs is no denominator of a mean over tokens.
inline void next_tokens(const next_token_term& term, const normaliser& by,
                        const given_next_tokens& given, std::string_view third,
                        std::string_view chosen_tokens) {
  if (given.policy && !term.third) reject(third, "is given, and this loss has no third completion");
  if (!given.policy) {
    if (given.tokens) reject("third_tokens", "is given, and there is no third completion");
    if (given.d_policy) reject("d_policy_third", "is given, and there is no third completion");
  }
  if (term.weight == 0) return;
  if (!by.knows_tokens()) {
    reject("normaliser",
           "counts pairs, and the next-token term of this loss is divided by tokens: say by "
           "tokens_over(count) how many (or set its weight to 0)");
  }
  if (term.third && !term.chosen && !given.policy)
    reject(third, "is missing, and this loss is over a third completion of each pair");
  if (!by.counts_tokens()) return;
  if (term.chosen && !given.chosen_tokens)
    reject(chosen_tokens, "is missing, and this loss has a next-token term, a mean over tokens");
  if (given.policy && !given.tokens)
    reject("third_tokens", "is missing, and this loss has a next-token term, a mean over tokens");
}

/// A point that R has a number for.
template <class R>
void finite_point(const reference_point& point) {
  using prospect::detail::is_finite;
  if (!is_finite(static_cast<R>(point.z)) || !is_finite(point.raw)) {
    reject("reference_point", "must be finite, z and raw");
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
