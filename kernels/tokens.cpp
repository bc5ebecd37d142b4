// The C API on tokens: logits, log-probabilities, sums over sequences, and the way back.
#include "tokens.hpp"
#include "boundary.hpp"
#include "rows.hpp"

#include <prospect/cpu/tokens.hpp>

namespace pk = prospect::kernels;

namespace {

/// A trainer's threads, or the library's.
class executor_of {
 public:
  explicit executor_of(const prospect_executor* theirs) : theirs_{theirs} {
    if (theirs_ != nullptr && theirs_->run == nullptr) {
      pk::fail(PROSPECT_INVALID_ARGUMENT, "options.executor.run is NULL");
    }
  }
  void run(std::int64_t n, prospect::task body) const {
    if (theirs_ == nullptr) return prospect::thread_pool::shared().run(n, body);
    theirs_->run(
        theirs_->context, n,
        [](void* b, std::int64_t i) { (*static_cast<const prospect::task*>(b))(i); }, &body);
  }

 private:
  const prospect_executor* theirs_;
};

struct options_of {
  prospect_token_options given;
  prospect::token_options options;
  executor_of executor;

  explicit options_of(const prospect_token_options* pointer)
      : given{pk::given_options(pointer)},
        options{pk::token_options_of(given)},
        executor{given.executor} {}
};

}  // namespace

prospect_status prospect_token_log_probs_cpu(const prospect_logits* logits,
                                             const prospect_indices* targets,
                                             const prospect_token_options* options,
                                             prospect_row log_prob, prospect_row lse,
                                             const prospect_token_statistics* statistics,
                                             prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const options_of o{options};
    pk::with_storage(l.dtype, [&]<class S>(S) {
      prospect::cpu::detail::token_log_probs<S>(
          pk::rows<S>(), pk::matrix<const S>(l), pk::targets_of(targets),
          pk::outputs_of<prospect::compute_t<S>>(log_prob, lse, statistics), o.options, o.executor);
    });
  });
}

prospect_status prospect_token_log_probs_and_gradient_cpu(
    const prospect_logits* logits, const prospect_indices* targets,
    const prospect_token_options* options, prospect_row log_prob, prospect_row lse,
    const prospect_token_statistics* statistics, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const options_of o{options};
    pk::with_storage(l.dtype, [&]<class S>(S) {
      prospect::cpu::detail::token_log_probs_and_gradient<S>(
          pk::rows<S>(), pk::matrix<S>(l), pk::targets_of(targets),
          pk::outputs_of<prospect::compute_t<S>>(log_prob, lse, statistics), o.options, o.executor);
    });
  });
}

prospect_status prospect_sequence_sums_cpu(prospect_dtype dtype, prospect_const_row token_log_prob,
                                           const prospect_indices* targets,
                                           const prospect_layout* layout, prospect_row log_prob,
                                           prospect_row tokens, prospect_error* error) {
  return pk::guard(error, [&] {
    pk::with_arithmetic(dtype, [&]<class R>(R) {
      prospect::cpu::sequence_sums<R>(pk::in<R>("token_log_prob", token_log_prob),
                                      pk::targets_of(targets), pk::layout_of(layout),
                                      {.log_prob = pk::out<double>("log_prob", log_prob),
                                       .tokens = pk::out<std::int32_t>("tokens", tokens)});
    });
  });
}

prospect_status prospect_spread_cpu(prospect_dtype dtype, prospect_const_row d_sequence,
                                    const prospect_indices* targets, const prospect_layout* layout,
                                    prospect_row d_token, prospect_error* error) {
  return pk::guard(error, [&] {
    pk::with_arithmetic(dtype, [&]<class R>(R) {
      prospect::cpu::spread<R>(pk::in<double>("d_sequence", d_sequence), pk::targets_of(targets),
                               pk::layout_of(layout), pk::out<R>("d_token", d_token));
    });
  });
}

prospect_status prospect_logits_gradient_cpu(const prospect_logits* logits,
                                             const prospect_indices* targets,
                                             const prospect_token_options* options,
                                             prospect_const_row log_prob, prospect_const_row lse,
                                             prospect_const_row d_token, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const options_of o{options};
    pk::with_storage(l.dtype, [&]<class S>(S) {
      using R = prospect::compute_t<S>;
      const auto x = pk::matrix<S>(l);
      const auto d = pk::in<R>("d_token", d_token);
      prospect::cpu::detail::require_row("d_token", d, x.rows);
      prospect::cpu::detail::logits_gradient<S>(
          pk::rows<S>(), x, x, pk::targets_of(targets), pk::in<R>("log_prob", log_prob),
          pk::in<double>("lse", lse), prospect::cpu::detail::loss_coefficients(d), o.options,
          o.executor);
    });
  });
}

prospect_status prospect_logits_gradient_into_cpu(
    const prospect_logits* logits, const prospect_logits* gradient, const prospect_indices* targets,
    const prospect_token_options* options, prospect_const_row log_prob, prospect_const_row lse,
    prospect_const_row softmax, prospect_const_row onehot, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const prospect_logits& g = pk::require(gradient, "gradient");
    if (g.dtype != l.dtype) pk::fail(PROSPECT_INVALID_ARGUMENT, "gradient.dtype is not logits'");
    const options_of o{options};
    pk::with_storage(l.dtype, [&]<class S>(S) {
      using R = prospect::compute_t<S>;
      const auto a = pk::in<R>("softmax", softmax);
      const auto b = pk::in<R>("onehot", onehot);
      prospect::cpu::detail::require_row("softmax", a, l.rows);
      prospect::cpu::detail::require_row("onehot", b, l.rows);
      prospect::cpu::detail::logits_gradient<S>(
          pk::rows<S>(), pk::matrix<const S>(l), pk::matrix<S>(g), pk::targets_of(targets),
          pk::in<R>("log_prob", log_prob), pk::in<double>("lse", lse),
          [&](std::int64_t t) {
            return prospect::cpu::detail::row_coefficients<R>{.softmax = a[t], .onehot = b[t]};
          },
          o.options, o.executor);
    });
  });
}

prospect_status prospect_scale_rows_cpu(const prospect_logits* matrix, prospect_const_row factors,
                                        prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& m = pk::require(matrix, "matrix");
    pk::with_storage(m.dtype, [&]<class S>(S) {
      prospect::cpu::scale_rows<S>(pk::matrix<S>(m),
                                   pk::in<prospect::compute_t<S>>("factors", factors));
    });
  });
}

prospect_status prospect_vocabulary_partials_cpu(const prospect_logits* logits,
                                                 const prospect_indices* targets,
                                                 const prospect_token_options* options,
                                                 int statistics, prospect_partial* partials,
                                                 prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    const options_of o{options};
    pk::with_storage(l.dtype, [&]<class S>(S) {
      prospect::cpu::detail::vocabulary_partials<S>(
          pk::rows<S>(), pk::matrix<const S>(l), pk::targets_of(targets),
          {pk::partials_of(&pk::require(partials, "partials")), l.rows}, o.options, statistics != 0,
          o.executor);
    });
  });
}

prospect_status prospect_combine_partials_cpu(prospect_dtype dtype,
                                              const prospect_partial* partials, int64_t parts,
                                              const prospect_indices* targets,
                                              prospect_row log_prob, prospect_row lse,
                                              const prospect_token_statistics* statistics,
                                              prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect::index_row y = pk::targets_of(targets);
    pk::with_arithmetic(dtype, [&]<class R>(R) {
      prospect::cpu::token_log_probs<R>(
          {pk::partials_of(&pk::require(partials, "partials")), parts, y.size()}, y,
          pk::outputs_of<R>(log_prob, lse, statistics));
    });
  });
}

prospect_status prospect_shift_targets(const prospect_indices* labels,
                                       const prospect_layout* layout, prospect_row targets,
                                       prospect_error* error) {
  return pk::guard(error, [&] {
    prospect::cpu::shift_targets(pk::indices("labels", pk::require(labels, "labels")),
                                 pk::layout_of(layout), pk::out<std::int32_t>("targets", targets));
  });
}
