// All built-in losses, and a visitor over the list, for code that picks a loss by name.
#pragma once

#include <prospect/core/isa.hpp>
#include <prospect/losses/differentiate.hpp>
#include <prospect/losses/dpo.hpp>
#include <prospect/losses/hinge.hpp>
#include <prospect/losses/ipo.hpp>
#include <prospect/losses/ipo_sum.hpp>
#include <prospect/losses/kto.hpp>
#include <prospect/losses/kto_zero.hpp>
#include <prospect/losses/robust_dpo.hpp>

#include <tuple>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

namespace detail {

// Each line of the list becomes a one-element tuple; tuple_cat needs no trailing-comma trick.
using builtin_losses = decltype(std::tuple_cat(
#define PROSPECT_PAIRED(name) std::tuple<name>{},
#define PROSPECT_UNPAIRED(name) std::tuple<name>{},
#include <prospect/losses/losses.def>
    std::tuple<>{}));

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
}  // namespace prospect::inline v1
PROSPECT_STRICT_END
