// What the nodes of torch's graph have in common: tensors brought into a shape that the library
// reads, a scalar loss with the gradients that came with it, and the refusal to be differentiated
// twice.
#pragma once

#include <prospect/adapters/torch/views.hpp>
#include <prospect/layout.hpp>

#include <torch/csrc/autograd/custom_function.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

using at::Tensor;
using ::torch::autograd::AutogradContext;
using ::torch::autograd::variable_list;

/// An argument by the name that a refusal calls it.
struct named_tensor {
  std::string_view name;
  const Tensor& tensor;
};

/// For what torch's graph does not take undefined.
inline void must_be_defined(std::initializer_list<named_tensor> tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.defined()) refuse_tensor(name, "is not defined");
  }
}

/// Whether somebody will ask for a gradient by it.
inline bool wants_gradient(const Tensor& tensor) {
  return at::GradMode::is_enabled() && tensor.defined() && tensor.requires_grad();
}

/// What no gradient passes through must not look as if one did.
inline void no_gradient_through(std::initializer_list<named_tensor> tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (!wants_gradient(tensor)) continue;
    refuse_tensor(name, "requires a gradient, and none passes through it: detach() it");
  }
}

/// The device that the first tensor of a call is on, where the others have to be: one of the kind
/// that the back end works on.
inline at::Device device_of(const named_tensor& first, at::DeviceType kind) {
  must_be_defined({first});
  const at::Device device = first.tensor.device();
  if (device.type() != kind) {
    refuse_tensor(first.name, "is on " + device.str() + ", and this is the back end of " +
                                  at::DeviceTypeName(kind, true));
  }
  return device;
}

/// [..., n] as a matrix [rows, n] whose rows are contiguous: a view where there is one, else a
/// copy.
inline Tensor as_matrix(const named_tensor& given) {
  const auto& [name, tensor] = given;
  if (tensor.dim() < 1) refuse_tensor(name, "has no dimension");
  const Tensor flat = tensor.dim() == 2 ? tensor : tensor.reshape({-1, tensor.size(-1)});
  const bool fits = flat.size(0) == 0 || flat.size(1) == 0 ||
                    ((flat.size(1) == 1 || flat.stride(1) == 1) &&
                     (flat.size(0) == 1 || flat.stride(0) >= flat.size(1)));
  return fits ? flat : flat.contiguous();
}

/// One element for each row of `of` ([..., n], at least one dimension), as a tensor of one
/// dimension.
inline Tensor as_row(const named_tensor& given, const named_tensor& of) {
  const auto& [name, tensor] = given;
  const auto rows = of.tensor.sizes().slice(0, static_cast<std::size_t>(of.tensor.dim() - 1));
  if (tensor.sizes() != rows) {
    refuse_tensor(name,
                  "has not the shape of " + std::string{of.name} + " without its last dimension");
  }
  return tensor.reshape(-1);
}

/// [sequences, length] as [tokens], beside what says which token belongs to which sequence.
struct flat_tokens {
  at::IntArrayRef shape;
  const Tensor& offsets;
  at::Device device;

  /// Undefined stays undefined.
  Tensor operator()(const Tensor& tensor, std::string_view name) const {
    if (!tensor.defined()) return {};
    if (tensor.sizes() != shape) refuse_tensor(name, "has not the shape of the first argument");
    return tensor.reshape(-1);
  }
  sequence_layout layout() const {
    if (offsets.defined()) {
      if (shape.size() != 1) {
        refuse_tensor("offsets", "is given, and the tokens are not in one dimension");
      }
      return sequence_layout::packed(indices(offsets, "offsets", device));
    }
    if (shape.size() != 2) {
      refuse_tensor("offsets", "is not defined, and the tokens are not [sequences, length]");
    }
    return sequence_layout::padded(shape[0], shape[1]);
  }
};

/// The type of results that go with numbers of this storage type.
template <storage S>
constexpr at::ScalarType compute_type = torch_type<compute_t<S>>();

/// Nothing of an input but its place in the graph: no element, and so no memory.
inline Tensor place_of(const Tensor& input) {
  return wants_gradient(input) && input.dim() > 0 ? input.narrow(0, 0, 0).clone() : Tensor{};
}

/// Gradients that a second backward pass cannot go through, and says so. What is handed out has
/// been written by kernels that torch knows nothing of: without this a second derivative would be
/// missing without a word. It stands between them and all that they depend on, `places`.
struct no_second_gradient : ::torch::autograd::Function<no_second_gradient> {
  static variable_list forward(AutogradContext* ctx, at::TensorList gradients, at::TensorList,
                               const std::string& of) {
    ctx->saved_data["of"] = of;
    variable_list same;
    for (const Tensor& gradient : gradients) same.push_back(gradient.view_as(gradient));
    return same;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list&) {
    prospect::detail::refuse(
        ("prospect: " + ctx->saved_data["of"].toStringRef() + " is differentiated once, not twice")
            .c_str());
  }
};

/// What a backward pass returns: with create_graph, gradients of which no others can be asked.
/// @param d_results what it was given.
/// @param places of the inputs, the last of what was saved.
inline variable_list once(variable_list gradients, const variable_list& d_results,
                          at::TensorList places, const std::string& of) {
  if (!at::GradMode::is_enabled()) return gradients;
  variable_list given, depend_on;
  for (const Tensor& gradient : gradients) {
    if (gradient.defined()) given.push_back(gradient.detach());
  }
  for (const Tensor& place : places) {
    if (place.defined()) depend_on.push_back(place);
  }
  for (const Tensor& d : d_results) {
    if (d.defined() && d.requires_grad()) depend_on.push_back(d);
  }
  if (given.empty() || depend_on.empty()) return gradients;
  given = no_second_gradient::apply(at::TensorList{given}, at::TensorList{depend_on}, of);
  auto next = given.begin();
  for (Tensor& gradient : gradients) {
    if (gradient.defined()) gradient = *next++;
  }
  return gradients;
}

/// What phase 2 has computed of n inputs: its gradients by them and their places in the graph.
struct scalar_arguments {
  variable_list gradients, places;
  std::string of;
};

/// A scalar, and through it the gradients that its forward pass has left.
struct scalar_node : ::torch::autograd::Function<scalar_node> {
  static Tensor forward(AutogradContext* ctx, at::TensorList inputs, const Tensor& total,
                        const scalar_arguments& given) {
    ctx->saved_data["of"] = given.of;
    ctx->saved_data["inputs"] = static_cast<std::int64_t>(inputs.size());
    variable_list saved = given.gradients;
    saved.insert(saved.end(), given.places.begin(), given.places.end());
    ctx->save_for_backward(saved);
    return total.clone();  // torch lets nobody write to a view that a node hands out
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& d_total) {
    const auto n = static_cast<std::size_t>(ctx->saved_data["inputs"].toInt());
    const variable_list saved = ctx->get_saved_variables();
    variable_list result(n + 2);
    for (std::size_t i = 0; i < n; ++i) result[i] = saved[i] * d_total[0].detach();
    return once(std::move(result), d_total, at::TensorList{saved}.slice(n),
                ctx->saved_data["of"].toStringRef());
  }
};

/// Where the gradient by an input goes, if it is wanted: fp64 for fp64, else fp32, which torch
/// rounds to the type of the input once the gradient of what follows is in it.
inline Tensor coefficients_of(const Tensor& input) {
  if (!wants_gradient(input)) return {};
  const auto type = input.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::empty(input.sizes(), input.options().dtype(type).requires_grad(false));
}

/// An input beside where its gradient went.
struct input_and_gradient {
  const Tensor& input;
  const Tensor& gradient;
};

/// `total`, and through it the gradients by the inputs.
inline Tensor scalar(const Tensor& total, std::initializer_list<input_and_gradient> inputs,
                     const std::string& of) {
  variable_list wanted;
  scalar_arguments given{.gradients = {}, .places = {}, .of = of};
  for (const auto& [input, gradient] : inputs) {
    if (!gradient.defined()) continue;
    wanted.push_back(input);
    given.gradients.push_back(gradient);
    given.places.push_back(place_of(input));
  }
  if (wanted.empty()) return total;
  return scalar_node::apply(at::TensorList{wanted}, total, given);
}

/// What a loss is called, for sentences.
template <class Loss>
std::string name_of(const Loss&) {
  if constexpr (requires { Loss::name; }) {
    return std::string{Loss::name};
  } else {
    return "this loss";
  }
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
