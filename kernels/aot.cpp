// The C API on AOT.
#include "context.hpp"
#include "losses.hpp"
#include "sequences.hpp"

#include <prospect/cpu/aot.hpp>

#include <span>

namespace pk = prospect::kernels;

namespace {

/// The caller's scratch for so many pairs, or none.
std::span<prospect::cpu::aot_rank> scratch_of(const pk::host_context& host, std::int64_t pairs) {
  using prospect::cpu::aot_rank;
  if (host.given.scratch == nullptr) return {};
  const std::size_t count = 2 * static_cast<std::size_t>(pairs);
  pk::check_scratch(host.given, count * sizeof(aot_rank), alignof(aot_rank));
  return {static_cast<aot_rank*>(host.given.scratch), count};
}
void answer(const pk::host_context& host, std::int64_t pairs) {
  pk::answer(host.given, 2 * sizeof(prospect::cpu::aot_rank) * static_cast<std::size_t>(pairs));
}

}  // namespace

prospect_status prospect_aot_margins_cpu(const prospect_loss* loss, const prospect_pairs* pairs,
                                         prospect_row margin, const prospect_context* context,
                                         prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const prospect::paired_batch<> in = pk::aot_batch_of(pairs);
    pk::with_any_loss(loss, [&]<class L>(const L& l) {
      if constexpr (prospect::paired_loss<L>) {
        const auto out = pk::write_row("margin", margin);
        if (host.asked()) return answer(host, in.policy_chosen.size());
        prospect::cpu::aot_margins(l, in, out, scratch_of(host, in.policy_chosen.size()));
      } else {
        pk::wrong_kind(l.name(), "a paired");
      }
    });
  });
}

prospect_status prospect_aot_pairs_cpu(const prospect_pairs* pairs, prospect_row chosen,
                                       prospect_row rejected, const prospect_context* context,
                                       prospect_error* error) {
  return pk::guard(error, [&] {
    const pk::host_context host{context};
    const prospect::indexed_pairs in = pk::aot_indexed_of(pairs);
    pk::with_indices(chosen, rejected, [&](auto chosen_row, auto rejected_row) {
      if (host.asked()) return answer(host, in.chosen.size());
      prospect::cpu::aot_pairs(in, chosen_row, rejected_row, scratch_of(host, in.chosen.size()));
    });
  });
}
