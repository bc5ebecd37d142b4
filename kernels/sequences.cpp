// The C API on sequences: every loss of losses.def, every dtype, through the one `evaluate`.
#include "sequences.hpp"
#include "loops.hpp"
#include "losses.hpp"

#include <prospect/cpu/sequences.hpp>

#include <cmath>

namespace pk = prospect::kernels;

namespace {

prospect::normaliser normaliser_of(int32_t kind, double count, const double* count_at) {
  switch (kind) {
    case PROSPECT_OVER_AT:
      return normaliser_of(PROSPECT_OVER, pk::require(count_at, "count_at"), nullptr);
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

template <prospect::storage S, class L>
prospect::unpaired_metrics evaluate_completions(const L& loss, const prospect_completions& c) {
  const auto against = [&](const auto& point) {
    return prospect::cpu::detail::evaluate_completions(
        pk::loops<prospect::compute_t<S>, L>(), loss,
        prospect::detail::any_rows(pk::batch_of<S>(c)), point,
        prospect::detail::any_rows(pk::outputs_of<S>(c)),
        normaliser_of(c.normaliser, c.count, c.count_at), prospect::thread_pool::shared());
  };
  switch (c.reference_point) {
    case PROSPECT_GIVEN_POINT:
      return against(pk::given_point(c));
    case PROSPECT_CROSS_CLASS:
      return against(prospect::cross_class{});
    case PROSPECT_OBSERVED: {
      const prospect_sum_count& seen = pk::require(c.observed, "observed");
      return against(prospect::reference_point::from({.sum = seen.sum, .count = seen.count}));
    }
    case PROSPECT_BATCH_MEAN:
      return against(prospect::reference_point::from(prospect::cpu::mismatched_kl<S>(
          pk::in<S>("mismatched_policy", c.mismatched_policy),
          pk::in<S>("mismatched_reference", c.mismatched_reference),
          pk::in<std::int32_t>("mismatched_tokens", c.mismatched_tokens))));
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
    pk::check_metrics(metrics);
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        pk::with_storage(p.dtype, [&]<class S>(S) {
          pk::fill(metrics, prospect::cpu::detail::evaluate_pairs(
                                pk::loops<prospect::compute_t<S>, L>(), l,
                                prospect::detail::any_rows(pk::batch_of<S>(p)),
                                prospect::detail::any_rows(pk::outputs_of<S>(p)),
                                normaliser_of(p.normaliser, p.count, p.count_at),
                                prospect::thread_pool::shared()));
        });
      } else {
        pk::wrong_kind(l, "a paired");
      }
    });
  });
}

prospect_status prospect_completions_cpu(const prospect_loss* loss,
                                         const prospect_completions* completions,
                                         prospect_metrics* metrics, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_completions c = pk::versioned(completions, "completions");
    pk::check_metrics(metrics);
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::unpaired_loss<L>) {
        pk::with_storage(c.dtype,
                         [&]<class S>(S) { pk::fill(metrics, evaluate_completions<S>(l, c)); });
      } else {
        pk::wrong_kind(l, "an unpaired");
      }
    });
  });
}

prospect_status prospect_read_metrics(prospect_kind kind, const void* copied,
                                      prospect_metrics* metrics, prospect_error* error) {
  return pk::guard(error, [&] {
    const auto read_as = [&]<class Metrics>(Metrics m) {
      std::memcpy(&m, &pk::require(static_cast<const unsigned char*>(copied), "copied"), sizeof(m));
      pk::versioned(metrics, "metrics");
      pk::fill(metrics, m);
    };
    switch (kind) {
      case PROSPECT_PAIRED_LOSS:
        return read_as(prospect::paired_metrics{});
      case PROSPECT_UNPAIRED_LOSS:
        return read_as(prospect::unpaired_metrics{});
    }
    pk::fail(PROSPECT_UNSUPPORTED, "kind is unknown");
  });
}
