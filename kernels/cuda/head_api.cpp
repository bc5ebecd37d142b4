// The C API from hidden states on a device: arguments checked by name on the host, then the
// launchers.
#include "../head_views.hpp"
#include "context.hpp"
#include "head_launchers.hpp"

namespace pk = prospect::kernels;
namespace gpu = prospect::cuda;

namespace {

/// What all functions are given, for one storage type.
template <class S>
struct device_rows {
  const pk::device_context& device;
  const pk::tokens_of tokens;
  const gpu::head_rows<S> rows;
  const pk::callers_gemm multiply;

  device_rows(const pk::device_context& on, const prospect_head_rows& given)
      : device{on}, tokens{given.tokens}, rows{rows_of(given)}, multiply{given.gemm} {
    if (given.gemm.multiply == nullptr) {
      pk::fail(PROSPECT_INVALID_ARGUMENT, "rows.gemm.multiply is NULL");
    }
  }

 private:
  gpu::head_rows<S> rows_of(const prospect_head_rows& given) const {
    return {.hidden = pk::matrix<const S>("hidden", given.hidden),
            .head = pk::head_of<S>(given.head),
            .targets = tokens.targets,
            .options = pk::head_options_of(tokens.options),
            .scored_at_most = given.scored_at_most,
            .first_token = tokens.options.first_token,
            .vocabulary = tokens.options.vocabulary,
            .scored = given.scored};
  }
};

/// body(given) for the hidden states' storage type.
template <class Body>
void with_rows(const prospect_context* context, const prospect_head_rows* pointer,
               const Body& body) {
  const prospect_head_rows rows = pk::versioned(pointer, "rows");
  const pk::device_context device{context};
  pk::with_device_storage("hidden", rows.hidden.dtype, [&]<class S>(S) {
    body(device_rows<S>{device, rows});
  });
}

/// Coefficients as the checks have them: one for each token stands there twice.
prospect::token_coefficients<float> checked(const pk::coefficients_of<float>& by,
                                            std::int64_t tokens) {
  if (!by.one) return by.rows;
  pk::check(gpu::detail::input_problem<"d_token">(by.d_token, tokens));
  return prospect::detail::loss_coefficients(by.d_token).rows;
}

}  // namespace

prospect_status prospect_head_log_probs_cuda(const prospect_head_rows* rows,
                                             const prospect_token_results* results, int64_t* kept,
                                             const prospect_context* context,
                                             prospect_error* error) {
  return pk::guard(error, [&] {
    with_rows(context, rows, [&]<class S>(const device_rows<S>& g) {
      const auto out = pk::outputs_of<float>(results);
      pk::check(gpu::problem(g.rows, out));
      gpu::head_ticket ticket;
      g.device.run_within_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::head_launchers<S>::log_probs(g.rows, out, g.multiply, space, stream,
                                                kept == nullptr ? nullptr : &ticket);
      });
      if (kept != nullptr && !g.device.asked()) *kept = ticket.kept;
    });
  });
}

prospect_status prospect_head_log_probs_and_gradient_cuda(const prospect_head_rows* rows,
                                                          const prospect_token_results* results,
                                                          prospect_matrix d_hidden,
                                                          const prospect_context* context,
                                                          prospect_error* error) {
  return pk::guard(error, [&] {
    with_rows(context, rows, [&]<class S>(const device_rows<S>& g) {
      const auto out = pk::outputs_of<float>(results);
      const auto to = pk::typed_matrix<S>("d_hidden", d_hidden);
      pk::check(gpu::problem(g.rows, out, to));
      g.device.run_within_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::head_launchers<S>::log_probs_and_gradient(g.rows, out, to, g.multiply, space,
                                                             stream);
      });
    });
  });
}

prospect_status prospect_head_gradient_cuda(const prospect_head_rows* rows,
                                            const prospect_token_coefficients* coefficients,
                                            const prospect_head_gradients* gradients, int64_t kept,
                                            const prospect_context* context,
                                            prospect_error* error) {
  return pk::guard(error, [&] {
    with_rows(context, rows, [&]<class S>(const device_rows<S>& g) {
      const pk::coefficients_of<float> by{coefficients};
      const auto to = pk::gradients_of<S>(gradients);
      const gpu::head_ticket ticket{kept};
      pk::check(gpu::problem(g.rows, by.log_prob, by.lse, checked(by, g.rows.hidden.rows), to));
      pk::check(gpu::problem(g.rows, ticket));
      g.device.run_within_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::head_launchers<S>::gradient(g.rows, by, to, ticket, g.multiply, space, stream);
      });
    });
  });
}

prospect_status prospect_head_vocabulary_partials_cuda(const prospect_head_rows* rows,
                                                       int32_t statistics,
                                                       prospect_partial* partials,
                                                       const prospect_context* context,
                                                       prospect_error* error) {
  return pk::guard(error, [&] {
    with_rows(context, rows, [&]<class S>(const device_rows<S>& g) {
      const auto out = pk::partials_row(partials, g.rows.hidden.rows);
      pk::check(gpu::problem(g.rows, out));
      g.device.run_within_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::head_launchers<S>::partials(g.rows, out, statistics != 0, g.multiply, space,
                                               stream);
      });
    });
  });
}

prospect_status prospect_head_step_cuda(const prospect_device_head_step* step,
                                        const prospect_context* context, prospect_error* error) {
  return pk::guard(error, [&] {
    const prospect_device_head_step s = pk::versioned(step, "step");
    with_rows(context, s.rows, [&]<class S>(const device_rows<S>& g) {
      if (s.ready.ready == nullptr) {
        pk::fail(PROSPECT_INVALID_ARGUMENT, "step.ready.ready is NULL");
      }
      if (s.group < 1) pk::fail(PROSPECT_INVALID_ARGUMENT, "step.group must be at least 1");
      const prospect::sequence_layout layout = g.tokens.layout();
      const auto out = pk::outputs_of<float>(s.results);
      const auto by = pk::step_coefficients_of<float>(s.coefficients);
      const auto to = pk::gradients_of<S>(s.gradients);
      pk::check(gpu::problem(g.rows, layout, s.group, out, checked(by, g.rows.hidden.rows), to));
      g.device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::head_launchers<S>::step(g.rows, layout, s.group, out, {s.ready}, by, to,
                                           g.multiply, space, stream);
      });
    });
  });
}
