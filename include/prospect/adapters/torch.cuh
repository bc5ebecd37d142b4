// libtorch on a CUDA device: `torch_cuda{}` as the last argument of the functions of torch.hpp, in
// a .cu file. Work goes to torch's current stream, scratch memory comes from its caching allocator,
// and nothing is waited for: metrics stay on the device until they are read.
//
// ```cpp
// namespace on_torch = prospect::adapters;
// const on_torch::torch_cuda device;
// const auto log_probs = on_torch::head_log_probs(hidden, weight, {}, targets, {}, device);
// const auto sums = on_torch::sequence_sums(log_probs, targets, {}, device);
// const auto mean = prospect::normaliser::mean();
// const auto loss = on_torch::evaluate(prospect::dpo{}, batch, mean, device);
// loss.total.backward();
// const prospect::paired_metrics seen = loss.metrics.read();  // waits
// ```
//
// Logits and hidden states are float, half or bfloat16. Needs nvcc, a libtorch that was built with
// CUDA (2.x), and cuBLASLt.
#pragma once

#include <prospect/adapters/torch/head.hpp>
#include <prospect/adapters/torch/sequences.hpp>
#include <prospect/adapters/torch/tokens.hpp>
#include <prospect/cuda/gemm_cublaslt.hpp>
#include <prospect/cuda/head.cuh>
#include <prospect/cuda/sequences.cuh>
#include <prospect/cuda/token_losses.cuh>
#include <prospect/cuda/tokens.cuh>

#include <ATen/cuda/CUDAContext.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <algorithm>
#include <cstddef>
#include <string>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// Memory of torch's caching allocator, which hands it on in the order of the current stream.
inline Tensor device_memory(std::size_t bytes) {
  return at::empty({static_cast<std::int64_t>(bytes)},
                   at::TensorOptions{}.dtype(at::kByte).device(
                       at::Device{at::kCUDA, c10::cuda::current_device()}));
}

inline void refuse_if(const char* problem) {
  if (problem != nullptr) prospect::detail::refuse((std::string{"prospect: "} + problem).c_str());
}
/// What the host could have seen is refused before; the rest is CUDA's own.
inline void must_succeed(cudaError_t status) { C10_CUDA_CHECK(status); }

/// Calls launch(scratch, stream) with as much memory as it asks for.
template <class Launch>
void with_scratch(const Launch& launch) {
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
  std::size_t bytes = 0;
  must_succeed(launch(cuda::scratch::size_into(bytes), stream));
  const Tensor memory = device_memory(bytes);
  must_succeed(launch(cuda::scratch{memory.data_ptr(), bytes}, stream));
}

/// Why phase 2 would refuse, told from the batch and, of completions, their point.
template <class Loss, class In, class Out>
const char* evaluate_problem(const Loss& loss, const cuda::denominator& by, const In& in,
                             const Out& out) {
  return cuda::problem(loss, in, out, by);
}
template <class Loss, class In, class Point, class Out>
const char* evaluate_problem(const Loss& loss, const cuda::denominator& by, const In& in,
                             const Point& point, const Out& out) {
  const char* const why = cuda::problem(loss, in, out, by);
  return why != nullptr ? why : cuda::problem(cuda::detail::point_source<mixed>{point});
}

template <class Loss, class By, class M, class In, class Out>
cudaError_t launch_evaluate(const Loss& loss, const By& by, M* metrics, cuda::scratch space,
                            cudaStream_t stream, const In& in, const Out& out) {
  return cuda::evaluate(loss, in, out, by, metrics, space, stream);
}
template <class Loss, class By, class M, class In, class Point, class Out>
cudaError_t launch_evaluate(const Loss& loss, const By& by, M* metrics, cuda::scratch space,
                            cudaStream_t stream, const In& in, const Point& point, const Out& out) {
  return cuda::evaluate(loss, in, point, out, by, metrics, space, stream);
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

/// Where a call works: on the device that its tensors are on.
struct torch_cuda {
  static constexpr at::DeviceType kind = at::kCUDA;
  using denominator = cuda::denominator;
  using guard = c10::cuda::CUDAGuard;

  /// Metrics as they lie on the device.
  template <class M>
  struct metrics {
    at::Tensor bytes;

    /// Waits for the stream, and copies them.
    M read() const {
      const at::Tensor copied = bytes.cpu();
      return *static_cast<const M*>(copied.data_ptr());
    }
  };

  template <class M>
  struct evaluated {
    at::Tensor total;
    metrics<M> seen;
  };
  template <class M, class Loss, class... Batch>
  static evaluated<M> evaluate(const at::Tensor& like, const Loss& loss, const denominator& by,
                               const Batch&... batch) {
    detail::refuse_if(detail::evaluate_problem(loss, by, batch...));
    const at::Tensor bytes = detail::device_memory(sizeof(M));
    detail::with_scratch([&](cuda::scratch space, cudaStream_t stream) {
      return detail::launch_evaluate(loss, by, static_cast<M*>(bytes.data_ptr()), space, stream,
                                     batch...);
    });
    const at::Tensor total =
        bytes.narrow(0, static_cast<std::int64_t>(offsetof(M, total)), sizeof(double))
            .view(at::kDouble)
            .select(0, 0)
            .to(like.scalar_type());
    return {total, {bytes}};
  }

  template <class F>
  static decltype(auto) with_logits(const at::Tensor& tensor, std::string_view name, const F& f) {
    switch (detail::storage_dtype(tensor, name)) {
      case dtype::f16:
        return f(std::type_identity<float16>{});
      case dtype::bf16:
        return f(std::type_identity<bfloat16>{});
      case dtype::f32:
        return f(std::type_identity<float>{});
      default:
        detail::refuse_tensor(name,
                              "is of type Double, on a device Float, Half or BFloat16 is needed");
    }
  }
  template <cuda::logits_storage S>
  static void token_log_probs(matrix_view<const S> logits, const index_row& targets,
                              const token_outputs<float>& out, const token_options& options) {
    detail::refuse_if(cuda::problem(logits, targets, out, options));
    detail::with_scratch([&](cuda::scratch space, cudaStream_t stream) {
      return cuda::token_log_probs<S>(logits, targets, out, options, space, stream);
    });
  }
  template <cuda::logits_storage S>
  static void logits_gradient(matrix_view<const S> logits, matrix_view<S> gradient,
                              const index_row& targets, strided_span<const float> log_prob,
                              strided_span<const double> lse, const auto& coefficients,
                              const token_options& options) {
    detail::refuse_if(
        cuda::problem(logits, gradient, targets, log_prob, lse, coefficients, options));
    detail::must_succeed(cuda::logits_gradient<S>(logits, gradient, targets, log_prob, lse,
                                                  coefficients, options,
                                                  c10::cuda::getCurrentCUDAStream()));
  }
  template <cuda::logits_storage S>
  static void scale_rows(matrix_view<S> matrix, strided_span<const float> factors) {
    detail::refuse_if(cuda::problem(matrix, factors));
    detail::must_succeed(cuda::scale_rows<S>(matrix, factors, c10::cuda::getCurrentCUDAStream()));
  }
  template <std::floating_point R>
  static void sequence_sums(strided_span<const R> log_prob, const index_row& targets,
                            const sequence_layout& layout, const sequence_outputs& out) {
    detail::refuse_if(cuda::problem(log_prob, targets, layout, out, mask_row{}));
    detail::must_succeed(
        cuda::sequence_sums<R>(log_prob, targets, layout, out, c10::cuda::getCurrentCUDAStream()));
  }
  template <std::floating_point R>
  static void spread(const const_any_row& d_sequence, const index_row& targets,
                     const sequence_layout& layout, strided_span<R> d_token) {
    detail::refuse_if(cuda::problem(d_sequence, targets, layout, d_token, mask_row{}));
    detail::must_succeed(
        cuda::spread<R>(d_sequence, targets, layout, d_token, c10::cuda::getCurrentCUDAStream()));
  }
  static void shift_targets(const index_row& labels, const sequence_layout& layout,
                            strided_span<std::int32_t> targets) {
    detail::refuse_if(cuda::problem(labels, layout, targets));
    detail::must_succeed(
        cuda::shift_targets(labels, layout, targets, c10::cuda::getCurrentCUDAStream()));
  }
};

namespace detail {
inline namespace PROSPECT_CPU_ISA {

/// Kept gradients lie in memory of the node's own, from the forward pass to the backward pass.
template <storage S>
struct head_memory<torch_cuda, S> : head_state {
  Tensor memory;
  cuda::head_ticket ticket{};

  explicit head_memory(const head_arguments& given) : head_state{given} {}

  void log_probs(const head_tensors& in, const token_outputs<float>& out, bool keep) {
    const auto rows = rows_of(in);
    refuse_if(cuda::problem(rows, out));
    run([&](const auto& multiply, cuda::scratch space, cudaStream_t stream) {
      return cuda::head_log_probs<S>(rows, out, multiply, space, stream, keep ? &ticket : nullptr);
    });
    if (!keep) release();
  }
  void log_probs_and_gradient(const head_tensors& in, const token_outputs<float>& out,
                              matrix_view<S> d_hidden) {
    const auto rows = rows_of(in);
    refuse_if(cuda::problem(rows, out, d_hidden));
    run([&](const auto& multiply, cuda::scratch space, cudaStream_t stream) {
      return cuda::head_log_probs_and_gradient<S>(rows, out, d_hidden, multiply, space, stream);
    });
    release();
  }
  void gradient(const head_tensors& in, strided_span<const float> log_prob,
                strided_span<const double> lse, strided_span<const float> d_token,
                const head_gradients<S>& gradients) {
    const auto rows = rows_of(in);
    refuse_if(cuda::problem(rows, log_prob, lse, prospect::detail::loss_coefficients(d_token).rows,
                            gradients));
    run([&](const auto& multiply, cuda::scratch space, cudaStream_t stream) {
      return cuda::head_gradient<S>(rows, log_prob, lse, d_token, gradients, ticket, multiply,
                                    space, stream);
    });
    release();
  }

 private:
  cuda::head_rows<S> rows_of(const head_tensors& in) const {
    const auto hidden = in.hidden_rows<S>();
    return {.hidden = hidden,
            .head = in.head<S>(),
            .targets = in.target_row(),
            .options = in.options(options),
            .scored_at_most = options.scored_at_most > 0
                                  ? (std::min)(options.scored_at_most, hidden.rows)
                                  : hidden.rows};
  }

  /// In the memory that keeps something, or else in as much as is of use and may be had.
  template <class Launch>
  void run(const Launch& launch) {
    constexpr std::size_t for_products = std::size_t{32} << 20;
    const cudaStream_t stream = c10::cuda::getCurrentCUDAStream();
    const Tensor products = device_memory(for_products);
    const cuda::gemm_cublaslt multiply{at::cuda::getCurrentCUDABlasLtHandle(), products.data_ptr(),
                                       for_products};
    if (!memory.defined()) {
      std::size_t useful = 0, least = 0;
      must_succeed(launch(multiply, cuda::scratch::size_into(useful), stream));
      must_succeed(launch(multiply, cuda::scratch::least_into(least), stream));
      const auto most = static_cast<std::size_t>(options.workspace_bytes);
      if (most < least) {
        refuse_tensor("workspace_bytes", "is too small: " + std::to_string(least) + " are needed");
      }
      memory = device_memory((std::min)(useful, most));
    }
    must_succeed(launch(multiply,
                        cuda::scratch{memory.data_ptr(), static_cast<std::size_t>(memory.numel())},
                        stream));
  }
  /// What was kept is used up; a second backward pass computes everything again.
  void release() {
    memory.reset();
    ticket = {};
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
