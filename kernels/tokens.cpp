// The C API on tokens: logits, log-probabilities, sums over sequences, and the way back.
#include "boundary.hpp"

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

}  // namespace

prospect_status prospect_token_log_probs_cpu(const prospect_logits* logits,
                                             const prospect_indices* targets, prospect_row log_prob,
                                             prospect_row lse, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    pk::with_storage(l.dtype, [&]<class S>(S) {
      prospect::cpu::token_log_probs<S>(
          matrix<const S>(l), targets_of(targets),
          {.log_prob = pk::out<prospect::compute_t<S>>("log_prob", log_prob),
           .lse = pk::out<double>("lse", lse)});
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
                                             prospect_const_row log_prob, prospect_const_row lse,
                                             prospect_const_row d_token, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_logits& l = pk::require(logits, "logits");
    pk::with_storage(l.dtype, [&]<class S>(S) {
      using R = prospect::compute_t<S>;
      prospect::cpu::logits_gradient<S>(matrix<S>(l), targets_of(targets),
                                        pk::in<R>("log_prob", log_prob), pk::in<double>("lse", lse),
                                        pk::in<R>("d_token", d_token));
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
