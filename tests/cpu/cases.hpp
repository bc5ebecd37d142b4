// Random batches in rows of any layout, with outputs full of poison: what the tests of phase 2
// start from.

#pragma once

#include <prospect/batch.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "cpu/rows.hpp"
#include "losses/textbook.hpp"
#include "random.hpp"

namespace testing {

using prospect::paired_batch;
using prospect::paired_outputs;
using prospect::unpaired_batch;
using prospect::unpaired_outputs;

/// Strides forwards, apart and backwards, from starts that are aligned to nothing.
inline placement any_placement(random_source& random) {
  constexpr std::int64_t strides[] = {1, 1, 2, 3, -1, -2};
  return {.offset = random.integer(0, 7), .stride = strides[random.integer(0, 5)]};
}

inline std::int32_t token_count(random_source& random, bool some_empty) {
  return static_cast<std::int32_t>(some_empty && random.chance(0.25) ? 0 : random.integer(1, 60));
}

/// n random pairs in rows of their own, and outputs full of poison.
template <class S>
struct paired_case {
  laid_out_row<S> policy_chosen, policy_rejected, reference_chosen, reference_rejected;
  laid_out_row<std::int32_t> chosen_tokens, rejected_tokens;
  laid_out_row<S> loss, d_chosen, d_rejected, reward_chosen, reward_rejected;

  paired_case(random_source& random, std::int64_t n, bool some_empty, bool spread_out = true)
      : paired_case(n, [&] { return spread_out ? any_placement(random) : placement{}; }) {
    for (std::int64_t i = 0; i < n; ++i) {
      for (auto* row : {&policy_chosen, &policy_rejected})
        (*row)[i] = stored<S>(random.normal(30) - 60);
      reference_chosen[i] = stored<S>(prospect::load(policy_chosen[i]) + random.normal(8));
      reference_rejected[i] = stored<S>(prospect::load(policy_rejected[i]) + random.normal(8));
      chosen_tokens[i] = token_count(random, some_empty);
      rejected_tokens[i] = token_count(random, some_empty);
    }
  }

  paired_batch<S> in() {
    return {.policy_chosen = policy_chosen.view(),
            .policy_rejected = policy_rejected.view(),
            .reference_chosen = reference_chosen.view(),
            .reference_rejected = reference_rejected.view(),
            .chosen_tokens = chosen_tokens.view(),
            .rejected_tokens = rejected_tokens.view()};
  }
  paired_outputs<S> out() {
    return {.loss = loss.view(),
            .d_policy_chosen = d_chosen.view(),
            .d_policy_rejected = d_rejected.view(),
            .reward_chosen = reward_chosen.view(),
            .reward_rejected = reward_rejected.view()};
  }
  std::vector<laid_out_row<S>*> outputs() {
    return {&loss, &d_chosen, &d_rejected, &reward_chosen, &reward_rejected};
  }
  bool counted(std::int64_t i) { return chosen_tokens[i] > 0 && rejected_tokens[i] > 0; }
  textbook_pair point(std::int64_t i) {
    const auto ratio = [](S policy, S reference) {
      return static_cast<real>(prospect::load(policy)) - prospect::load(reference);
    };
    return {ratio(policy_chosen[i], reference_chosen[i]),
            ratio(policy_rejected[i], reference_rejected[i]), static_cast<real>(chosen_tokens[i]),
            static_cast<real>(rejected_tokens[i])};
  }

 private:
  template <class Place>
  paired_case(std::int64_t n, const Place& place)
      : policy_chosen(n, place()),
        policy_rejected(n, place()),
        reference_chosen(n, place()),
        reference_rejected(n, place()),
        chosen_tokens(n, place()),
        rejected_tokens(n, place()),
        loss(n, place()),
        d_chosen(n, place()),
        d_rejected(n, place()),
        reward_chosen(n, place()),
        reward_rejected(n, place()) {}
};

template <class S>
struct unpaired_case {
  bool targets = false;  ///< whether the loss regresses on some: they are then the references
  laid_out_row<S> policy, reference;
  laid_out_row<std::uint8_t> desirable;
  laid_out_row<std::int32_t> tokens;
  laid_out_row<S> loss, d_policy, reward;

  unpaired_case(random_source& random, std::int64_t n, bool some_empty, bool spread_out = true)
      : unpaired_case(n, [&] { return spread_out ? any_placement(random) : placement{}; }) {
    for (std::int64_t i = 0; i < n; ++i) {
      policy[i] = stored<S>(random.normal(30) - 60);
      reference[i] = stored<S>(prospect::load(policy[i]) + random.normal(8));
      // Any bit pattern but 0 is a thumb up.
      desirable[i] = static_cast<std::uint8_t>(random.chance(0.5) ? random.integer(1, 255) : 0);
      tokens[i] = token_count(random, some_empty);
    }
  }

  unpaired_batch<S> in() {
    return {.policy = policy.view(),
            .reference = reference.view(),
            .desirable = desirable.view(),
            .tokens = tokens.view(),
            .target = targets ? reference.view() : prospect::strided_span<S>{}};
  }
  unpaired_outputs<S> out() {
    return {.loss = loss.view(), .d_policy = d_policy.view(), .reward = reward.view()};
  }
  std::vector<laid_out_row<S>*> outputs() { return {&loss, &d_policy, &reward}; }
  textbook_answer point(std::int64_t i, double z) {
    return {static_cast<real>(prospect::load(policy[i])) - prospect::load(reference[i]),
            desirable[i] != 0, z};
  }

 private:
  template <class Place>
  unpaired_case(std::int64_t n, const Place& place)
      : policy(n, place()),
        reference(n, place()),
        desirable(n, place()),
        tokens(n, place()),
        loss(n, place()),
        d_policy(n, place()),
        reward(n, place()) {}
};

/// Everything a call gives, as bits.
template <class S>
std::vector<S> all_outputs(auto& c) {
  std::vector<S> all;
  for (auto* row : c.outputs()) {
    const auto elements = row->elements();
    all.insert(all.end(), elements.begin(), elements.end());
  }
  return all;
}

bool same_metrics(const auto& a, const auto& b) {
  bool same = a.total == b.total && a.first_nonfinite == b.first_nonfinite;
  for (std::size_t k = 0; k < a.named().size(); ++k) {
    same = same && a.named()[k].value.sum == b.named()[k].value.sum &&
           a.named()[k].value.count == b.named()[k].value.count;
  }
  return same;
}

}  // namespace testing
