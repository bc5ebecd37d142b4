// prospect._cublaslt: cuBLASLt's matrix product for the head path on a device. A module of its own,
// imported by the first call that needs it: PyTorch's cuBLASLt is in the process by then and is the
// one that is used, where _core, imported before PyTorch, would bring another under the same name.
#include <nanobind/nanobind.h>

#include <prospect/c/cublaslt.h>

#include <cublasLt.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <stdexcept>

namespace nb = nanobind;

namespace {

/// The current device's handle. It is never destroyed: that may wait for the device, and when the
/// process ends CUDA may be gone before it. The interpreter's lock, which no call here releases,
/// guards the map; the handles themselves are thread-safe, and know nothing of streams.
cublasLtHandle_t handle() {
  static std::map<int, cublasLtHandle_t> handles;
  int device = 0;
  if (const cudaError_t e = cudaGetDevice(&device)) throw std::runtime_error(cudaGetErrorString(e));
  cublasLtHandle_t& found = handles[device];
  if (found == nullptr) {
    if (const cublasStatus_t e = cublasLtCreate(&found)) {
      throw std::runtime_error(cublasLtGetStatusString(e));
    }
  }
  return found;
}

struct product {
  prospect_gemm gemm{};  // first: what the capsule points to
  prospect_cublaslt* made = nullptr;

  ~product() { prospect_cublaslt_destroy(made); }
};

/// Made anew for each call of the head path, with memory that the call allocated: the allocator
/// gives it on in the order of the stream, so that no two streams ever work in the same. A product
/// that is kept would have to see to that by itself; one without memory is left to the algorithms
/// that need none. So the host asks for algorithms again in every call, before the products are put
/// on the stream; what that takes has not been measured. It is gone
/// before the device has run it, which it may be: the handle and the memory are not its own, and
/// the device reads nothing else of it.
nb::capsule gemm(std::uintptr_t workspace, std::size_t bytes, bool tf32) {
  auto created = std::make_unique<product>();
  prospect_error error{};
  if (prospect_cublaslt_create(handle(), reinterpret_cast<void*>(workspace), bytes, tf32 ? 1 : 0,
                               &created->made, &error) != PROSPECT_OK) {
    throw std::runtime_error(error.message);
  }
  created->gemm = prospect_cublaslt_gemm(created->made);
  return {created.release(), "prospect_gemm",
          [](void* p) noexcept { delete static_cast<product*>(p); }};
}

}  // namespace

NB_MODULE(_cublaslt, m) {
  m.doc() = "cuBLASLt's matrix product for `prospect.torch.head_log_probs` on a CUDA device.";
  m.def("gemm", &gemm, nb::arg("workspace"), nb::arg("bytes"), nb::arg("tf32"),
        "A product for the current device: `workspace` is the address of so many bytes there, for "
        "one stream at a time; float32 is multiplied in TF32 if that is wanted.");
}
