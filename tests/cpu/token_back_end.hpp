// The CPU as a back end for the checks of token_checks.hpp, token_edges.hpp and token_rows.hpp.

#pragma once

#include <prospect/cpu/tokens.hpp>

#include <vector>

#include "cpu/token_checks.hpp"

namespace testing {

struct cpu_back_end {
  template <class S>
  token_results<compute_t<S>> forward(logits_matrix<S>& logits, prospect::index_row targets,
                                      const token_options& options) const {
    token_results<compute_t<S>> r{logits.rows()};
    prospect::cpu::token_log_probs<S>(logits.view(), targets, r.out(), options);
    return r;
  }
  /// `gradient` may be `logits`: in place.
  template <class S>
  void gradient(logits_matrix<S>& logits, logits_matrix<S>& gradient, prospect::index_row targets,
                const token_results<compute_t<S>>& pass, const std::vector<compute_t<S>>& a,
                const std::vector<compute_t<S>>& b, const token_options& options) const {
    prospect::cpu::logits_gradient<S>(logits.view(), gradient.view(), targets, pass.log_prob,
                                      pass.lse, {.softmax = a, .onehot = b}, options);
  }
  /// With a third for the entropy.
  template <class S>
  void gradient(logits_matrix<S>& logits, logits_matrix<S>& gradient, prospect::index_row targets,
                const token_results<compute_t<S>>& pass, const std::vector<compute_t<S>>& a,
                const std::vector<compute_t<S>>& b, const std::vector<compute_t<S>>& c,
                const token_options& options) const {
    prospect::cpu::logits_gradient<S>(
        logits.view(), gradient.view(), targets, pass.log_prob, pass.lse,
        {.softmax = a, .onehot = b, .d_entropy = c, .entropy = pass.entropy}, options);
  }
  /// With one coefficient; in place by the function that only knows that.
  template <class S>
  void gradient(logits_matrix<S>& logits, logits_matrix<S>& gradient, prospect::index_row targets,
                const token_results<compute_t<S>>& pass, const std::vector<compute_t<S>>& d_token,
                const token_options& options) const {
    if (&logits == &gradient) {
      prospect::cpu::logits_gradient<S>(logits.view(), targets, pass.log_prob, pass.lse, d_token,
                                        options);
    } else {
      prospect::cpu::logits_gradient<S>(logits.view(), gradient.view(), targets, pass.log_prob,
                                        pass.lse, d_token, options);
    }
  }
  /// The logits become the gradient of their log-probs.
  template <class S>
  token_results<compute_t<S>> deferred(logits_matrix<S>& logits, prospect::index_row targets,
                                       const token_options& options) const {
    token_results<compute_t<S>> r{logits.rows()};
    prospect::cpu::token_log_probs_and_gradient<S>(logits.view(), targets, r.out(), options);
    return r;
  }
  template <class S>
  std::vector<prospect::vocabulary_partial> partials(logits_matrix<S>& logits,
                                                     prospect::index_row targets,
                                                     const token_options& options) const {
    std::vector<prospect::vocabulary_partial> p(static_cast<std::size_t>(logits.rows()));
    prospect::cpu::vocabulary_partials<S>(logits.view(), targets, p, options, true);
    return p;
  }
};
inline constexpr cpu_back_end on_cpu;

}  // namespace testing
