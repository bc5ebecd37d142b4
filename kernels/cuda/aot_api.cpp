// The C API on AOT on a device.
#include "../losses.hpp"
#include "../sequences.hpp"
#include "context.hpp"
#include "launchers.hpp"

#include <prospect/cuda/aot_checks.hpp>

namespace pk = prospect::kernels;

prospect_status prospect_aot_margins_cuda(const prospect_loss* loss, const prospect_pairs* pairs,
                                          prospect_row margin, const prospect_context* context,
                                          prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect::paired_batch<> in = pk::aot_batch_of(pairs);
    const prospect::any_row out = pk::write_row("margin", margin);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        pk::check(prospect::cuda::aot_problem(l, in, out));
        device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
          return pk::launch_aot_margins(in, out, space, stream);
        });
      } else {
        pk::wrong_kind(l.name(), "a paired");
      }
    });
  });
}

prospect_status prospect_aot_pairs_cuda(const prospect_pairs* pairs, prospect_row chosen,
                                        prospect_row rejected, const prospect_context* context,
                                        prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::device_context device{context};
    const prospect::indexed_pairs in = pk::aot_indexed_of(pairs);
    pk::with_indices(chosen, rejected, [&](auto chosen_row, auto rejected_row) {
      pk::check(prospect::cuda::aot_problem(in, chosen_row, rejected_row));
      device.run_with_scratch([&](const auto& space, cudaStream_t stream) {
        return pk::launch_aot_pairs(in, chosen_row, rejected_row, space, stream);
      });
    });
  });
}
