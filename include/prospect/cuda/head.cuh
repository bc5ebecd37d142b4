// Phases 1 and 3 from hidden states on CUDA: log-probabilities and gradients through the LM head,
// without ever holding the logits. The twins of cpu/head.hpp. The products are a GEMM's, what
// happens to a row of logits is the token functions'; logits are fp32 and exist for a chunk of
// tokens.
//
// Matrix products per call, in units of tokens x hidden x vocabulary multiply-adds:
//
//   head_log_probs                 1
//   head_vocabulary_partials       1   of a part of the vocabulary
//   head_log_probs_and_gradient    2   frozen head: coefficients are applied afterwards
//   head_gradient                  3   trained head, after head_log_probs: 4 in all, or 4 - f where
//                                      a share f of the gradients was kept
//   head_step                      3   trained head in one go: for losses whose coefficients are
//                                      known as soon as the log-probs of a few sequences are
//
// Everything lies on the device, and how many tokens are scored only the device knows: the host
// states `scored_at_most`, and that many are worked on. More than that make every output NaN, and
// `scored` says how many there were.
//
// A call works in the memory that it is given, as much of it as is of use; the more, the larger the
// chunks. Log-probs are the same bits whatever it is. Nothing is allocated, waited for or read
// back, and a call can be captured in a graph. Answers are cudaErrorInvalidValue where the host can
// see that a call makes no sense (`problem` says why), and what a launch or the GEMM returned.
#pragma once

#include <prospect/cuda/detail/head_pass.cuh>
#include <prospect/cuda/head_checks.hpp>

#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

namespace detail {

template <logits_storage S>
static head_sizes sizes_of(const head_rows<S>& rows) {
  return {.tokens = rows.hidden.rows,
          .scored_at_most = rows.scored_at_most,
          .width = rows.hidden.columns,
          .vocabulary = rows.head.weight.rows,
          .rank = rows.head.lora.empty() ? 0 : rows.head.lora.a.rows,
          .temperatures = !rows.options.inverse_temperatures.empty(),
          .bias = !rows.head.bias.empty()};
}

/// Calls run(pass) where there are tokens and the memory suffices for a few of them.
template <logits_storage S, class Gemm, class Run>
static cudaError_t with_pass(const head_rows<S>& rows, const head_sizes& sizes,
                             const token_outputs<float>& out, head_plan plan, const Gemm& multiply,
                             scratch space, cudaStream_t stream, const head_gradients<S>& gradients,
                             const Run& run) {
  if (!space.counting() && plan.chunk_rows == 0) return cudaErrorInvalidValue;
  head_pass<S, Gemm> pass{
      .tokens = rows.hidden,
      .head = rows.head,
      .targets = {.targets = rows.targets, .mask = rows.options.mask},
      .options = token_options_of(rows),
      .memory = carve_head<S>(space, sizes, plan.chunk_rows, plan.kept_rows, out),
      .multiply = multiply,
      .stream = stream,
      .scored = rows.scored};
  if (!space.suffices() || !space.aligned()) return cudaErrorInvalidValue;
  if (space.counting()) return cudaSuccess;
  if (rows.scored != nullptr) {
    if (const cudaError_t e = cudaMemsetAsync(rows.scored, 0, sizeof *rows.scored, stream))
      return e;
  }
  if (rows.hidden.rows == 0) return pass.finish(gradients, false);
  return in_turn([&] { return pass.widen_bias(); }, [&] { return run(pass); });
}
template <logits_storage S, class Gemm, class Run>
static cudaError_t with_pass(const head_rows<S>& rows, const head_sizes& sizes,
                             const token_outputs<float>& out, head_plan plan, const Gemm& multiply,
                             scratch space, cudaStream_t stream, const Run& run) {
  return with_pass(rows, sizes, out, plan, multiply, space, stream, head_gradients<S>{}, run);
}

/// The plan for a space. Where only a size is asked for, it is that of one chunk with all tokens,
/// and of all gradients if they are to be kept; the least is that of the smallest chunk.
template <logits_storage S>
static head_plan plan_of(const head_sizes& sizes, const scratch& space,
                         const token_outputs<float>& out) {
  if (!space.counting()) return plan_head<S>(sizes, space.size(), out);
  if (space.counting_least()) return {.chunk_rows = head_row_multiple};
  const std::int64_t all = capacity_of(sizes);
  return {.chunk_rows = (std::min)(all, most_head_rows), .kept_rows = sizes.kept ? all : 0};
}

}  // namespace detail

/// Log-probabilities of the target tokens from hidden states ([tokens, hidden]), as
/// `token_log_probs` gives them from logits.
///
/// @param out rows of [tokens], each of which may be left out.
/// @param space as much memory as there is. Asked for its size, the call answers with what it can
///        make use of: 4 bytes for each of up to 8192 scored tokens and each word of the
///        vocabulary, and as many as the storage has for the gradients of all scored tokens if they
///        are kept.
/// @param keep nullptr, or where the host writes, at once, the ticket for a `head_gradient` of the
///        same rows in the same memory that follows: gradients of as many tokens as the memory
///        holds are kept for it.
template <logits_storage S, gemm<S> Gemm>
static cudaError_t head_log_probs(const head_rows<S>& rows, const token_outputs<float>& out,
                                  const Gemm& multiply, scratch space, cudaStream_t stream,
                                  head_ticket* keep = nullptr) {
  if (problem(rows, out) != nullptr) return cudaErrorInvalidValue;
  detail::head_sizes sizes = detail::sizes_of(rows);
  if (keep != nullptr) {  // with what the backward pass will need
    sizes.gradients = sizes.kept = sizes.coefficients = sizes.entropy_gradients = true;
  }
  const detail::head_plan plan = detail::plan_of<S>(sizes, space, out);
  if (keep != nullptr) keep->kept = plan.kept_rows;
  return detail::with_pass(rows, sizes, out, plan, multiply, space, stream, [&](const auto& pass) {
    using detail::head_chunk;
    return detail::in_turn(
        [&] { return pass.pack(); }, [&] { return pass.pack_rows(); },
        [&] {
          return detail::for_each_chunk(0, plan.kept_rows, plan.chunk_rows, [&](head_chunk c) {
            return detail::in_turn([&] { return pass.gather(c); },
                                   [&] { return pass.make_logits(c); },
                                   [&] { return pass.scores_and_gradients(c, pass.kept(c)); });
          });
        },
        [&] {
          return detail::for_each_chunk(
              plan.kept_rows, pass.capacity(), plan.chunk_rows, [&](head_chunk c) {
                return detail::in_turn([&] { return pass.gather(c); },
                                       [&] { return pass.make_logits(c); },
                                       [&] { return pass.scores(c); });
              });
        },
        [&] { return pass.scatter_results({.out = out, .partials = {}}); });
  });
}

/// What a part of the vocabulary contributes, where the rows of head.weight are tokens
/// [rows.first_token, first_token + head.weight.rows) of rows.vocabulary: one partial for each
/// token, to be gathered by the caller's collective and given to `token_log_probs`.
/// @param statistics whether entropy, sum of squares and mean logit will be asked for.
template <logits_storage S, gemm<S> Gemm>
static cudaError_t head_vocabulary_partials(const head_rows<S>& rows,
                                            strided_span<vocabulary_partial> out, bool statistics,
                                            const Gemm& multiply, scratch space,
                                            cudaStream_t stream) {
  if (problem(rows, out) != nullptr) return cudaErrorInvalidValue;
  detail::head_sizes sizes = detail::sizes_of(rows);
  sizes.partials = true;
  const detail::head_plan plan = detail::plan_of<S>(sizes, space, {});
  return detail::with_pass(rows, sizes, {}, plan, multiply, space, stream, [&](const auto& pass) {
    return detail::in_turn([&] { return pass.pack(); }, [&] { return pass.pack_rows(); },
                           [&] {
                             return detail::for_each_chunk(
                                 0, pass.capacity(), plan.chunk_rows, [&](detail::head_chunk c) {
                                   return detail::in_turn(
                                       [&] { return pass.gather(c); },
                                       [&] { return pass.make_logits(c); },
                                       [&] { return pass.partials(c, statistics); });
                                 });
                           },
                           [&] { return pass.scatter_results({.out = {}, .partials = out}); });
  });
}

/// The frozen head: log-probabilities, and in `d_hidden` ([tokens, hidden], not the hidden states
/// themselves) the gradient of each token's log-prob by its hidden state, to be multiplied by the
/// coefficients once they are known (`scale_rows`). Rows that are not scored become 0. Gradients of
/// an adapter need the coefficients: `head_gradient` gives them.
template <logits_storage S, gemm<S> Gemm>
static cudaError_t head_log_probs_and_gradient(const head_rows<S>& rows,
                                               const token_outputs<float>& out,
                                               matrix_view<std::type_identity_t<S>> d_hidden,
                                               const Gemm& multiply, scratch space,
                                               cudaStream_t stream) {
  if (problem(rows, out, d_hidden) != nullptr) return cudaErrorInvalidValue;
  detail::head_sizes sizes = detail::sizes_of(rows);
  sizes.gradients = true;
  const detail::head_plan plan = detail::plan_of<S>(sizes, space, out);
  return detail::with_pass(rows, sizes, out, plan, multiply, space, stream, [&](const auto& pass) {
    return detail::in_turn([&] { return pass.pack(); }, [&] { return pass.pack_rows(); },
                           [&] {
                             return detail::for_each_chunk(
                                 0, pass.capacity(), plan.chunk_rows, [&](detail::head_chunk c) {
                                   const matrix_view<S> gradient = pass.gradient(c);
                                   return detail::in_turn(
                                       [&] { return pass.gather(c); },
                                       [&] { return pass.make_logits(c); },
                                       [&] { return pass.scores_and_gradients(c, gradient); },
                                       [&] { return pass.make_up(c, gradient); },
                                       [&] { return pass.put_d_hidden(c, gradient, d_hidden); });
                                 });
                           },
                           [&] { return pass.clear(d_hidden); }, [&] { return pass.pad(d_hidden); },
                           [&] { return pass.scatter_results({.out = out, .partials = {}}); });
  });
}

namespace detail {

template <logits_storage S, gemm<S> Gemm>
static cudaError_t head_backward(const head_rows<S>& rows, strided_span<const float> log_prob,
                                 strided_span<const double> lse,
                                 const prospect::detail::coefficient_rows<float>& coefficients,
                                 const head_gradients<S>& gradients, std::int64_t kept,
                                 const Gemm& multiply, scratch space, cudaStream_t stream) {
  head_sizes sizes = sizes_of(rows);
  sizes.gradients = sizes.coefficients = true;
  sizes.kept = kept > 0;
  sizes.entropy_gradients = !coefficients.rows.d_entropy.empty();
  head_plan plan = plan_of<S>(sizes, space, {});
  if (kept > 0) plan.kept_rows = kept;  // the forward pass has decided
  if (kept > 0 && !space.counting()) {
    plan.chunk_rows = most_rows(most_head_rows, space.size(), [&](std::int64_t chunk_rows) {
      return head_bytes<S>(sizes, chunk_rows, kept, {});
    });
  }
  return with_pass(rows, sizes, {}, plan, multiply, space, stream, gradients, [&](auto& pass) {
    bool accumulate = gradients.accumulate;
    // Kept gradients are those of log-probs: their coefficients go into the other factor of each
    // product.
    const float* const factors = pass.memory.rows.factors;
    const auto finish = [&](head_chunk c, const matrix_view<S>& gradient, const float* by) {
      return in_turn([&] { return pass.make_up(c, gradient); },
                     [&] { return pass.put_d_hidden(c, gradient, gradients.hidden, by); },
                     [&] {
                       const bool adds = std::exchange(accumulate, true);
                       return pass.add_to_head(c, gradient, gradients, by, adds);
                     });
    };
    return in_turn(
        [&] { return pass.pack(); }, [&] { return pass.pack_rows(coefficients, log_prob, lse); },
        [&] {
          return for_each_chunk(0, plan.kept_rows, plan.chunk_rows, [&](head_chunk c) {
            return in_turn([&] { return pass.drop(c); }, [&] { return pass.gather(c, factors); },
                           [&] { return pass.make_down(c); },
                           [&] { return finish(c, pass.kept(c), factors); });
          });
        },
        [&] {
          return for_each_chunk(
              plan.kept_rows, pass.capacity(), plan.chunk_rows, [&](head_chunk c) {
                return in_turn([&] { return pass.gather(c); }, [&] { return pass.make_logits(c); },
                               [&] { return pass.gradients(c); },
                               [&] { return finish(c, pass.gradient(c), nullptr); });
              });
        },
        [&] { return pass.clear(gradients.hidden); }, [&] { return pass.finish(gradients, true); });
  });
}

}  // namespace detail

/// A trained head, backward: the gradient of the loss by hidden states, weight, bias and adapter,
/// from one coefficient per token of either sign. `log_prob` and `lse` ([tokens]) are what the
/// forward pass gave for the same rows. Logits are computed again, but for the tokens whose
/// gradients the ticket's forward pass kept in `space`.
///
/// Sums of the head's gradients are fp32 over all tokens. Coefficients are brought near 1 by a
/// power of 2 before they meet a number of 16 bits, so that small ones lose nothing.
/// @param d_token [tokens], dL/dlogp.
template <logits_storage S, gemm<S> Gemm>
static cudaError_t head_gradient(const head_rows<S>& rows, strided_span<const float> log_prob,
                                 strided_span<const double> lse, strided_span<const float> d_token,
                                 const head_gradients<S>& gradients, head_ticket ticket,
                                 const Gemm& multiply, scratch space, cudaStream_t stream) {
  const auto coefficients = prospect::detail::loss_coefficients(d_token);
  if (problem(rows, log_prob, lse, coefficients.rows, gradients) != nullptr ||
      problem(rows, ticket) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::head_backward(rows, log_prob, lse, coefficients, gradients, ticket.kept, multiply,
                               space, stream);
}

/// The same with two coefficients per token, or a third for its entropy; mind their sign
/// (`token_coefficients`). Kept gradients are those of log-probs and serve none of these:
/// everything is computed again.
template <logits_storage S, gemm<S> Gemm>
static cudaError_t head_gradient(const head_rows<S>& rows, strided_span<const float> log_prob,
                                 strided_span<const double> lse,
                                 const token_coefficients<float>& coefficients,
                                 const head_gradients<S>& gradients, const Gemm& multiply,
                                 scratch space, cudaStream_t stream) {
  if (problem(rows, log_prob, lse, coefficients, gradients) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::head_backward(rows, log_prob, lse, {.rows = coefficients}, gradients, 0, multiply,
                               space, stream);
}

namespace detail {

template <logits_storage S, class Ready, gemm<S> Gemm>
static cudaError_t head_in_steps(const head_rows<S>& rows, const sequence_layout& layout,
                                 std::int64_t at_a_time, const token_outputs<float>& out,
                                 const Ready& ready,
                                 const prospect::detail::coefficient_rows<float>& coefficients,
                                 const head_gradients<S>& gradients, const Gemm& multiply,
                                 scratch space, cudaStream_t stream) {
  head_sizes sizes = sizes_of(rows);
  sizes.gradients = sizes.coefficients = true;
  sizes.entropy_gradients = !coefficients.rows.d_entropy.empty();
  const std::int64_t all = capacity_of(sizes);
  // Logits stay until their coefficients are known: the sequences of a step are one chunk.
  const head_plan plan{.chunk_rows = all};
  return with_pass(rows, sizes, out, plan, multiply, space, stream, gradients, [&](auto& pass) {
    bool accumulate = gradients.accumulate;
    const head_chunk c{0, all};
    const auto step = [&](std::int64_t first, std::int64_t last) {
      return in_turn([&] { return pass.pack({.layout = layout, .first = first, .last = last}); },
                     [&] { return pass.pack_rows(); }, [&] { return pass.gather(c); },
                     [&] { return pass.make_logits(c); }, [&] { return pass.scores(c); },
                     [&] { return pass.scatter_results({.out = out, .partials = {}}); },
                     [&] { return ready(first, last, stream); },
                     [&] { return pass.pack_rows(coefficients, out.log_prob, out.lse); },
                     [&] { return pass.gradients(c); },
                     [&] { return pass.make_up(c, pass.gradient(c)); },
                     [&] { return pass.put_d_hidden(c, pass.gradient(c), gradients.hidden); },
                     // Rows whose coefficients turned out to be 0 take no part.
                     [&] { return pass.gather(c); }, [&] { return pass.make_down(c); },
                     [&] {
                       const bool adds = std::exchange(accumulate, true);
                       return pass.add_to_head(c, pass.gradient(c), gradients, nullptr, adds);
                     },
                     [&] { return pass.clear(gradients.hidden); });
    };
    return in_turn([&] { return pass.forget(); },
                   [&] { return pass.scatter_results({.out = out, .partials = {}}); },
                   [&] { return pass.clear(gradients.hidden); },
                   [&] {
                     cudaError_t e = cudaSuccess;
                     for (std::int64_t s = 0; s < layout.sequences() && e == cudaSuccess;
                          s += at_a_time) {
                       e = step(s, (std::min)(s + at_a_time, layout.sequences()));
                     }
                     return e;
                   },
                   [&] { return pass.finish(gradients, layout.sequences() > 0); });
  });
}

}  // namespace detail

/// A trained head in one go, 3 products: for losses whose coefficients are known as soon as the
/// log-probs of a few sequences are (a KL reference point given beforehand, a normaliser that is a
/// number).
///
/// Goes through the batch `at_a_time` sequences at a time, a multiple of 2 for pairs that stand
/// next to each other: once the results of [first, last) are in `out`, which must take log_prob and
/// lse, `ready(first, last, stream)` puts on the stream what writes `d_token` for their tokens;
/// then their gradients follow, their logits still in memory. `rows.scored_at_most` is that of one
/// step, and `rows.scored` becomes the most that one had: a step of more leaves NaN in the rows of
/// its own sequences and in all gradients of the head. Tokens of no sequence are not scored.
template <logits_storage S, class Ready, gemm<S> Gemm>
  requires std::is_invocable_r_v<cudaError_t, const Ready&, std::int64_t, std::int64_t,
                                 cudaStream_t>
static cudaError_t head_step(const head_rows<S>& rows, const sequence_layout& layout,
                             std::int64_t at_a_time, const token_outputs<float>& out,
                             const Ready& ready, strided_span<const float> d_token,
                             const head_gradients<S>& gradients, const Gemm& multiply,
                             scratch space, cudaStream_t stream) {
  const auto coefficients = prospect::detail::loss_coefficients(d_token);
  if (problem(rows, layout, at_a_time, out, coefficients.rows, gradients) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::head_in_steps(rows, layout, at_a_time, out, ready, coefficients, gradients,
                               multiply, space, stream);
}

/// The same with two coefficients per token, or a third for its entropy: `ready` writes what stands
/// in their rows. `coefficients.entropy` is the row that `out.entropy` is.
template <logits_storage S, class Ready, gemm<S> Gemm>
  requires std::is_invocable_r_v<cudaError_t, const Ready&, std::int64_t, std::int64_t,
                                 cudaStream_t>
static cudaError_t head_step(const head_rows<S>& rows, const sequence_layout& layout,
                             std::int64_t at_a_time, const token_outputs<float>& out,
                             const Ready& ready, const token_coefficients<float>& coefficients,
                             const head_gradients<S>& gradients, const Gemm& multiply,
                             scratch space, cudaStream_t stream) {
  if (problem(rows, layout, at_a_time, out, coefficients, gradients) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::head_in_steps(rows, layout, at_a_time, out, ready, {.rows = coefficients},
                               gradients, multiply, space, stream);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
