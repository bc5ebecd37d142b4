// The head path on the host: from hidden states and the weight of the last layer, without logits.
#include "layout.hpp"
#include "losses.hpp"

namespace prospect::python {

namespace {

void refuse_device(const arrays& held) {
  if (held.on_device()) refuse("hidden", "must lie on the host");
}

prospect_head head_of(arrays& held, nb::handle weight, nb::handle bias, nb::handle lora_a,
                      nb::handle lora_b, double lora_scale) {
  prospect_head head{};
  PROSPECT_INIT(head);
  head.weight = held.read_matrix("weight", weight);
  head.bias = held.read("bias", bias, made_of::reals);
  head.lora.a = held.read_matrix("lora_a", lora_a);
  head.lora.b = held.read_matrix("lora_b", lora_b);
  head.lora.scale = lora_scale;
  return head;
}

/// Memory of the head path, and the forward pass that a backward pass follows.
class workspace {
 public:
  explicit workspace(std::int64_t bytes) {
    prospect_error error{};
    check(prospect_head_workspace_create(bytes, &memory_, &error), error);
    if (const prospect_status status = prospect_head_ticket_create(&ticket_, &error);
        status != PROSPECT_OK) {
      prospect_head_workspace_destroy(memory_);
      check(status, error);
    }
  }
  ~workspace() {
    prospect_head_ticket_destroy(ticket_);
    prospect_head_workspace_destroy(memory_);
  }
  workspace(const workspace&) = delete;
  workspace& operator=(const workspace&) = delete;

  prospect_head_workspace* memory() const { return memory_; }
  prospect_head_ticket* ticket() const { return ticket_; }

 private:
  prospect_head_workspace* memory_ = nullptr;
  prospect_head_ticket* ticket_ = nullptr;
};

void log_probs(nb::handle hidden, nb::handle weight, nb::handle targets, nb::dict results,
               workspace& space, nb::handle bias, nb::handle lora_a, nb::handle lora_b,
               double lora_scale, nb::handle mask, double temperature, double soft_cap,
               bool keep_gradients, nb::handle d_hidden) {
  arrays held;
  const prospect_matrix matrix = held.read_matrix("hidden", hidden);
  const prospect_head head = head_of(held, weight, bias, lora_a, lora_b, lora_scale);
  const prospect_tokens tokens = tokens_of(held, targets, mask, nb::none(), temperature, soft_cap);
  prospect_token_results out{};
  PROSPECT_INIT(out);
  fill(out, token_results, results, held, true);
  const prospect_matrix gradient = held.write_matrix("d_hidden", d_hidden);
  refuse_device(held);
  const auto run = [&](const prospect_context* c, prospect_error* e) {
    if (gradient.data != nullptr) {
      return prospect_head_log_probs_and_gradient_cpu(matrix, &head, &tokens, &out, gradient,
                                                      space.memory(), c, e);
    }
    return prospect_head_log_probs_cpu(matrix, &head, &tokens, &out, space.ticket(),
                                       keep_gradients ? 1 : 0, space.memory(), c, e);
  };
  call(held, {}, run, run);
}

void gradient(nb::handle hidden, nb::handle weight, nb::handle targets, nb::dict coefficients,
              nb::dict gradients, workspace& space, bool follows, nb::handle bias,
              nb::handle lora_a, nb::handle lora_b, double lora_scale, nb::handle mask,
              double temperature, double soft_cap) {
  arrays held;
  const prospect_matrix matrix = held.read_matrix("hidden", hidden);
  const prospect_head head = head_of(held, weight, bias, lora_a, lora_b, lora_scale);
  const prospect_tokens tokens = tokens_of(held, targets, mask, nb::none(), temperature, soft_cap);
  prospect_token_coefficients in{};
  PROSPECT_INIT(in);
  fill(in, token_coefficients, coefficients, held, false);
  prospect_head_gradients out{};
  PROSPECT_INIT(out);
  const auto wanted = [&](const char* name) -> nb::object {
    return gradients.contains(name) ? nb::object(gradients[name]) : nb::none();
  };
  out.hidden = held.write_matrix("hidden", wanted("hidden"));
  out.weight = held.write_matrix("weight", wanted("weight"));
  out.bias = held.write("bias", wanted("bias"));
  out.lora_a = held.write_matrix("lora_a", wanted("lora_a"));
  out.lora_b = held.write_matrix("lora_b", wanted("lora_b"));
  refuse_device(held);
  const auto run = [&](const prospect_context* c, prospect_error* e) {
    return prospect_head_gradient_cpu(matrix, &head, &tokens, &in, &out,
                                      follows ? space.ticket() : nullptr, space.memory(), c, e);
  };
  call(held, {}, run, run);
}

void scale_rows(nb::handle matrix, nb::handle factors) {
  arrays held;
  const prospect_matrix m = held.write_matrix("matrix", matrix);
  const prospect_row f = held.read("factors", factors, made_of::reals);
  refuse_device(held);
  const auto run = [&](const prospect_context* c, prospect_error* e) {
    return prospect_scale_rows_cpu(m, f, c, e);
  };
  call(held, {}, run, run);
}

}  // namespace

void add_head(nb::module_& m) {
  nb::class_<workspace>(m, "HeadWorkspace",
                        "Memory of the head path, allocated at its first use: one call at a time.")
      .def(nb::init<std::int64_t>(), nb::arg("bytes"))
      .def_prop_ro(
          "kept", [](const workspace& w) { return prospect_head_ticket_kept(w.ticket()); },
          "How many tokens' gradients it still has.");
  m.def("head_log_probs", &log_probs, nb::arg("hidden"), nb::arg("weight"), nb::arg("targets"),
        nb::arg("results"), nb::arg("workspace"), nb::arg("bias") = nb::none(),
        nb::arg("lora_a") = nb::none(), nb::arg("lora_b") = nb::none(), nb::arg("lora_scale") = 0.0,
        nb::arg("mask") = nb::none(), nb::arg("temperature") = 1.0, nb::arg("soft_cap") = 0.0,
        nb::arg("keep_gradients") = false, nb::arg("d_hidden") = nb::none(),
        "Log-probabilities from hidden states; with `d_hidden` their gradient, for scale_rows.");
  m.def("head_gradient", &gradient, nb::arg("hidden"), nb::arg("weight"), nb::arg("targets"),
        nb::arg("coefficients"), nb::arg("gradients"), nb::arg("workspace"),
        nb::arg("follows") = false, nb::arg("bias") = nb::none(), nb::arg("lora_a") = nb::none(),
        nb::arg("lora_b") = nb::none(), nb::arg("lora_scale") = 0.0, nb::arg("mask") = nb::none(),
        nb::arg("temperature") = 1.0, nb::arg("soft_cap") = 0.0,
        "Gradients of hidden states, weight, bias and adapter.");
  m.def("scale_rows", &scale_rows, nb::arg("matrix"), nb::arg("factors"),
        "Multiplies row t of the matrix by factors[t].");
}

}  // namespace prospect::python
