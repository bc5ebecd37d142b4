// All built-in losses, and a visitor over the list, for code that picks a loss by name.
#pragma once

#include <prospect/core/isa.hpp>
#include <prospect/losses/differentiate.hpp>
#include <prospect/losses/paired/alphapo.hpp>
#include <prospect/losses/paired/apo_down.hpp>
#include <prospect/losses/paired/apo_zero.hpp>
#include <prospect/losses/paired/bco_pair.hpp>
#include <prospect/losses/paired/bradley_terry.hpp>
#include <prospect/losses/paired/cpo.hpp>
#include <prospect/losses/paired/cpo_hinge.hpp>
#include <prospect/losses/paired/cpo_ipo.hpp>
#include <prospect/losses/paired/discopop.hpp>
#include <prospect/losses/paired/dpo.hpp>
#include <prospect/losses/paired/exo.hpp>
#include <prospect/losses/paired/hinge.hpp>
#include <prospect/losses/paired/ipo.hpp>
#include <prospect/losses/paired/ipo_sum.hpp>
#include <prospect/losses/paired/mpo.hpp>
#include <prospect/losses/paired/nca.hpp>
#include <prospect/losses/paired/neg_sigmoid.hpp>
#include <prospect/losses/paired/orpo.hpp>
#include <prospect/losses/paired/robust_dpo.hpp>
#include <prospect/losses/paired/rpo.hpp>
#include <prospect/losses/paired/sigmoid_norm.hpp>
#include <prospect/losses/paired/simpo.hpp>
#include <prospect/losses/paired/slic.hpp>
#include <prospect/losses/paired/sppo_hard.hpp>
#include <prospect/losses/paired/tpo.hpp>
#include <prospect/losses/paired/tpo_hinge.hpp>
#include <prospect/losses/paired/tpo_ipo.hpp>
#include <prospect/losses/paired/tpo_l.hpp>
#include <prospect/losses/parts/averaged.hpp>
#include <prospect/losses/parts/mixture.hpp>
#include <prospect/losses/token/bnpo.hpp>
#include <prospect/losses/token/cispo.hpp>
#include <prospect/losses/token/dapo.hpp>
#include <prospect/losses/token/dft.hpp>
#include <prospect/losses/token/dppo.hpp>
#include <prospect/losses/token/dr_grpo.hpp>
#include <prospect/losses/token/dro.hpp>
#include <prospect/losses/token/gmpo.hpp>
#include <prospect/losses/token/grpo.hpp>
#include <prospect/losses/token/gspo.hpp>
#include <prospect/losses/token/gspo_token.hpp>
#include <prospect/losses/token/kl_k1.hpp>
#include <prospect/losses/token/kl_k2.hpp>
#include <prospect/losses/token/kl_k3.hpp>
#include <prospect/losses/token/luspo.hpp>
#include <prospect/losses/token/ppo.hpp>
#include <prospect/losses/token/rloo.hpp>
#include <prospect/losses/token/sapo.hpp>
#include <prospect/losses/token/sft.hpp>
#include <prospect/losses/token/vespo.hpp>
#include <prospect/losses/unpaired/a2po.hpp>
#include <prospect/losses/unpaired/bco.hpp>
#include <prospect/losses/unpaired/kto.hpp>
#include <prospect/losses/unpaired/kto_logsigmoid.hpp>
#include <prospect/losses/unpaired/kto_surprisal.hpp>
#include <prospect/losses/unpaired/kto_zero.hpp>

#include <tuple>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

namespace detail {

// Each line of the list becomes a one-element tuple; tuple_cat needs no trailing-comma trick.
using paired_losses = decltype(std::tuple_cat(
#define PROSPECT_PAIRED(name) std::tuple<name>{},
#include <prospect/losses/losses.def>
    std::tuple<>{}));
using unpaired_losses = decltype(std::tuple_cat(
#define PROSPECT_UNPAIRED(name) std::tuple<name>{},
#include <prospect/losses/losses.def>
    std::tuple<>{}));
using token_losses = decltype(std::tuple_cat(
#define PROSPECT_TOKEN(name) std::tuple<name>{},
#include <prospect/losses/losses.def>
    std::tuple<>{}));
using builtin_losses = decltype(std::tuple_cat(paired_losses{}, unpaired_losses{}, token_losses{}));

}  // namespace detail

inline namespace PROSPECT_ISA {

/// Calls `visit(loss)` with a default-constructed value of every loss in losses.def, in order.
template <class Visitor>
constexpr void for_each_loss(Visitor&& visit) {
  std::apply([&](const auto&... loss) { (visit(loss), ...); }, detail::builtin_losses{});
}

/// The defaults of one hyper-parameter table entry, read and set by name. False if there is none.
template <class L>
constexpr bool set_parameter(L& loss, std::string_view name, double value) {
  for (const auto& p : L::parameters) {
    if (p.name == name) {
      loss.*p.member = value;
      return true;
    }
  }
  return false;
}

}  // namespace PROSPECT_ISA
}  // namespace prospect::inline v2
PROSPECT_STRICT_END
