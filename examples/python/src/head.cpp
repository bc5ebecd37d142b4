// The head path: from hidden states and the weight of the last layer, without logits. On a device
// its matrix product is an argument; cuBLASLt's is in a module of its own (cublaslt.cpp).
#include "layout.hpp"
#include "losses.hpp"

#include <prospect/c/cuda_head.h>

#include <algorithm>

namespace prospect::python {

namespace {

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

/// Memory of the head path, and the forward pass that a backward pass follows. On a device it is
/// no more than a size: each call's scratch is allocated in the order of its stream, and nothing is
/// kept.
class workspace {
 public:
  explicit workspace(std::int64_t bytes) : bytes_{bytes} {
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

  std::size_t bytes() const { return static_cast<std::size_t>(std::max<std::int64_t>(bytes_, 0)); }
  prospect_head_workspace* memory() const { return memory_; }
  prospect_head_ticket* ticket() const { return ticket_; }

 private:
  std::int64_t bytes_;
  prospect_head_workspace* memory_ = nullptr;
  prospect_head_ticket* ticket_ = nullptr;
};

/// What the calls on a device are given; `gemm` is a capsule of that name around a prospect_gemm.
prospect_head_rows device_rows_of(const arrays& held, const prospect_matrix& hidden,
                                  const prospect_head& head, const prospect_tokens& tokens,
                                  nb::handle gemm) {
  prospect_head_rows rows{};
  PROSPECT_INIT(rows);
  if (!held.on_device()) return rows;
  check_device(held);
  if (gemm.is_none()) {
    refuse("hidden",
           "lies on a CUDA device, and this package was built without cuBLASLt, whose matrix "
           "products the head path takes there: give logits to log_probs");
  }
  const void* const product = PyCapsule_GetPointer(gemm.ptr(), "prospect_gemm");
  if (product == nullptr) throw nb::python_error();
  rows.hidden = hidden;
  rows.head = &head;
  rows.tokens = &tokens;
  rows.scored_at_most = hidden.rows;  // how many are scored the host could only know by waiting
  rows.gemm = *static_cast<const prospect_gemm*>(product);
  return rows;
}

void refuse_kept(const arrays& held, const char* name, bool asked_for) {
  if (asked_for && held.on_device()) {
    refuse(name, "is for the host: on a device nothing is kept from call to call");
  }
}

void log_probs(nb::handle hidden, nb::handle weight, nb::handle targets, nb::dict results,
               workspace& space, nb::handle bias, nb::handle lora_a, nb::handle lora_b,
               double lora_scale, nb::handle mask, double temperature, double soft_cap,
               bool keep_gradients, nb::handle d_hidden, std::uintptr_t stream, nb::object allocate,
               nb::handle gemm) {
  arrays held;
  const prospect_matrix matrix = held.read_matrix("hidden", hidden);
  const prospect_head head = head_of(held, weight, bias, lora_a, lora_b, lora_scale);
  const prospect_tokens tokens = tokens_of(held, targets, mask, nb::none(), temperature, soft_cap);
  prospect_token_results out{};
  PROSPECT_INIT(out);
  fill(out, token_results, results, held, true);
  const prospect_matrix gradient = held.write_matrix("d_hidden", d_hidden);
  refuse_kept(held, "keep_gradients", keep_gradients);
  const prospect_head_rows rows = device_rows_of(held, matrix, head, tokens, gemm);
  call(
      held, {stream, allocate, space.bytes()},
      [&](const prospect_context* c, prospect_error* e) {
        if (gradient.data != nullptr) {
          return prospect_head_log_probs_and_gradient_cpu(matrix, &head, &tokens, &out, gradient,
                                                          space.memory(), c, e);
        }
        return prospect_head_log_probs_cpu(matrix, &head, &tokens, &out, space.ticket(),
                                           keep_gradients ? 1 : 0, space.memory(), c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        if (gradient.data != nullptr) {
          return prospect_head_log_probs_and_gradient_cuda(&rows, &out, gradient, c, e);
        }
        return prospect_head_log_probs_cuda(&rows, &out, nullptr, c, e);
      });
}

void gradient(nb::handle hidden, nb::handle weight, nb::handle targets, nb::dict coefficients,
              nb::dict gradients, workspace& space, bool follows, nb::handle bias,
              nb::handle lora_a, nb::handle lora_b, double lora_scale, nb::handle mask,
              double temperature, double soft_cap, std::uintptr_t stream, nb::object allocate,
              nb::handle gemm) {
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
  refuse_kept(held, "follows", follows);
  const prospect_head_rows rows = device_rows_of(held, matrix, head, tokens, gemm);
  call(
      held, {stream, allocate, space.bytes()},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_head_gradient_cpu(matrix, &head, &tokens, &in, &out,
                                          follows ? space.ticket() : nullptr, space.memory(), c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_head_gradient_cuda(&rows, &in, &out, 0, c, e);
      });
}

void scale_rows(nb::handle matrix, nb::handle factors, std::uintptr_t stream, nb::object allocate) {
  arrays held;
  const prospect_matrix m = held.write_matrix("matrix", matrix);
  const prospect_row f = held.read("factors", factors, made_of::reals);
  call(
      held, {stream, allocate},
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_scale_rows_cpu(m, f, c, e);
      },
      [&](const prospect_context* c, prospect_error* e) {
        return prospect_scale_rows_cuda(m, f, c, e);
      });
}

}  // namespace

void add_head(nb::module_& m) {
  nb::class_<workspace>(m, "HeadWorkspace",
                        "Memory of the head path, allocated at its first use: one call at a time. "
                        "On a device, how much scratch a call may take.")
      .def(nb::init<std::int64_t>(), nb::arg("bytes"))
      .def_prop_ro(
          "kept", [](const workspace& w) { return prospect_head_ticket_kept(w.ticket()); },
          "How many tokens' gradients it still has.");
  m.def("head_log_probs", &log_probs, nb::arg("hidden"), nb::arg("weight"), nb::arg("targets"),
        nb::arg("results"), nb::arg("workspace"), nb::arg("bias") = nb::none(),
        nb::arg("lora_a") = nb::none(), nb::arg("lora_b") = nb::none(), nb::arg("lora_scale") = 0.0,
        nb::arg("mask") = nb::none(), nb::arg("temperature") = 1.0, nb::arg("soft_cap") = 0.0,
        nb::arg("keep_gradients") = false, nb::arg("d_hidden") = nb::none(), nb::arg("stream") = 0,
        nb::arg("allocate") = nb::none(), nb::arg("gemm") = nb::none(),
        "Log-probabilities from hidden states; with `d_hidden` their gradient, for scale_rows. On "
        "a device `gemm` is its matrix product, a capsule \"prospect_gemm\".");
  m.def("head_gradient", &gradient, nb::arg("hidden"), nb::arg("weight"), nb::arg("targets"),
        nb::arg("coefficients"), nb::arg("gradients"), nb::arg("workspace"),
        nb::arg("follows") = false, nb::arg("bias") = nb::none(), nb::arg("lora_a") = nb::none(),
        nb::arg("lora_b") = nb::none(), nb::arg("lora_scale") = 0.0, nb::arg("mask") = nb::none(),
        nb::arg("temperature") = 1.0, nb::arg("soft_cap") = 0.0, nb::arg("stream") = 0,
        nb::arg("allocate") = nb::none(), nb::arg("gemm") = nb::none(),
        "Gradients of hidden states, weight, bias and adapter.");
  m.def("scale_rows", &scale_rows, nb::arg("matrix"), nb::arg("factors"), nb::arg("stream") = 0,
        nb::arg("allocate") = nb::none(), "Multiplies row t of the matrix by factors[t].");
}

}  // namespace prospect::python
