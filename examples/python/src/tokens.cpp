// Phases 1 and 3: logits to log-probabilities, and coefficients back.
#include "layout.hpp"
#include "losses.hpp"

namespace prospect::python {

namespace {

void log_probs(nb::handle logits, nb::handle targets, nb::dict results, nb::handle mask,
               nb::handle inverse_temperatures, double temperature, double soft_cap,
               std::uintptr_t stream, nb::object allocate) {
  arrays held;
  const prospect_matrix matrix = held.read_matrix("logits", logits);
  const prospect_tokens tokens =
      tokens_of(held, targets, mask, inverse_temperatures, temperature, soft_cap);
  prospect_token_results out{};
  PROSPECT_INIT(out);
  fill(out, token_results, results, held, true);
  call(
      held, {stream, allocate},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_token_log_probs_cpu(matrix, &tokens, &out, c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_token_log_probs_cuda(matrix, &tokens, &out, c, e);
      });
}

void logits_gradient(nb::handle logits, nb::handle gradient, nb::handle targets,
                     nb::dict coefficients, nb::handle mask, nb::handle inverse_temperatures,
                     double temperature, double soft_cap, std::uintptr_t stream,
                     nb::object allocate) {
  arrays held;
  // In place where both are the same array, which is then written to, and checked to be writable.
  const bool in_place = logits.is(gradient);
  const prospect_matrix out = held.write_matrix("gradient", gradient);
  const prospect_matrix matrix = in_place ? out : held.read_matrix("logits", logits);
  const prospect_tokens tokens =
      tokens_of(held, targets, mask, inverse_temperatures, temperature, soft_cap);
  prospect_token_coefficients in{};
  PROSPECT_INIT(in);
  fill(in, token_coefficients, coefficients, held, false);
  call(
      held, {stream, allocate},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_logits_gradient_cpu(matrix, out, &tokens, &in, c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_logits_gradient_cuda(matrix, out, &tokens, &in, c, e);
      });
}

}  // namespace

void add_tokens(nb::module_& m) {
  m.def("log_probs", &log_probs, nb::arg("logits"), nb::arg("targets"), nb::arg("results"),
        nb::arg("mask") = nb::none(), nb::arg("inverse_temperatures") = nb::none(),
        nb::arg("temperature") = 1.0, nb::arg("soft_cap") = 0.0, nb::arg("stream") = 0,
        nb::arg("allocate") = nb::none(),
        "Log-probabilities of targets, and statistics of the rows, written into `results`.");
  m.def("logits_gradient", &logits_gradient, nb::arg("logits"), nb::arg("gradient"),
        nb::arg("targets"), nb::arg("coefficients"), nb::arg("mask") = nb::none(),
        nb::arg("inverse_temperatures") = nb::none(), nb::arg("temperature") = 1.0,
        nb::arg("soft_cap") = 0.0, nb::arg("stream") = 0, nb::arg("allocate") = nb::none(),
        "The gradient of the logits, in place where `gradient` is `logits`.");
}

}  // namespace prospect::python
