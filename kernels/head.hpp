// The head path of each instruction set, head.cpp, and the best of them. All of a path is compiled
// for one: Eigen's products, which are most of the work, and what happens to rows between them.
#pragma once

#include "isa.hpp"

#include <prospect/batch.hpp>
#include <prospect/cpu/head_workspace.hpp>
#include <prospect/executor.hpp>
#include <prospect/head.hpp>
#include <prospect/layout.hpp>

#include <concepts>
#include <cstdint>

namespace prospect::kernels {

/// A host's executor by reference, so that no threads are those of one instruction set.
class any_executor {
 public:
  template <class E>
    requires(!std::same_as<E, any_executor>)
  explicit any_executor(const E& on) noexcept
      : on_{&on},
        threads_{threads_of(on)},
        run_{[](const void* e, std::int64_t n, task t) { static_cast<const E*>(e)->run(n, t); }} {}

  std::int64_t threads() const noexcept { return threads_; }
  void run(std::int64_t n, task t) const { run_(on_, n, t); }

 private:
  const void* on_;
  std::int64_t threads_;
  void (*run_)(const void*, std::int64_t, task);
};

/// What every function of the head path is given.
template <storage S>
struct head_call {
  matrix_view<const S> hidden;
  lm_head<S> head;
  index_row targets;
  head_options options;
  cpu::head_workspace<compute_t<S>>& workspace;
  any_executor on;
};

/// What goes back through the head: one coefficient a token or, where `d_token` is not meant, more.
template <storage S>
struct head_coefficients {
  using R = compute_t<S>;

  bool one;
  strided_span<const R> d_token;
  token_coefficients<R> rows;
};

/// Whole sequences of a step, and who is told when their log-probs are there.
struct head_sequences {
  sequence_layout layout;
  std::int64_t group;
  const void* context;
  void (*ready)(const void* context, std::int64_t first, std::int64_t last);
};

template <storage S>
struct head_functions {
  using R = compute_t<S>;

  cpu::head_ticket (*log_probs)(const head_call<S>&, const token_outputs<R>&, bool keep_gradients);
  void (*log_probs_and_gradient)(const head_call<S>&, const token_outputs<R>&,
                                 matrix_view<S> d_hidden);
  void (*gradient)(const head_call<S>&, strided_span<const R> log_prob,
                   strided_span<const double> lse, const head_coefficients<S>&,
                   const head_gradients<S>&, const cpu::head_ticket&);
  void (*step)(const head_call<S>&, const head_sequences&, const token_outputs<R>&,
               const head_coefficients<S>&, const head_gradients<S>&);
};

template <storage S>
head_functions<S> baseline_head();
template <storage S>
head_functions<S> avx2_head();
template <storage S>
head_functions<S> avx512_head();

template <storage S>
head_functions<S> head_for([[maybe_unused]] isa set) {
#if defined(PROSPECT_WITH_AVX512_HEAD)
  if (set == isa::avx512) return avx512_head<S>();
#endif
#if defined(PROSPECT_WITH_AVX2_HEAD)
  if (set >= isa::avx2) return avx2_head<S>();
#endif
  return baseline_head<S>();
}

}  // namespace prospect::kernels
