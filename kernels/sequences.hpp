// Sequences as the C API has them, as batches of the library; for the host and for the device.
#pragma once

#include "views.hpp"

#include <prospect/batch.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/reference_point.hpp>

namespace prospect::kernels {

[[noreturn]] inline void wrong_kind(std::string_view name, const char* kind) {
  fail(PROSPECT_INVALID_ARGUMENT, "loss: " + std::string{name} + " is not " + kind + " loss");
}

inline void out_of_place(const char* name, const prospect_row& r, const char* why) {
  if (given(r)) fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + " is given, " + why);
}

/// On the host.
inline normaliser normaliser_of(std::int32_t kind, double count, const double* count_at) {
  switch (kind) {
    case PROSPECT_OVER_AT:
      return normaliser_of(PROSPECT_OVER, require(count_at, "count_at"), nullptr);
    case PROSPECT_MEAN:
      return normaliser::mean();
    case PROSPECT_SUM:
      return normaliser::sum();
    case PROSPECT_OVER:
      if (!(count > 0)) fail(PROSPECT_INVALID_ARGUMENT, "count must be positive");
      return normaliser::over(count);
    default:
      fail(PROSPECT_UNSUPPORTED, "normaliser is unknown");
  }
}

/// Whether the pairs are named by indices into rows of sequences. Refuses rows of the other form:
/// they would not be read.
inline bool by_index(const prospect_pairs& p) {
  if (given(p.chosen) || given(p.rejected)) {
    constexpr const char* why = "but chosen and rejected are positions in rows of sequences";
    out_of_place("policy_chosen", p.policy_chosen, why);
    out_of_place("policy_rejected", p.policy_rejected, why);
    out_of_place("reference_chosen", p.reference_chosen, why);
    out_of_place("reference_rejected", p.reference_rejected, why);
    out_of_place("chosen_tokens", p.chosen_tokens, why);
    out_of_place("rejected_tokens", p.rejected_tokens, why);
    out_of_place("policy_third", p.policy_third, why);
    out_of_place("third_tokens", p.third_tokens, why);
    return true;
  }
  constexpr const char* why = "but chosen and rejected do not say which sequences are pairs";
  out_of_place("policy", p.policy, why);
  out_of_place("reference", p.reference, why);
  out_of_place("tokens", p.tokens, why);
  out_of_place("d_policy", p.d_policy, why);
  out_of_place("third", p.third, why);
  return false;
}

inline const_any_row read_row(const char* name, const prospect_row& r) {
  return real_row<const_any_row>(name, r);
}
inline any_row write_row(const char* name, const prospect_row& r) {
  return real_row<any_row>(name, r);
}
inline strided_span<const std::int32_t> counts(const char* name, const prospect_row& r) {
  return row<const std::int32_t>(name, r);
}

inline paired_batch<> batch_of(const prospect_pairs& p) {
  return {.policy_chosen = read_row("policy_chosen", p.policy_chosen),
          .policy_rejected = read_row("policy_rejected", p.policy_rejected),
          .reference_chosen = read_row("reference_chosen", p.reference_chosen),
          .reference_rejected = read_row("reference_rejected", p.reference_rejected),
          .chosen_tokens = counts("chosen_tokens", p.chosen_tokens),
          .rejected_tokens = counts("rejected_tokens", p.rejected_tokens),
          .weight = read_row("weight", p.weight),
          .margin = read_row("margin", p.margin),
          .policy_third = read_row("policy_third", p.policy_third),
          .third_tokens = counts("third_tokens", p.third_tokens)};
}
inline paired_outputs<> outputs_of(const prospect_pairs& p) {
  return {.loss = write_row("loss", p.loss),
          .d_policy_chosen = write_row("d_policy_chosen", p.d_policy_chosen),
          .d_policy_rejected = write_row("d_policy_rejected", p.d_policy_rejected),
          .reward_chosen = write_row("reward_chosen", p.reward_chosen),
          .reward_rejected = write_row("reward_rejected", p.reward_rejected),
          .d_policy_third = write_row("d_policy_third", p.d_policy_third)};
}

inline indexed_pairs indexed_batch_of(const prospect_pairs& p) {
  return {.policy = read_row("policy", p.policy),
          .reference = read_row("reference", p.reference),
          .tokens = counts("tokens", p.tokens),
          .chosen = indices("chosen", p.chosen),
          .rejected = indices("rejected", p.rejected),
          .weight = read_row("weight", p.weight),
          .margin = read_row("margin", p.margin),
          .third = indices("third", p.third)};
}
inline indexed_outputs indexed_outputs_of(const prospect_pairs& p) {
  return {.loss = write_row("loss", p.loss),
          .d_policy = write_row("d_policy", p.d_policy),
          .d_policy_chosen = write_row("d_policy_chosen", p.d_policy_chosen),
          .d_policy_rejected = write_row("d_policy_rejected", p.d_policy_rejected),
          .reward_chosen = write_row("reward_chosen", p.reward_chosen),
          .reward_rejected = write_row("reward_rejected", p.reward_rejected),
          .d_policy_third = write_row("d_policy_third", p.d_policy_third)};
}

/// Whether a count of tokens is given, on the host or as one of another place.
inline bool token_count_given(const prospect_pairs& p) {
  if (p.token_count == 0 && p.token_count_at == nullptr) return false;
  if (p.token_count != 0 && p.token_count_at != nullptr) {
    fail(PROSPECT_INVALID_ARGUMENT, "token_count and token_count_at are both given");
  }
  if (p.token_count_at == nullptr && !(p.token_count > 0)) {
    fail(PROSPECT_INVALID_ARGUMENT, "token_count must be positive");
  }
  return true;
}

/// The batches that AOT prepares: sides with rows of their own, or pairs among sequences.
inline paired_batch<> aot_batch_of(const prospect_pairs* pointer) {
  const prospect_pairs p = versioned(pointer, "pairs");
  check_reserved("pairs", p.reserved);
  if (by_index(p)) {
    fail(PROSPECT_INVALID_ARGUMENT, "chosen and rejected are given: AOT takes a row for each side");
  }
  return batch_of(p);
}
inline indexed_pairs aot_indexed_of(const prospect_pairs* pointer) {
  const prospect_pairs p = versioned(pointer, "pairs");
  check_reserved("pairs", p.reserved);
  // Rows of an empty batch may be given or not.
  if (!by_index(p) && given(p.policy_chosen)) {
    fail(PROSPECT_INVALID_ARGUMENT, "pairs.chosen and pairs.rejected are missing");
  }
  return indexed_batch_of(p);
}

inline unpaired_batch<> batch_of(const prospect_completions& c) {
  return {.policy = read_row("policy", c.policy),
          .reference = read_row("reference", c.reference),
          .desirable = row<const std::uint8_t>("desirable", c.desirable),
          .tokens = counts("tokens", c.tokens),
          .weight = read_row("weight", c.weight),
          .target = read_row("target", c.target)};
}
inline unpaired_outputs<> outputs_of(const prospect_completions& c) {
  return {.loss = write_row("loss", c.loss),
          .d_policy = write_row("d_policy", c.d_policy),
          .reward = write_row("reward", c.reward)};
}

inline void finite(const char* name, double x) {
  if (!detail::is_finite(x)) {
    fail(PROSPECT_INVALID_ARGUMENT, std::string{name} + " must be finite");
  }
}
inline sum_count finite_observation(const prospect_observation& seen) {
  finite("observed.sum", seen.sum);
  finite("observed.count", seen.count);
  if (seen.count < 0) fail(PROSPECT_INVALID_ARGUMENT, "observed.count is negative");
  return {.sum = seen.sum, .count = seen.count};
}
inline prospect_observation to_c(const observation& seen) {
  return {.sum = seen.sum,
          .count = seen.count,
          .nonfinite = seen.nonfinite,
          .first_nonfinite = seen.first_nonfinite};
}

inline reference_point given_point(const prospect_completions& c) {
  finite("z", c.z);
  finite("z_raw", c.z_raw);
  return {.z = c.z, .raw = c.z_raw};
}

/// Rows that were forgotten are no batch in which nothing was observed.
inline void mismatched_given(const prospect_completions& c) {
  if (!given(c.mismatched_policy) || !given(c.mismatched_reference)) {
    fail(PROSPECT_INVALID_ARGUMENT,
         "mismatched_policy and mismatched_reference are missing, and PROSPECT_BATCH_MEAN is their "
         "mean");
  }
}

}  // namespace prospect::kernels
