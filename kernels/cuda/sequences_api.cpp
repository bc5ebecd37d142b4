// The C API on sequences on a device: arguments checked by name on the host, then the launchers.
#include "../sequences.hpp"

#include "../losses.hpp"
#include "context.hpp"
#include "denominator.hpp"
#include "launchers.hpp"

#include <prospect/cuda/checks.hpp>

namespace pk = prospect::kernels;

namespace {

using prospect::cuda::denominator;
using prospect::cuda::mismatched_batch;
using point_source = prospect::cuda::detail::point_source<prospect::mixed>;

static_assert(sizeof(prospect::paired_metrics) <= sizeof(prospect_device_metrics) &&
              sizeof(prospect::unpaired_metrics) <= sizeof(prospect_device_metrics));
static_assert(sizeof(prospect_observation) == sizeof(prospect::observation));

/// The same numbers on the device under the library's name; or nullptr.
prospect::observation* seen_at(prospect_observation* seen) {
  return reinterpret_cast<prospect::observation*>(seen);
}

point_source point_of(const prospect_completions& c) {
  switch (c.reference_point) {
    case PROSPECT_GIVEN_POINT:
      return pk::given_point(c);
    case PROSPECT_CROSS_CLASS:
      return prospect::cross_class{};
    case PROSPECT_OBSERVED:
      return prospect::cuda::observed_point{
          reinterpret_cast<const prospect::observation*>(&pk::require(c.observed, "observed"))};
    case PROSPECT_BATCH_MEAN:
      pk::mismatched_given(c);
      return mismatched_batch<>{
          .policy = pk::read_row("mismatched_policy", c.mismatched_policy),
          .reference = pk::read_row("mismatched_reference", c.mismatched_reference),
          .tokens = pk::counts("mismatched_tokens", c.mismatched_tokens),
          .observed = seen_at(c.seen)};
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "reference_point is unknown");
  }
}

/// Whether every row that is given is made of S.
template <prospect::storage S, class... Rows>
bool made_of(const Rows&... rows) {
  return (... && (rows.empty() || rows.type() == prospect::dtype_of<S>));
}
template <prospect::storage S>
bool made_of(const prospect::paired_batch<>& in, const prospect::paired_outputs<>& out) {
  return made_of<S>(in.policy_chosen, in.policy_rejected, in.reference_chosen,
                    in.reference_rejected, in.weight, in.margin, out.loss, out.d_policy_chosen,
                    out.d_policy_rejected, out.reward_chosen, out.reward_rejected);
}
template <prospect::storage S>
bool made_of(const prospect::unpaired_batch<>& in, const point_source& point,
             const prospect::unpaired_outputs<>& out) {
  return made_of<S>(in.policy, in.reference, in.weight, point.mismatched.policy,
                    point.mismatched.reference, out.loss, out.d_policy, out.reward);
}

template <prospect::storage S>
prospect::paired_batch<S> as(const prospect::paired_batch<>& in) {
  return {.policy_chosen = in.policy_chosen.as<S>(),
          .policy_rejected = in.policy_rejected.as<S>(),
          .reference_chosen = in.reference_chosen.as<S>(),
          .reference_rejected = in.reference_rejected.as<S>(),
          .chosen_tokens = in.chosen_tokens,
          .rejected_tokens = in.rejected_tokens,
          .weight = in.weight.as<S>(),
          .margin = in.margin.as<S>()};
}
template <prospect::storage S>
prospect::paired_outputs<S> as(const prospect::paired_outputs<>& out) {
  return {.loss = out.loss.as<S>(),
          .d_policy_chosen = out.d_policy_chosen.as<S>(),
          .d_policy_rejected = out.d_policy_rejected.as<S>(),
          .reward_chosen = out.reward_chosen.as<S>(),
          .reward_rejected = out.reward_rejected.as<S>()};
}
template <prospect::storage S>
prospect::unpaired_batch<S> as(const prospect::unpaired_batch<>& in) {
  return {.policy = in.policy.as<S>(),
          .reference = in.reference.as<S>(),
          .desirable = in.desirable,
          .tokens = in.tokens,
          .weight = in.weight.as<S>()};
}
template <prospect::storage S>
prospect::unpaired_outputs<S> as(const prospect::unpaired_outputs<>& out) {
  return {.loss = out.loss.as<S>(), .d_policy = out.d_policy.as<S>(), .reward = out.reward.as<S>()};
}
template <prospect::storage S>
prospect::cuda::detail::point_source<S> as(const point_source& point) {
  prospect::cuda::detail::point_source<S> source{point.given};
  source.kind = point.kind;
  source.observed = point.observed;
  source.mismatched = {.policy = point.mismatched.policy.as<S>(),
                       .reference = point.mismatched.reference.as<S>(),
                       .tokens = point.mismatched.tokens,
                       .observed = point.mismatched.observed};
  return source;
}

/// A batch in the kernel of its own loss and type where they have one, else in that for any.
cudaError_t launch(const prospect::any_paired& loss, const prospect::paired_batch<>& in,
                   const prospect::paired_outputs<>& out, const denominator& by,
                   prospect::paired_metrics* metrics, prospect::cuda::scratch space,
                   cudaStream_t stream) {
  const auto of = [&]<class S>(S) {
    return pk::sequence_launchers<S>::pairs(loss.as<prospect::dpo>(), as<S>(in), as<S>(out), by,
                                            metrics, space, stream);
  };
  if (loss.is<prospect::dpo>()) {
    if (made_of<float>(in, out)) return of(float{});
    if (made_of<double>(in, out)) return of(double{});
  }
  return prospect::detail::in_fp64(in)
             ? pk::mixed_launchers<double>::pairs(loss, in, out, by, metrics, space, stream)
             : pk::mixed_launchers<float>::pairs(loss, in, out, by, metrics, space, stream);
}
cudaError_t launch(const prospect::any_paired& loss, const prospect::indexed_pairs& in,
                   const prospect::indexed_outputs& out, const denominator& by,
                   prospect::paired_metrics* metrics, prospect::cuda::scratch space,
                   cudaStream_t stream) {
  return prospect::detail::in_fp64(prospect::detail::any_rows(in))
             ? pk::mixed_launchers<double>::pairs(loss, in, out, by, metrics, space, stream)
             : pk::mixed_launchers<float>::pairs(loss, in, out, by, metrics, space, stream);
}
cudaError_t launch(const prospect::any_unpaired& loss, const prospect::unpaired_batch<>& in,
                   const point_source& point, const prospect::unpaired_outputs<>& out,
                   const denominator& by, prospect::unpaired_metrics* metrics,
                   prospect::cuda::scratch space, cudaStream_t stream) {
  const auto of = [&]<class S>(S) {
    return pk::sequence_launchers<S>::completions(loss.as<prospect::kto>(), as<S>(in), as<S>(point),
                                                  as<S>(out), by, metrics, space, stream);
  };
  if (loss.is<prospect::kto>()) {
    if (made_of<float>(in, point, out)) return of(float{});
    if (made_of<double>(in, point, out)) return of(double{});
  }
  return prospect::cuda::detail::in_fp64(in, point)
             ? pk::mixed_launchers<double>::completions(loss, in, point, out, by, metrics, space,
                                                        stream)
             : pk::mixed_launchers<float>::completions(loss, in, point, out, by, metrics, space,
                                                       stream);
}

}  // namespace

prospect_status prospect_pairs_cuda(const prospect_loss* loss, const prospect_pairs* pairs,
                                    prospect_device_metrics* metrics,
                                    const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect_pairs p = pk::versioned(pairs, "pairs");
    pk::check_reserved("pairs", p.reserved);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        const denominator by = pk::denominator_of(p.normaliser, p.count, p.count_at);
        const auto evaluate = [&](const auto& in, const auto& out) {
          pk::check(prospect::cuda::problem(l, in, out, by));
          device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
            return launch(l, in, out, by, reinterpret_cast<prospect::paired_metrics*>(metrics),
                          space, stream);
          });
        };
        if (pk::by_index(p)) {
          evaluate(pk::indexed_batch_of(p), pk::indexed_outputs_of(p));
        } else {
          evaluate(pk::batch_of(p), pk::outputs_of(p));
        }
      } else {
        pk::wrong_kind(l.name(), "a paired");
      }
    });
  });
}

prospect_status prospect_completions_cuda(const prospect_loss* loss,
                                          const prospect_completions* completions,
                                          prospect_device_metrics* metrics,
                                          const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect_completions c = pk::versioned(completions, "completions");
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::unpaired_loss<L>) {
        const auto in = pk::batch_of(c);
        const auto out = pk::outputs_of(c);
        const denominator by = pk::denominator_of(c.normaliser, c.count, c.count_at);
        pk::check(prospect::cuda::problem(l, in, out, by));
        const point_source point = point_of(c);
        pk::check(prospect::cuda::detail::in_fp64(in, point)
                      ? prospect::cuda::problem<double>(point)
                      : prospect::cuda::problem<float>(point));
        device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
          return launch(l, in, point, out, by,
                        reinterpret_cast<prospect::unpaired_metrics*>(metrics), space, stream);
        });
      } else {
        pk::wrong_kind(l.name(), "an unpaired");
      }
    });
  });
}

prospect_status prospect_mismatched_kl_cuda(prospect_row policy, prospect_row reference,
                                            prospect_row tokens, prospect_observation* observed,
                                            const prospect_context* context,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const mismatched_batch<> batch{.policy = pk::read_row("policy", policy),
                                   .reference = pk::read_row("reference", reference),
                                   .tokens = pk::counts("tokens", tokens),
                                   .observed = seen_at(&pk::require(observed, "observed"))};
    using prospect::detail::is_fp64;
    const bool fp64 = is_fp64(batch.policy) || is_fp64(batch.reference);
    pk::check(fp64 ? prospect::cuda::problem<double>(batch)
                   : prospect::cuda::problem<float>(batch));
    device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
      return fp64 ? pk::mixed_launchers<double>::mismatched_kl(batch, space, stream)
                  : pk::mixed_launchers<float>::mismatched_kl(batch, space, stream);
    });
  });
}
