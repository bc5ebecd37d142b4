// The C API on tokens: logits, log-probabilities, sums over sequences, and the way back.
#include "boundary.hpp"
#include "rows.hpp"

#include <prospect/cpu/tokens.hpp>

namespace pk = prospect::kernels;

namespace {

template <class T>
prospect::matrix_view<T> matrix(const prospect_logits& l) {
  pk::check_reserved("logits", l.reserved);
  if (l.rows < 0 || l.columns < 0)
    pk::fail(PROSPECT_INVALID_ARGUMENT, "logits have a negative size");
  if (l.rows == 0) return {nullptr, 0, l.columns, l.pitch};
  // One row through the common checks: NULL and alignment.
  const auto first = pk::row("logits", static_cast<T*>(l.data), l.columns, 1);
  return {first.data(), l.rows, l.columns, l.pitch};
}

prospect::sequence_layout layout_of(const prospect_layout* pointer) {
  const prospect_layout& l = pk::require(pointer, "layout");
  if (l.offsets.row.size != 0) {
    return prospect::sequence_layout::packed(pk::indices("layout.offsets", l.offsets));
  }
  return prospect::sequence_layout::padded(l.sequences, l.length);
}

prospect::index_row targets_of(const prospect_indices* targets) {
  return pk::indices("targets", pk::require(targets, "targets"));
}

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
  prospect_token_options given{};
  prospect::token_options options{};
  executor_of executor;

  explicit options_of(const prospect_token_options* pointer)
      : given{pointer == nullptr ? prospect_token_options{} : pk::versioned(pointer, "options")},
        executor{given.executor} {
    if (given.temperature != 0) options.temperature = given.temperature;
    if (given.soft_cap != 0) options.soft_cap = given.soft_cap;
    options.first_token = given.first_token;
    options.vocabulary = given.vocabulary;
  }
};

template <class R>
prospect::token_outputs<R> outputs_of(prospect_row log_prob, prospect_row lse,
                                           const prospect_token_statistics* pointer) {
  const prospect_token_statistics s =
      pointer == nullptr ? prospect_token_statistics{} : pk::versioned(pointer, "statistics");
  return {.log_prob = pk::out<R>("log_prob", log_prob),
          .lse = pk::out<double>("lse", lse),
          .entropy = pk::out<R>("entropy", s.entropy),
          .sum_squares = pk::out<R>("sum_squares", s.sum_squares),
          .mean_logit = pk::out<R>("mean_logit", s.mean_logit),
          .target_is_argmax = pk::out<std::uint8_t>("target_is_argmax", s.target_is_argmax)};
}

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
          pk::rows<S>(), matrix<const S>(l), targets_of(targets),
          outputs_of<prospect::compute_t<S>>(log_prob, lse, statistics), o.options, o.executor);
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
          pk::rows<S>(), matrix<S>(l), targets_of(targets),
          outputs_of<prospect::compute_t<S>>(log_prob, lse, statistics), o.options, o.executor);
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
                                      targets_of(targets), layout_of(layout),
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
      prospect::cpu::spread<R>(pk::in<double>("d_sequence", d_sequence), targets_of(targets),
                               layout_of(layout), pk::out<R>("d_token", d_token));
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
      const auto x = matrix<S>(l);
      const auto d = pk::in<R>("d_token", d_token);
      prospect::cpu::detail::require_row("d_token", d, x.rows);
      prospect::cpu::detail::logits_gradient<S>(
          pk::rows<S>(), x, x, targets_of(targets), pk::in<R>("log_prob", log_prob),
          pk::in<double>("lse", lse), prospect::cpu::detail::loss_coefficients(d), o.options,
          o.executor);
    });
  });
}

prospect_status prospect_shift_targets(const prospect_indices* labels,
                                       const prospect_layout* layout, prospect_row targets,
                                       prospect_error* error) {
  return pk::guard(error, [&] {
    prospect::cpu::shift_targets(pk::indices("labels", pk::require(labels, "labels")),
                                 layout_of(layout), pk::out<std::int32_t>("targets", targets));
  });
}
