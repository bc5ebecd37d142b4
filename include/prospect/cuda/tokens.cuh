// Phases 1 and 3 on CUDA: logits to log-probabilities of the target tokens, sums over sequences,
// and one coefficient per token back into the logits. The twins of cpu/tokens.hpp.
//
// Whatever rows, views and outputs point to lies on the device. A launcher checks what the host can
// see before any work (`problem` says what is wrong), puts its kernels on `stream` and returns: it
// allocates nothing, waits for nothing, reads nothing back, and can be captured in a graph. What
// the host cannot see is safe: a target outside the vocabulary makes its row NaN.
//
// Launchers are static, as their kernels are: a unit launches what was compiled with it, for its
// own architectures and the processor it was meant for.
#pragma once

#include <prospect/cuda/detail/device.cuh>
#include <prospect/cuda/detail/layout_kernels.cuh>
#include <prospect/cuda/detail/token_kernels.cuh>
#include <prospect/cuda/scratch.hpp>
#include <prospect/cuda/token_checks.hpp>

#include <concepts>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda {

/// What logits are stored in on a device; arithmetic is fp32, sums over a row fp64.
template <class S>
concept logits_storage =
    std::same_as<S, float> || std::same_as<S, bfloat16> || std::same_as<S, float16>;

namespace detail {

static inline column_range range_of(const token_options& options, std::int64_t columns) {
  return {options.first_token, options.vocabulary == 0 ? columns : options.vocabulary};
}

static inline row_targets rows_of(const index_row& targets, const token_options& options,
                                  std::int64_t columns) {
  return {.tokens = {.targets = targets, .mask = options.mask},
          .maps = prospect::detail::maps_of(options),
          .range = range_of(options, columns)};
}

static inline std::int64_t blocks_for(std::int64_t units, std::int64_t per_block) {
  return (units + per_block - 1) / per_block;
}

/// Calls run(map, statistics) with the map's type, and std::bool_constant. One map for all rows is
/// looked up by the row as well: beside the arithmetic of a map that is nothing, and a third kernel
/// of each kind is a third more to compile.
template <class Run>
static cudaError_t with_variant(const token_options& options, bool statistics, const Run& run) {
  const auto with_statistics = [&](const auto& map) {
    return statistics ? run(map, std::true_type{}) : run(map, std::false_type{});
  };
  const auto maps = prospect::detail::maps_of(options);
  return options.inverse_temperatures.empty() && maps.all.identity()
             ? with_statistics(unmapped{})
             : with_statistics(mapped_rows{maps});
}

/// One more launch, where it is asked for and there is something to do.
template <logits_storage S>
static cudaError_t zero_padding(matrix_view<S> gradient, const token_options& options,
                                cudaStream_t stream) {
  if (padding_of(gradient, options) == 0 || gradient.rows == 0) return cudaSuccess;
  return launch(&padding_kernel<S>, blocks_for(gradient.rows, warps), threads, 0, 1, stream,
                gradient);
}

/// How many tiles of a row a forward pass leaves to one block.
inline constexpr std::int64_t most_tiles_per_block = 512;

template <logits_storage S>
static cudaError_t forward(matrix_view<const S> logits, index_row targets,
                           const token_results& results, const token_options& options,
                           bool statistics, scratch space, cudaStream_t stream) {
  device_limits device;
  if (const cudaError_t e = device_limits::of_current(device)) return e;
  forward_arguments<S> a{.logits = logits,
                         .targets = rows_of(targets, options, logits.columns),
                         .results = results,
                         .tiles = std::max<std::int64_t>(1, tiles_of<S>(logits.columns)),
                         .sums = nullptr};
  // Few rows do not fill the device, unless blocks share them.
  const bool few = logits.rows < 2 * device.multiprocessors && a.tiles > warps;
  const bool split = few || a.tiles > most_tiles_per_block;
  if (split) {
    a.sums = space.carve<vocabulary_partial>(static_cast<std::size_t>(logits.rows * a.tiles));
  }
  if (!space.suffices() || !space.aligned()) return cudaErrorInvalidValue;
  if (space.counting() || logits.rows == 0) return cudaSuccess;

  return with_variant(options, statistics, [&](auto map, auto with_statistics) {
    const auto kernel = &forward_kernel<with_statistics(), S, decltype(map)>;
    if (!split) {
      const auto block = std::min<std::int64_t>(forward_warps, a.tiles) * lanes;
      return launch(kernel, logits.rows, static_cast<int>(block),
                    static_cast<std::size_t>(a.tiles) * sizeof(vocabulary_partial), 1, stream, a,
                    map);
    }
    if (const cudaError_t e = launch(kernel, blocks_for(logits.rows * a.tiles, forward_warps),
                                     forward_warps * lanes, 0, 1, stream, a, map)) {
      return e;
    }
    return launch(&finish_kernel<threads>, blocks_for(logits.rows, warps), threads, 0, 1, stream,
                  a.sums, logits.rows, logits.columns, a.tiles, a.targets, results);
  });
}

/// `tilted`: entropies have coefficients as well.
template <bool tilted, logits_storage S, logits_storage Out>
static cudaError_t gradient(matrix_view<const S> logits, matrix_view<Out> gradient,
                            index_row targets, strided_span<const float> log_prob,
                            strided_span<const double> lse,
                            const prospect::detail::coefficient_rows<float>& coefficients,
                            const token_options& options, cudaStream_t stream) {
  if (const cudaError_t e = zero_padding(gradient, options, stream)) return e;
  if (logits.rows == 0 || logits.columns == 0) return cudaSuccess;
  const gradient_arguments<S, Out> a{.logits = logits,
                                     .gradient = gradient,
                                     .targets = rows_of(targets, options, logits.columns),
                                     .log_prob = log_prob,
                                     .lse = lse,
                                     .coefficients = coefficients,
                                     .tiles = tiles_of<S>(logits.columns)};
  const auto run = [&](const auto& kernel, const auto& map) {
    return launch(kernel, blocks_for(logits.rows * a.tiles, warps), threads, 0, 1, stream, a, map);
  };
  if constexpr (tilted) {  // one kernel for every map
    return run(&gradient_kernel<true, S, mapped_rows, Out>,
               mapped_rows{prospect::detail::maps_of(options)});
  } else {
    return with_variant(options, false, [&](auto map, auto) {
      return run(&gradient_kernel<false, S, decltype(map), Out>, map);
    });
  }
}

/// How a row is laid over blocks by the deferred schedule: from its tiles and the device alone,
/// never from the number of rows.
struct deferred_plan {
  int blocks_per_row;
  int tiles_per_block;
  bool resident;
  std::size_t shared_memory;

  template <storage S>
  PROSPECT_INLINE static deferred_plan of(std::int64_t tiles, bool clusters,
                                          int most_shared_memory) {
    // A warp for each tile, as far as the largest portable cluster reaches.
    constexpr std::int64_t most_blocks = 8;
    const std::int64_t blocks = clusters ? (std::min)(most_blocks, blocks_for(tiles, warps)) : 1;
    const std::int64_t per_block = blocks_for(tiles, blocks);
    const std::int64_t sums = per_block * static_cast<std::int64_t>(sizeof(vocabulary_partial));
    const std::int64_t all = sums + per_block * static_cast<std::int64_t>(resident_bytes<S>);
    const std::int64_t room = most_shared_memory - 1024;  // for the driver, and the scores
    return {.blocks_per_row = static_cast<int>(blocks),
            .tiles_per_block = static_cast<int>(per_block),
            .resident = all <= room,
            .shared_memory = static_cast<std::size_t>(all <= room ? all : sums)};
  }
};

template <bool resident, bool statistics, logits_storage S, class Map, logits_storage Out>
static cudaError_t deferred(const deferred_plan& plan, const deferred_arguments<S, Out>& a,
                            const Map& map, cudaStream_t stream) {
  const auto kernel = &deferred_kernel<resident, statistics, S, Map, Out>;
  if (const cudaError_t e =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(plan.shared_memory))) {
    return e;
  }
  // Where a warp has several tiles, they all have as many.
  const std::int64_t rounds =
      blocks_for(plan.tiles_per_block, deferred_warps<resident, statistics, Map>);
  const int block = static_cast<int>(blocks_for(plan.tiles_per_block, rounds)) * lanes;
  return launch(kernel, a.logits.rows * plan.blocks_per_row, block, plan.shared_memory,
                plan.blocks_per_row, stream, a, map, plan.blocks_per_row);
}

/// Log-probs of logits, and the unscaled gradient: over them, or where `gradient` is.
template <logits_storage S, logits_storage Out>
static cudaError_t deferred_rows(matrix_view<const S> logits, matrix_view<Out> gradient,
                                 index_row targets, const token_outputs<float>& out,
                                 const token_options& options, cudaStream_t stream) {
  if (logits.rows == 0) return cudaSuccess;
  device_limits device;
  if (const cudaError_t e = device_limits::of_current(device)) return e;
  deferred_arguments<S, Out> a{.logits = logits,
                               .gradient = gradient,
                               .targets = rows_of(targets, options, logits.columns),
                               .results = {.out = out, .partials = {}},
                               .tiles = std::max<std::int64_t>(1, tiles_of<S>(logits.columns)),
                               .tiles_per_block = 0};
  if (const cudaError_t e = zero_padding(gradient, options, stream)) return e;
  return with_variant(options, out.statistics(), [&](auto map, auto statistics) {
    using Map = decltype(map);
    bool clusters = false;
    if (const cudaError_t e =
            knows_clusters(&deferred_kernel<true, statistics(), S, Map, Out>, device, clusters)) {
      return e;
    }
    const auto plan = deferred_plan::of<S>(a.tiles, clusters, device.shared_memory);
    a.tiles_per_block = plan.tiles_per_block;
    return plan.resident ? deferred<true, statistics()>(plan, a, map, stream)
                         : deferred<false, statistics()>(plan, a, map, stream);
  });
}

}  // namespace detail

/// Log-probabilities of the target tokens, and what else `out` asks for, in one pass over memory.
///
/// Row t of `logits` ([tokens, vocabulary], any pitch and alignment) is scored against
/// `targets[t]`, which is aligned with it (`shift_targets` aligns label rows). A row whose target
/// is -100, or whose mask is 0, is not read and yields 0; one whose target is no token, or whose
/// inverse temperature is none, is NaN. -inf logits are
/// impossible tokens; NaN or +inf makes that row NaN and no other (under a soft cap +inf is the
/// cap). A row's result depends on nothing but the row and its vocabulary: not on the number of
/// rows, their place or alignment.
///
/// @param space takes memory only where there are few rows, or more than 512 tiles in one.
/// @returns cudaErrorInvalidValue where `problem` says why, or what the launch returned.
template <logits_storage S>
static cudaError_t token_log_probs(matrix_view<const std::type_identity_t<S>> logits,
                                   index_row targets, const token_outputs<float>& out,
                                   const token_options& options, scratch space,
                                   cudaStream_t stream) {
  if (problem(logits, targets, out, options) != nullptr) return cudaErrorInvalidValue;
  return detail::forward<S>(logits, targets, {.out = out, .partials = {}}, options,
                            out.statistics(), space, stream);
}

/// Writes the gradient of the loss in every row of logits into `gradient`, which may be a matrix of
/// its own or the logits themselves; it may not overlap them otherwise. Its row t becomes
/// d_token[t] (onehot(targets[t]) - softmax(z)) dz/dx.
///
/// Rows that are not scored or whose coefficient is 0 become 0 without being read. `log_prob` and
/// `lse` are those `token_log_probs` gave for the same logits and options: one that is not finite
/// makes its row NaN, a NaN among the logits that it does not know of its own column. Of a split
/// vocabulary each part is handled alone, with the `log_prob` and `lse` of the whole.
template <logits_storage S>
static cudaError_t logits_gradient(matrix_view<const std::type_identity_t<S>> logits,
                                   matrix_view<std::type_identity_t<S>> gradient, index_row targets,
                                   strided_span<const float> log_prob,
                                   strided_span<const double> lse,
                                   strided_span<const float> d_token, const token_options& options,
                                   cudaStream_t stream) {
  if (problem(logits, gradient, targets, log_prob, lse, d_token, options) != nullptr) {
    return cudaErrorInvalidValue;
  }
  return detail::gradient<false, S, S>(logits, gradient, targets, log_prob, lse,
                                       prospect::detail::loss_coefficients(d_token), options,
                                       stream);
}

/// The same in place.
template <logits_storage S>
static cudaError_t logits_gradient(matrix_view<std::type_identity_t<S>> logits, index_row targets,
                                   strided_span<const float> log_prob,
                                   strided_span<const double> lse,
                                   strided_span<const float> d_token, const token_options& options,
                                   cudaStream_t stream) {
  return logits_gradient<S>(logits, logits, targets, log_prob, lse, d_token, options, stream);
}

/// The same with two coefficients per token, or a third for its entropy; mind their sign
/// (`token_coefficients`). Of a split vocabulary the entropy is that of the whole, too.
template <logits_storage S>
static cudaError_t logits_gradient(matrix_view<const std::type_identity_t<S>> logits,
                                   matrix_view<std::type_identity_t<S>> gradient, index_row targets,
                                   strided_span<const float> log_prob,
                                   strided_span<const double> lse,
                                   const token_coefficients<float>& coefficients,
                                   const token_options& options, cudaStream_t stream) {
  if (problem(logits, gradient, targets, log_prob, lse, coefficients, options) != nullptr) {
    return cudaErrorInvalidValue;
  }
  const auto run = coefficients.d_entropy.empty() ? &detail::gradient<false, S, S>
                                                  : &detail::gradient<true, S, S>;
  return run(logits, gradient, targets, log_prob, lse, {.rows = coefficients}, options, stream);
}

/// The deferred schedule: log-probabilities as `token_log_probs`, the same bits, and in the same
/// pass over memory row t of the logits becomes (onehot(targets[t]) - softmax(z)) dz/dx, the
/// gradient of its log-prob.
///
/// The coefficients come later and cost nothing extra where they are folded into the rows of the
/// product that follows; `scale_rows` applies them. Rows that are not scored become 0 unread. An
/// entropy's gradient is no multiple of a log-prob's, so that no coefficient brings it in later:
/// `logits_gradient` does.
///
/// On compute capability 9.0 and above a row waits for its gradient in the shared memory of up to 8
/// blocks; where a row does not fit, and on older devices beyond what one block holds, it is read
/// twice.
template <logits_storage S>
static cudaError_t token_log_probs_and_gradient(matrix_view<std::type_identity_t<S>> logits,
                                                index_row targets, const token_outputs<float>& out,
                                                const token_options& options, cudaStream_t stream) {
  if (problem(logits, targets, out, options) != nullptr) return cudaErrorInvalidValue;
  return detail::deferred_rows<S, S>(logits, logits, targets, out, options, stream);
}

/// Multiplies row t of a matrix by `factors[t]`. A row of factor 0 becomes 0 unread. What lies
/// between the columns and the pitch stays what it is.
template <logits_storage S>
static cudaError_t scale_rows(matrix_view<std::type_identity_t<S>> matrix,
                              strided_span<const float> factors, cudaStream_t stream) {
  if (problem(matrix, factors) != nullptr) return cudaErrorInvalidValue;
  if (matrix.rows == 0 || matrix.columns == 0) return cudaSuccess;
  const std::int64_t tiles = detail::tiles_of<S>(matrix.columns);
  return detail::launch(&detail::scale_kernel<S>,
                        detail::blocks_for(matrix.rows * tiles, detail::warps), detail::threads, 0,
                        1, stream, matrix, factors, tiles);
}

/// What each row of a part of the vocabulary contributes, where the columns are tokens
/// [options.first_token, first_token + columns) of options.vocabulary. Targets are tokens of the
/// whole vocabulary.
///
/// Gather the partials of all parts on one device and give them to `token_log_probs`, or `combine`
/// them from the first part to the last.
/// @param statistics whether entropy, sum of squares and mean logit will be asked for.
template <logits_storage S>
static cudaError_t vocabulary_partials(matrix_view<const std::type_identity_t<S>> logits,
                                       index_row targets, strided_span<vocabulary_partial> out,
                                       const token_options& options, bool statistics, scratch space,
                                       cudaStream_t stream) {
  if (problem(logits, targets, out, options) != nullptr) return cudaErrorInvalidValue;
  return detail::forward<S>(logits, targets, {.out = {}, .partials = out}, options, statistics,
                            space, stream);
}

/// From gathered partials ([parts, tokens], in the order of the vocabulary) to the results of
/// `token_log_probs`. Parts are combined from the first to the last, so that every rank that does
/// this gets the same bits.
static inline cudaError_t token_log_probs(matrix_view<const vocabulary_partial> parts,
                                          index_row targets, const token_outputs<float>& out,
                                          mask_row mask, cudaStream_t stream) {
  if (problem(parts, targets, out, mask) != nullptr) return cudaErrorInvalidValue;
  if (parts.columns == 0) return cudaSuccess;
  return detail::launch(&detail::combine_kernel<detail::threads>,
                        detail::blocks_for(parts.columns, detail::threads), detail::threads, 0, 1,
                        stream, parts, prospect::detail::scored_targets{targets, mask},
                        detail::token_results{.out = out, .partials = {}});
}
static inline cudaError_t token_log_probs(matrix_view<const vocabulary_partial> parts,
                                          index_row targets, const token_outputs<float>& out,
                                          cudaStream_t stream) {
  return token_log_probs(parts, targets, out, mask_row{}, stream);
}

/// Sums token log-probabilities over the scored tokens of each sequence, in fp64 and in an order
/// that depends on the sequence alone. Tokens with target -100 or mask 0 are skipped, whatever
/// their log-probability. A sequence without scored tokens sums to 0 and counts 0 tokens; one of
/// more than 2^31 - 1 counts so many. Offsets and ranges are the caller's promise; what lies
/// outside the rows is not read.
template <std::floating_point R>
static cudaError_t sequence_sums(strided_span<const std::type_identity_t<R>> log_prob,
                                 index_row targets, const sequence_layout& layout,
                                 const sequence_outputs& out, mask_row mask, cudaStream_t stream) {
  if (problem(log_prob, targets, layout, out, mask) != nullptr) return cudaErrorInvalidValue;
  if (layout.sequences() == 0) return cudaSuccess;
  return detail::launch(&detail::sequence_sums_kernel<R>, layout.sequences(),
                        detail::layout_threads, 0, 1, stream, log_prob,
                        prospect::detail::scored_targets{targets, mask}, layout, out);
}
template <std::floating_point R>
static cudaError_t sequence_sums(strided_span<const std::type_identity_t<R>> log_prob,
                                 index_row targets, const sequence_layout& layout,
                                 const sequence_outputs& out, cudaStream_t stream) {
  return sequence_sums<R>(log_prob, targets, layout, out, mask_row{}, stream);
}

/// Gives every scored token its sequence's coefficient dL/dP, and 0 to the others, those of no
/// sequence included: the reverse of `sequence_sums`. Coefficients may be of any storage type.
template <std::floating_point R>
static cudaError_t spread(const const_any_row& d_sequence, index_row targets,
                          const sequence_layout& layout,
                          strided_span<std::type_identity_t<R>> d_token, mask_row mask,
                          cudaStream_t stream) {
  if (problem(d_sequence, targets, layout, d_token, mask) != nullptr) return cudaErrorInvalidValue;
  if (targets.size() == 0) return cudaSuccess;
  return detail::launch(&detail::spread_kernel<R>, std::max<std::int64_t>(1, layout.sequences()),
                        detail::layout_threads, 0, 1, stream, d_sequence,
                        prospect::detail::scored_targets{targets, mask}, layout, d_token);
}
template <std::floating_point R>
static cudaError_t spread(const const_any_row& d_sequence, index_row targets,
                          const sequence_layout& layout,
                          strided_span<std::type_identity_t<R>> d_token, cudaStream_t stream) {
  return spread<R>(d_sequence, targets, layout, d_token, mask_row{}, stream);
}

/// Aligns label rows in the Hugging Face manner (the label of position t stands at t) with logits
/// rows, whose row t predicts position t + 1: targets[t] = labels[t + 1] inside each sequence, and
/// -100 at its last row and at rows of no sequence. A label that is neither -100 nor an int32 token
/// id becomes -1, which makes its row NaN.
static inline cudaError_t shift_targets(index_row labels, const sequence_layout& layout,
                                        strided_span<std::int32_t> targets, cudaStream_t stream) {
  if (problem(labels, layout, targets) != nullptr) return cudaErrorInvalidValue;
  if (labels.size() == 0) return cudaSuccess;
  return detail::launch(&detail::shift_targets_kernel<std::int32_t>,
                        std::max<std::int64_t>(1, layout.sequences()), detail::layout_threads, 0, 1,
                        stream, labels, layout, targets);
}

}  // namespace prospect::inline v2::cuda
PROSPECT_STRICT_END
