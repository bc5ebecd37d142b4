// Where a call of the C API on a device runs: its stream, its scratch, and what CUDA answers.
#pragma once

#include "../context.hpp"
#include "../views.hpp"

#include <prospect/cuda/scratch.hpp>

#include <cuda_runtime_api.h>

namespace prospect::kernels {

inline void launched(cudaError_t status) {
  if (status == cudaSuccess) return;
  fail(static_cast<prospect_status>(PROSPECT_CUDA_ERROR + static_cast<int>(status)),
       std::string{cudaGetErrorName(status)} + ": " + cudaGetErrorString(status));
}

class device_context {
 public:
  explicit device_context(const prospect_context* pointer)
      : given_{versioned_or_zero(pointer, "context")} {
    if (given_.executor != nullptr) {
      fail(PROSPECT_UNSUPPORTED, "context.executor must be NULL on a device");
    }
  }

  /// Calls launch(stream), unless scratch is all that is asked for: this takes none.
  template <class Launch>
  void run(const Launch& launch) const {
    if (given_.query == nullptr) launched(launch(given_.stream));
  }
  /// Calls launch(scratch, stream), or answers how much scratch it takes.
  template <class Launch>
  void run_with_scratch(const Launch& launch) const {
    std::size_t needed = 0;
    launched(launch(cuda::scratch::size_into(needed), given_.stream));
    if (given_.query != nullptr) return answer(given_, needed);
    check_scratch(given_, needed, scratch_alignment);
    launched(launch(cuda::scratch{given_.scratch, given_.scratch_size}, given_.stream));
  }

  /// The same for what works in as much scratch as there is: it answers how much is of use, and is
  /// refused less than the least.
  template <class Launch>
  void run_within_scratch(const Launch& launch) const {
    std::size_t bytes = 0;
    launched(launch(asked() ? cuda::scratch::size_into(bytes) : cuda::scratch::least_into(bytes),
                    given_.stream));
    if (asked()) return answer(given_, bytes);
    check_scratch(given_, bytes, scratch_alignment);
    launched(launch(cuda::scratch{given_.scratch, given_.scratch_size}, given_.stream));
  }
  /// Whether scratch is all that is asked for.
  bool asked() const noexcept { return given_.query != nullptr; }

  static constexpr std::size_t scratch_alignment = 256;  // cudaMalloc's

 private:
  prospect_context given_;
};

/// Calls `body` with a value of the storage type of logits on a device.
template <class Body>
void with_device_storage(const char* name, std::int32_t dtype, const Body& body) {
  with_storage(name, dtype, [&]<class S>(S s) {
    if constexpr (std::same_as<S, double>) {
      fail(PROSPECT_UNSUPPORTED, std::string{name} + " of PROSPECT_F64 are for the CPU");
    } else {
      body(s);
    }
  });
}

}  // namespace prospect::kernels
