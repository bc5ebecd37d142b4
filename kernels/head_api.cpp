// The C API from hidden states.
#include "context.hpp"
#include "head.hpp"
#include "head_memory.hpp"
#include "head_views.hpp"

namespace pk = prospect::kernels;

namespace {

using prospect::compute_t;

/// The functions for one storage type, and what all of them are given.
template <class S>
struct head_pass {
  const pk::host_context& host;
  const pk::tokens_of tokens;
  const pk::head_call<S> call;
  const pk::head_functions<S> functions = pk::head_for<S>(pk::best_isa());

  head_pass(const pk::host_context& on, const prospect_matrix& hidden, const prospect_head* head,
            const prospect_tokens* given, prospect_head_workspace* workspace)
      : host{on}, tokens{given}, call{call_of(hidden, pk::head_of<S>(head), workspace)} {}

 private:
  pk::head_call<S> call_of(const prospect_matrix& hidden, const prospect::lm_head<S>& head,
                           prospect_head_workspace* workspace) const {
    return {.hidden = pk::matrix<const S>("hidden", hidden),
            .head = head,
            .targets = tokens.targets,
            .options = pk::head_options_of(tokens, head.weight.rows),
            .workspace = pk::require(workspace, "workspace").template of<compute_t<S>>(),
            .on = pk::any_executor{host.on}};
  }
};

/// body(pass) for the hidden states' storage type, unless the call is asked for its scratch: it
/// takes none.
template <class Body>
void with_pass(const prospect_context* context, const prospect_matrix& hidden,
               const prospect_head* head, const prospect_tokens* tokens,
               prospect_head_workspace* workspace, const Body& body) {
  const pk::host_context host{context};
  if (host.asked()) return;
  pk::with_storage("hidden", hidden.dtype, [&]<class S>(S) {
    body(head_pass<S>{host, hidden, head, tokens, workspace});
  });
}

template <class S>
pk::head_coefficients<S> coefficients_of(const pk::coefficients_of<compute_t<S>>& c) {
  return {.one = c.one, .d_token = c.d_token, .rows = c.rows};
}

void tell(const void* context, std::int64_t first, std::int64_t last) {
  const auto& theirs = *static_cast<const prospect_head_ready*>(context);
  const prospect_status status = theirs.ready(theirs.context, first, last);
  if (status == PROSPECT_OK) return;
  pk::fail(status, "ready answered " + std::to_string(status) + " for sequences " +
                       std::to_string(first) + " to " + std::to_string(last - 1));
}

}  // namespace

prospect_status prospect_head_log_probs_cpu(
    prospect_matrix hidden, const prospect_head* head, const prospect_tokens* tokens,
    const prospect_token_results* results, prospect_head_ticket* ticket, int32_t keep_gradients,
    prospect_head_workspace* workspace, const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    with_pass(context, hidden, head, tokens, workspace, [&]<class S>(const head_pass<S>& pass) {
      if (keep_gradients != 0) pk::require(ticket, "ticket");
      auto given = pass.functions.log_probs(pass.call, pk::outputs_of<compute_t<S>>(results),
                                            keep_gradients != 0);
      if (ticket != nullptr) ticket->ticket = std::move(given);
    });
  });
}

prospect_status prospect_head_log_probs_and_gradient_cpu(
    prospect_matrix hidden, const prospect_head* head, const prospect_tokens* tokens,
    const prospect_token_results* results, prospect_matrix d_hidden,
    prospect_head_workspace* workspace, const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    with_pass(context, hidden, head, tokens, workspace, [&]<class S>(const head_pass<S>& pass) {
      pass.functions.log_probs_and_gradient(pass.call, pk::outputs_of<compute_t<S>>(results),
                                            pk::typed_matrix<S>("d_hidden", d_hidden));
    });
  });
}

prospect_status prospect_head_gradient_cpu(prospect_matrix hidden, const prospect_head* head,
                                           const prospect_tokens* tokens,
                                           const prospect_token_coefficients* coefficients,
                                           const prospect_head_gradients* gradients,
                                           const prospect_head_ticket* ticket,
                                           prospect_head_workspace* workspace,
                                           const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    with_pass(context, hidden, head, tokens, workspace, [&]<class S>(const head_pass<S>& pass) {
      const pk::coefficients_of<compute_t<S>> by{coefficients};
      pass.functions.gradient(pass.call, by.log_prob, by.lse, coefficients_of<S>(by),
                              pk::gradients_of<S>(gradients),
                              ticket == nullptr ? prospect::cpu::head_ticket{} : ticket->ticket);
    });
  });
}

prospect_status prospect_head_step_cpu(const prospect_head_step* step,
                                       const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_head_step s = pk::versioned(step, "step");
    with_pass(context, s.hidden, s.head, s.tokens, s.workspace,
              [&]<class S>(const head_pass<S>& pass) {
                if (s.ready.ready == nullptr) {
                  pk::fail(PROSPECT_INVALID_ARGUMENT, "step.ready.ready is NULL");
                }
                pass.functions.step(
                    pass.call,
                    {.layout = pass.tokens.layout(),
                     .group = s.group,
                     .context = &s.ready,
                     .ready = tell},
                    pk::outputs_of<compute_t<S>>(s.results),
                    coefficients_of<S>(pk::step_coefficients_of<compute_t<S>>(s.coefficients)),
                    pk::gradients_of<S>(s.gradients));
              });
  });
}
