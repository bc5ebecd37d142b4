// The C API on sequences: every loss of losses.def, rows of every dtype, in fp32 or fp64.
#include "sequences.hpp"

#include "context.hpp"
#include "loops.hpp"
#include "losses.hpp"
#include "metrics.hpp"

#include <prospect/cpu/sequences.hpp>

namespace pk = prospect::kernels;

namespace {

/// Calls `body` with a value of the type that arithmetic on a batch is done in.
template <class Batch, class Body>
auto with_arithmetic_of(const Batch& in, const Body& body) {
  return prospect::detail::in_fp64(in) ? body(double{}) : body(float{});
}

template <class L>
prospect::paired_metrics evaluate(const L& loss, const prospect_pairs& p,
                                  const pk::host_context& host) {
  const prospect::normaliser by = pk::normaliser_of(p.normaliser, p.count, p.count_at);
  const auto evaluated = [&](const auto& in, const auto& out) {
    return with_arithmetic_of(prospect::detail::any_rows(in), [&]<class R>(R) {
      return prospect::cpu::detail::evaluate_pairs(pk::loops<R, L>(), loss, in, out, by, host.on);
    });
  };
  return pk::by_index(p) ? evaluated(pk::indexed_batch_of(p), pk::indexed_outputs_of(p))
                         : evaluated(pk::batch_of(p), pk::outputs_of(p));
}

prospect::observation observe(const prospect_completions& c, const pk::host_context& host) {
  pk::mismatched_given(c);
  return prospect::cpu::mismatched_kl(pk::read_row("mismatched_policy", c.mismatched_policy),
                                      pk::read_row("mismatched_reference", c.mismatched_reference),
                                      pk::counts("mismatched_tokens", c.mismatched_tokens),
                                      host.on);
}

template <class L>
prospect::unpaired_metrics evaluate(const L& loss, const prospect_completions& c,
                                    const pk::host_context& host) {
  const prospect::unpaired_batch<> in = pk::batch_of(c);
  const prospect::unpaired_outputs<> out = pk::outputs_of(c);
  const prospect::normaliser by = pk::normaliser_of(c.normaliser, c.count, c.count_at);
  const auto against = [&](const auto& point) {
    return with_arithmetic_of(in, [&]<class R>(R) {
      return prospect::cpu::detail::evaluate_completions(pk::loops<R, L>(), loss, in, point, out,
                                                         by, host.on);
    });
  };
  switch (c.reference_point) {
    case PROSPECT_GIVEN_POINT:
      return against(pk::given_point(c));
    case PROSPECT_CROSS_CLASS:
      return against(prospect::cross_class{});
    case PROSPECT_OBSERVED:
      return against(prospect::reference_point::from(
          pk::finite_observation(pk::require(c.observed, "observed"))));
    case PROSPECT_BATCH_MEAN: {
      const prospect::observation seen = observe(c, host);
      const prospect::unpaired_metrics metrics = against(prospect::reference_point::from(seen));
      if (c.seen != nullptr) *c.seen = pk::to_c(seen);
      return metrics;
    }
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "reference_point is unknown");
  }
}

}  // namespace

prospect_status prospect_pairs_cpu(const prospect_loss* loss, const prospect_pairs* pairs,
                                   prospect_metrics* metrics, const prospect_context* context,
                                   prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const prospect_pairs p = pk::versioned(pairs, "pairs");
    pk::check_reserved("pairs", p.reserved);
    pk::check_metrics(metrics);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        if (!host.asked()) pk::fill(metrics, evaluate(l, p, host));
      } else {
        pk::wrong_kind(l.name(), "a paired");
      }
    });
  });
}

prospect_status prospect_completions_cpu(const prospect_loss* loss,
                                         const prospect_completions* completions,
                                         prospect_metrics* metrics, const prospect_context* context,
                                         prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const prospect_completions c = pk::versioned(completions, "completions");
    pk::check_metrics(metrics);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::unpaired_loss<L>) {
        if (!host.asked()) pk::fill(metrics, evaluate(l, c, host));
      } else {
        pk::wrong_kind(l.name(), "an unpaired");
      }
    });
  });
}

prospect_status prospect_mismatched_kl_cpu(prospect_row policy, prospect_row reference,
                                           prospect_row tokens, prospect_observation* observed,
                                           const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    pk::require(observed, "observed");
    if (host.asked()) return;
    *observed = pk::to_c(prospect::cpu::mismatched_kl(pk::read_row("policy", policy),
                                                      pk::read_row("reference", reference),
                                                      pk::counts("tokens", tokens), host.on));
  });
}
