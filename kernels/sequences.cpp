// The C API on sequences: every loss of losses.def, every dtype, through the one `evaluate`.
#include "losses.hpp"

#include <prospect/cpu/sequences.hpp>

#include <cmath>
#include <cstddef>

namespace pk = prospect::kernels;

namespace {

prospect::normaliser normaliser_of(int32_t kind, double count) {
  switch (kind) {
    case PROSPECT_MEAN:
      return prospect::normaliser::mean();
    case PROSPECT_SUM:
      return prospect::normaliser::sum();
    case PROSPECT_OVER:
      if (!(count > 0)) pk::fail(PROSPECT_INVALID_ARGUMENT, "count must be positive");
      return prospect::normaliser::over(count);
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "normaliser is unknown");
  }
}

/// Writes as much as the caller's version of the struct can hold.
template <class Metrics>
void fill(prospect_metrics* target, const Metrics& source) {
  if (target == nullptr) return;
  prospect_metrics filled{};
  filled.struct_size = target->struct_size;
  filled.total = source.total;
  filled.first_nonfinite = source.first_nonfinite;
  const auto named = source.named();
  static_assert(named.size() <= std::extent_v<decltype(filled.metric)>);
  constexpr std::size_t before = offsetof(prospect_metrics, metric);
  const std::size_t room =
      target->struct_size < before ? 0 : (target->struct_size - before) / sizeof(prospect_metric);
  for (const prospect::named_metric& m : named) {
    if (static_cast<std::size_t>(filled.size) == room) break;
    filled.metric[filled.size++] = {
        .name = m.name.data(), .sum = m.value.sum, .count = m.value.count};
  }
  std::memcpy(target, &filled, std::min<std::size_t>(target->struct_size, sizeof(filled)));
}

void check_metrics(const prospect_metrics* metrics) {
  if (metrics != nullptr) pk::versioned(metrics, "metrics");
}

template <class L>
void wrong_kind(const L& loss, const char* kind) {
  pk::fail(PROSPECT_INVALID_ARGUMENT,
           "loss: " + std::string{loss.name} + " is not " + kind + " loss");
}

template <prospect::storage S>
prospect::paired_batch<S> batch_of(const prospect_pairs& p) {
  return {.policy_chosen = pk::in<S>("policy_chosen", p.policy_chosen),
          .policy_rejected = pk::in<S>("policy_rejected", p.policy_rejected),
          .reference_chosen = pk::in<S>("reference_chosen", p.reference_chosen),
          .reference_rejected = pk::in<S>("reference_rejected", p.reference_rejected),
          .chosen_tokens = pk::in<std::int32_t>("chosen_tokens", p.chosen_tokens),
          .rejected_tokens = pk::in<std::int32_t>("rejected_tokens", p.rejected_tokens)};
}

template <prospect::storage S>
prospect::paired_outputs<S> outputs_of(const prospect_pairs& p) {
  return {.loss = pk::out<S>("loss", p.loss),
          .d_policy_chosen = pk::out<S>("d_policy_chosen", p.d_policy_chosen),
          .d_policy_rejected = pk::out<S>("d_policy_rejected", p.d_policy_rejected),
          .reward_chosen = pk::out<S>("reward_chosen", p.reward_chosen),
          .reward_rejected = pk::out<S>("reward_rejected", p.reward_rejected)};
}

template <prospect::storage S>
prospect::unpaired_batch<S> batch_of(const prospect_completions& c) {
  return {.policy = pk::in<S>("policy", c.policy),
          .reference = pk::in<S>("reference", c.reference),
          .desirable = pk::in<std::uint8_t>("desirable", c.desirable),
          .tokens = pk::in<std::int32_t>("tokens", c.tokens)};
}

template <prospect::storage S>
prospect::unpaired_outputs<S> outputs_of(const prospect_completions& c) {
  return {.loss = pk::out<S>("loss", c.loss),
          .d_policy = pk::out<S>("d_policy", c.d_policy),
          .reward = pk::out<S>("reward", c.reward)};
}

template <prospect::storage S, class L>
prospect::unpaired_metrics evaluate_completions(const L& loss, const prospect_completions& c) {
  const prospect::normaliser by = normaliser_of(c.normaliser, c.count);
  switch (c.reference_point) {
    case PROSPECT_GIVEN_POINT:
      if (!std::isfinite(c.z) || !std::isfinite(c.z_raw)) {
        pk::fail(PROSPECT_INVALID_ARGUMENT, "z and z_raw must be finite");
      }
      return prospect::cpu::evaluate<S>(loss, batch_of<S>(c),
                                        prospect::reference_point{.z = c.z, .raw = c.z_raw},
                                        outputs_of<S>(c), by);
    case PROSPECT_CROSS_CLASS:
      return prospect::cpu::evaluate<S>(loss, batch_of<S>(c), prospect::cross_class{},
                                        outputs_of<S>(c), by);
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "reference_point is unknown");
  }
}

}  // namespace

prospect_status prospect_pairs_cpu(const prospect_loss* loss, const prospect_pairs* pairs,
                                   prospect_metrics* metrics, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_pairs p = pk::versioned(pairs, "pairs");
    pk::check_reserved("pairs", p.reserved);
    check_metrics(metrics);
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        pk::with_storage(p.dtype, [&]<class S>(S) {
          fill(metrics, prospect::cpu::evaluate<S>(l, batch_of<S>(p), outputs_of<S>(p),
                                                   normaliser_of(p.normaliser, p.count)));
        });
      } else {
        wrong_kind(l, "a paired");
      }
    });
  });
}

prospect_status prospect_completions_cpu(const prospect_loss* loss,
                                         const prospect_completions* completions,
                                         prospect_metrics* metrics, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_completions c = pk::versioned(completions, "completions");
    check_metrics(metrics);
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::unpaired_loss<L>) {
        pk::with_storage(c.dtype,
                         [&]<class S>(S) { fill(metrics, evaluate_completions<S>(l, c)); });
      } else {
        wrong_kind(l, "an unpaired");
      }
    });
  });
}
