// The C API on a device: arguments checked by name on the host, then the launchers.
#include "launchers.hpp"

#include "../losses.hpp"
#include "../sequences.hpp"
#include "../tokens.hpp"

#include <prospect/cuda/checks.hpp>
#include <prospect/cuda/token_checks.hpp>

namespace pk = prospect::kernels;

namespace {

using prospect::cuda::denominator;
using prospect::cuda::scratch;

static_assert(sizeof(prospect::paired_metrics) <= PROSPECT_DEVICE_METRICS_SIZE &&
              sizeof(prospect::unpaired_metrics) <= PROSPECT_DEVICE_METRICS_SIZE);
static_assert(sizeof(prospect_sum_count) == sizeof(prospect::sum_count));

/// Refuses what the library says is wrong.
void check(const char* problem) {
  if (problem != nullptr) pk::fail(PROSPECT_INVALID_ARGUMENT, problem);
}

void launched(cudaError_t status) {
  if (status == cudaSuccess) return;
  pk::fail(static_cast<prospect_status>(PROSPECT_CUDA_ERROR + static_cast<int>(status)),
           std::string{cudaGetErrorName(status)} + ": " + cudaGetErrorString(status));
}

/// Calls launch(scratch), or reports the size of the scratch it takes.
template <class Launch>
void with_scratch(void* memory, std::size_t* size, const Launch& launch) {
  std::size_t needed = 0;
  launched(launch(scratch::size_into(needed)));
  if (memory == nullptr) {
    pk::require(size, "scratch_size") = std::max<std::size_t>(needed, 1);
    return;
  }
  const std::size_t given = pk::require(size, "scratch_size");
  if (given < needed) {
    pk::fail(PROSPECT_INVALID_ARGUMENT, "scratch has " + std::to_string(given) + " bytes, " +
                                            std::to_string(needed) + " are needed");
  }
  const scratch space{memory, given};
  if (!space.aligned()) {
    pk::fail(PROSPECT_INVALID_ARGUMENT, "scratch is not aligned as memory of cudaMalloc is");
  }
  launched(launch(space));
}

denominator denominator_of(std::int32_t kind, double count, const double* count_at) {
  switch (kind) {
    case PROSPECT_MEAN:
      return prospect::normaliser::mean();
    case PROSPECT_SUM:
      return prospect::normaliser::sum();
    case PROSPECT_OVER:
      if (!(count > 0)) pk::fail(PROSPECT_INVALID_ARGUMENT, "count must be positive");
      return prospect::normaliser::over(count);
    case PROSPECT_OVER_AT:
      return denominator::over(&pk::require(count_at, "count_at"));
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "normaliser is unknown");
  }
}

template <prospect::storage S>
prospect::cuda::mismatched_batch<S> mismatched_of(const prospect_const_row& policy,
                                                  const prospect_const_row& reference,
                                                  const prospect_const_row& tokens) {
  return {.policy = pk::in<S>("mismatched_policy", policy),
          .reference = pk::in<S>("mismatched_reference", reference),
          .tokens = pk::in<std::int32_t>("mismatched_tokens", tokens)};
}

template <prospect::storage S>
prospect::cuda::detail::point_source<S> point_of(const prospect_completions& c) {
  switch (c.reference_point) {
    case PROSPECT_GIVEN_POINT:
      return pk::given_point(c);
    case PROSPECT_CROSS_CLASS:
      return prospect::cross_class{};
    case PROSPECT_OBSERVED:
      return prospect::cuda::observed_point{
          reinterpret_cast<const prospect::sum_count*>(&pk::require(c.observed, "observed"))};
    case PROSPECT_BATCH_MEAN: {
      const auto batch =
          mismatched_of<S>(c.mismatched_policy, c.mismatched_reference, c.mismatched_tokens);
      check(prospect::cuda::problem(batch));
      return batch;
    }
    default:
      pk::fail(PROSPECT_UNSUPPORTED, "reference_point is unknown");
  }
}

/// Calls `body` with a value of the storage type of logits on a device.
template <class Body>
void with_logits(std::int32_t dtype, const Body& body) {
  pk::with_storage(dtype, [&]<class S>(S s) {
    if constexpr (std::same_as<S, double>) {
      pk::fail(PROSPECT_UNSUPPORTED, "logits of PROSPECT_F64 are for the CPU");
    } else {
      body(s);
    }
  });
}

prospect::token_options device_options(const prospect_token_options* pointer) {
  const prospect_token_options given = pk::given_options(pointer);
  if (given.executor != nullptr) {
    pk::fail(PROSPECT_UNSUPPORTED, "options.executor must be NULL on a device");
  }
  return pk::token_options_of(given);
}

}  // namespace

prospect_status prospect_pairs_cuda(const prospect_loss* loss, const prospect_pairs* pairs,
                                    void* metrics, void* scratch, size_t* scratch_size,
                                    CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_pairs p = pk::versioned(pairs, "pairs");
    pk::check_reserved("pairs", p.reserved);
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        pk::with_storage(p.dtype, [&]<class S>(S) {
          const auto in = pk::batch_of<S>(p);
          const auto out = pk::outputs_of<S>(p);
          const denominator by = denominator_of(p.normaliser, p.count, p.count_at);
          check(prospect::cuda::problem(l, in, out, by));
          with_scratch(scratch, scratch_size, [&](const auto& space) {
            return pk::sequence_launchers<S>::pairs(
                *loss, in, out, by, static_cast<prospect::paired_metrics*>(metrics), space, stream);
          });
        });
      } else {
        pk::wrong_kind(l, "a paired");
      }
    });
  });
}

prospect_status prospect_completions_cuda(const prospect_loss* loss,
                                          const prospect_completions* completions, void* metrics,
                                          void* scratch, size_t* scratch_size, CUstream_st* stream,
                                          prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_completions c = pk::versioned(completions, "completions");
    pk::with_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::unpaired_loss<L>) {
        pk::with_storage(c.dtype, [&]<class S>(S) {
          const auto in = pk::batch_of<S>(c);
          const auto out = pk::outputs_of<S>(c);
          const denominator by = denominator_of(c.normaliser, c.count, c.count_at);
          check(prospect::cuda::problem(l, in, out, by));
          const auto point = point_of<S>(c);
          with_scratch(scratch, scratch_size, [&](const auto& space) {
            return pk::sequence_launchers<S>::completions(
                *loss, in, point, out, by, static_cast<prospect::unpaired_metrics*>(metrics), space,
                stream);
          });
        });
      } else {
        pk::wrong_kind(l, "an unpaired");
      }
    });
  });
}

prospect_status prospect_mismatched_kl_cuda(prospect_dtype dtype, prospect_const_row policy,
                                            prospect_const_row reference, prospect_const_row tokens,
                                            prospect_sum_count* observed, void* scratch,
                                            size_t* scratch_size, CUstream_st* stream,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    pk::with_storage(dtype, [&]<class S>(S) {
      auto batch = mismatched_of<S>(policy, reference, tokens);
      batch.observed = reinterpret_cast<prospect::observation*>(&pk::require(observed, "observed"));
      check(prospect::cuda::problem(batch));
      with_scratch(scratch, scratch_size, [&](const auto& space) {
        return pk::sequence_launchers<S>::mismatched_kl(batch, space, stream);
      });
    });
  });
}

prospect_status prospect_token_log_probs_cuda(const prospect_logits* logits,
                                              const prospect_indices* targets,
                                              const prospect_token_options* options,
                                              prospect_row log_prob, prospect_row lse,
                                              const prospect_token_statistics* statistics,
                                              void* scratch, size_t* scratch_size,
                                              CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const prospect::token_options o = device_options(options);
    const auto out = pk::outputs_of<float>(log_prob, lse, statistics);
    const prospect::index_row y = pk::targets_of(targets);
    with_logits(l.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<const S>(l);
      check(prospect::cuda::problem(x, y, out, o));
      with_scratch(scratch, scratch_size, [&](const auto& space) {
        return pk::token_launchers<S>::log_probs(x, y, out, o, space, stream);
      });
    });
  });
}

prospect_status prospect_token_log_probs_and_gradient_cuda(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const prospect::token_options o = device_options(options);
    const auto out = pk::outputs_of<float>(log_prob, lse, statistics);
    const prospect::index_row y = pk::targets_of(targets);
    with_logits(l.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<S>(l);
      check(prospect::cuda::problem(x, y, out, o));
      launched(pk::token_launchers<S>::log_probs_and_gradient(x, y, out, o, stream));
    });
  });
}

prospect_status prospect_logits_gradient_cuda(const prospect_logits* logits,
                                              const prospect_indices* targets,
                                              const prospect_token_options* options,
                                              prospect_const_row log_prob, prospect_const_row lse,
                                              prospect_const_row d_token, CUstream_st* stream,
                                              prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const prospect::token_options o = device_options(options);
    const prospect::index_row y = pk::targets_of(targets);
    const auto p = pk::in<float>("log_prob", log_prob);
    const auto s = pk::in<double>("lse", lse);
    const auto d = pk::in<float>("d_token", d_token);
    with_logits(l.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<S>(l);
      if (d.size() != x.rows) {
        pk::fail(PROSPECT_INVALID_ARGUMENT, "d_token must have an element for each row");
      }
      check(prospect::cuda::problem(x, x, y, p, s, {.softmax = d, .onehot = d}, o));
      launched(pk::token_launchers<S>::gradient(x, y, p, s, d, o, stream));
    });
  });
}

prospect_status prospect_logits_gradient_into_cuda(
    const prospect_logits* logits, const prospect_logits* gradient, const prospect_indices* targets,
    const prospect_token_options* options, prospect_const_row log_prob, prospect_const_row lse,
    prospect_const_row softmax, prospect_const_row onehot, CUstream_st* stream,
    prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const prospect_logits& g = pk::require(gradient, "gradient");
    if (g.dtype != l.dtype) pk::fail(PROSPECT_INVALID_ARGUMENT, "gradient.dtype is not logits'");
    const prospect::token_options o = device_options(options);
    const prospect::index_row y = pk::targets_of(targets);
    const auto p = pk::in<float>("log_prob", log_prob);
    const auto s = pk::in<double>("lse", lse);
    const prospect::token_coefficients<float> c{.softmax = pk::in<float>("softmax", softmax),
                                                .onehot = pk::in<float>("onehot", onehot)};
    with_logits(l.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<const S>(l);
      const auto to = pk::matrix<S>(g);
      check(prospect::cuda::problem(x, to, y, p, s, c, o));
      launched(pk::token_launchers<S>::gradient_into(x, to, y, p, s, c, o, stream));
    });
  });
}

prospect_status prospect_scale_rows_cuda(const prospect_logits* matrix, prospect_const_row factors,
                                         CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& m = pk::require(matrix, "matrix");
    const auto f = pk::in<float>("factors", factors);
    with_logits(m.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<S>(m);
      check(prospect::cuda::problem(x, f));
      launched(pk::token_launchers<S>::scale_rows(x, f, stream));
    });
  });
}

prospect_status prospect_vocabulary_partials_cuda(const prospect_logits* logits,
                                                  const prospect_indices* targets,
                                                  const prospect_token_options* options,
                                                  int statistics, prospect_partial* partials,
                                                  void* scratch, size_t* scratch_size,
                                                  CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const prospect::token_options o = device_options(options);
    const prospect::index_row y = pk::targets_of(targets);
    const prospect::strided_span<prospect::vocabulary_partial> out{
        pk::partials_of(&pk::require(partials, "partials")), l.rows};
    with_logits(l.dtype, [&]<class S>(S) {
      const auto x = pk::matrix<const S>(l);
      check(prospect::cuda::problem(x, y, out, o));
      with_scratch(scratch, scratch_size, [&](const auto& space) {
        return pk::token_launchers<S>::partials(x, y, out, o, statistics != 0, space, stream);
      });
    });
  });
}

prospect_status prospect_combine_partials_cuda(const prospect_partial* partials, int64_t parts,
                                               const prospect_indices* targets,
                                               prospect_row log_prob, prospect_row lse,
                                               const prospect_token_statistics* statistics,
                                               CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect::index_row y = pk::targets_of(targets);
    const auto out = pk::outputs_of<float>(log_prob, lse, statistics);
    const prospect::matrix_view<const prospect::vocabulary_partial> all{
        pk::partials_of(&pk::require(partials, "partials")), parts, y.size()};
    check(prospect::cuda::problem(all, y, out));
    launched(pk::launch_combine(all, y, out, stream));
  });
}

prospect_status prospect_sequence_sums_cuda(prospect_dtype dtype, prospect_const_row token_log_prob,
                                            const prospect_indices* targets,
                                            const prospect_layout* layout, prospect_row log_prob,
                                            prospect_row tokens, CUstream_st* stream,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect::index_row y = pk::targets_of(targets);
    const prospect::sequence_layout where = pk::layout_of(layout);
    const prospect::sequence_outputs out{.log_prob = pk::out<double>("log_prob", log_prob),
                                         .tokens = pk::out<std::int32_t>("tokens", tokens)};
    pk::with_arithmetic(dtype, [&]<class R>(R) {
      const auto p = pk::in<R>("token_log_prob", token_log_prob);
      check(prospect::cuda::problem(p, y, where, out));
      launched(pk::layout_launchers<R>::sums(p, y, where, out, stream));
    });
  });
}

prospect_status prospect_spread_cuda(prospect_dtype dtype, prospect_const_row d_sequence,
                                     const prospect_indices* targets, const prospect_layout* layout,
                                     prospect_row d_token, CUstream_st* stream,
                                     prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect::index_row y = pk::targets_of(targets);
    const prospect::sequence_layout where = pk::layout_of(layout);
    const auto d = pk::in<double>("d_sequence", d_sequence);
    pk::with_arithmetic(dtype, [&]<class R>(R) {
      const auto to = pk::out<R>("d_token", d_token);
      check(prospect::cuda::problem(d, y, where, to));
      launched(pk::layout_launchers<R>::spread(d, y, where, to, stream));
    });
  });
}

prospect_status prospect_shift_targets_cuda(const prospect_indices* labels,
                                            const prospect_layout* layout, prospect_row targets,
                                            CUstream_st* stream, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect::index_row from = pk::indices("labels", pk::require(labels, "labels"));
    const prospect::sequence_layout where = pk::layout_of(layout);
    const auto to = pk::out<std::int32_t>("targets", targets);
    check(prospect::cuda::problem(from, where, to));
    launched(pk::launch_shift_targets(from, where, to, stream));
  });
}
