// What stands behind the handles of the head path in C.
#pragma once

#include "boundary.hpp"

#include <prospect/cpu/head_workspace.hpp>

#include <cstdint>
#include <variant>

/// A workspace for whichever arithmetic it is given to; what one kept is gone when the other comes.
struct prospect_head_workspace {
  explicit prospect_head_workspace(std::int64_t size) : bytes{size} {}

  template <std::floating_point R>
  prospect::cpu::head_workspace<R>& of() {
    using workspace = prospect::cpu::head_workspace<R>;
    if (auto* const here = std::get_if<workspace>(&memory)) return *here;
    return memory.template emplace<workspace>(bytes);
  }

  std::int64_t bytes;
  std::variant<std::monostate, prospect::cpu::head_workspace<float>,
               prospect::cpu::head_workspace<double>>
      memory{};
};

struct prospect_head_ticket {
  prospect::cpu::head_ticket ticket{};
};
