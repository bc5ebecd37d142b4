// Memory of the head path, and what a forward pass leaves in it for its backward pass: gradients,
// and outside of it the ticket that says whose they are.
#pragma once

#include <prospect/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu {

namespace detail {

/// What a forward pass was given: where it lies, its sizes and how it was read.
struct head_origin {
  const void* hidden = nullptr;
  std::int64_t tokens = 0, width = 0, hidden_pitch = 0;
  const void* weight = nullptr;
  std::int64_t vocabulary = 0, weight_pitch = 0;
  const void* bias = nullptr;
  const void *lora_a = nullptr, *lora_b = nullptr;
  std::int64_t rank = 0, lora_a_pitch = 0, lora_b_pitch = 0;
  double lora_scale = 0;
  double soft_cap = 0;
  /// Hashes: which tokens are scored, each against what and at what temperature.
  std::uint64_t targets = 0xcbf29ce484222325U, temperatures = targets;

  /// What a ticket of this pass says of a backward pass that was given `other`; nullptr if they
  /// belong together.
  PROSPECT_INLINE const char* mismatch(const head_origin& other) const noexcept {
    if (hidden != other.hidden || tokens != other.tokens || width != other.width ||
        hidden_pitch != other.hidden_pitch) {
      return "is of other hidden states";
    }
    if (weight != other.weight || vocabulary != other.vocabulary ||
        weight_pitch != other.weight_pitch || bias != other.bias) {
      return "is of another head";
    }
    if (lora_a != other.lora_a || lora_b != other.lora_b || rank != other.rank ||
        lora_a_pitch != other.lora_a_pitch || lora_b_pitch != other.lora_b_pitch ||
        lora_scale != other.lora_scale) {
      return "is of another adapter";
    }
    if (targets != other.targets) return "is of other targets";
    if (temperatures != other.temperatures) return "is of another temperature";
    if (soft_cap != other.soft_cap) return "is of another soft cap";
    return nullptr;
  }
};

/// A forward pass, known to its ticket, and to the workspace as long as that keeps its gradients.
struct head_forward {
  head_origin origin;
  std::int64_t kept = 0;  ///< of this many scored tokens, the first ones
};

}  // namespace detail

/// What `head_log_probs` hands out and `head_gradient` asks for: it says which forward pass the
/// backward pass follows, so that gradients kept in a workspace are never taken for those of
/// another. A small value, to be stored beside log_prob and lse; copies are the same ticket.
///
/// Given to `head_gradient` with the hidden states, head, targets and options of its forward pass,
/// it saves as much work as it has `kept`. It can be used any number of times, with any workspace:
/// where its gradients are gone, they are computed again. Given with anything else it is refused. A
/// default one belongs to no pass: nothing is kept, and nothing can be checked.
class head_ticket {
 public:
  head_ticket() = default;

  /// How many tokens' gradients the workspace of the forward pass still has: 0 after a backward
  /// pass, which uses them up, and after the workspace has served for anything else.
  PROSPECT_INLINE std::int64_t kept() const noexcept { return pass_ ? pass_->kept : 0; }

 private:
  template <std::floating_point R>
  friend class head_workspace;

  PROSPECT_INLINE explicit head_ticket(std::shared_ptr<detail::head_forward> pass) noexcept
      : pass_{std::move(pass)} {}

  std::shared_ptr<detail::head_forward> pass_;
};

/// Memory for the head path, allocated at its first use and never more than `bytes` (beside it only
/// the GEMM's own packing buffers and some bookkeeping, about 100 bytes per token). Keep it from
/// step to step; one call at a time. Moved, it takes along what it keeps.
template <std::floating_point R>
class head_workspace {
 public:
  PROSPECT_INLINE explicit head_workspace(std::int64_t bytes) noexcept : bytes_{bytes} {}
  PROSPECT_INLINE head_workspace(head_workspace&& other) noexcept
      : bytes_{other.bytes_},
        allocated_{std::exchange(other.allocated_, 0)},
        memory_{std::move(other.memory_)},
        holds_{std::move(other.holds_)} {}
  PROSPECT_INLINE head_workspace& operator=(head_workspace&& other) noexcept {
    if (this == &other) return *this;
    forget();
    bytes_ = other.bytes_;
    allocated_ = std::exchange(other.allocated_, 0);
    memory_ = std::move(other.memory_);
    holds_ = std::move(other.holds_);
    return *this;
  }
  PROSPECT_INLINE ~head_workspace() { forget(); }

  PROSPECT_INLINE std::int64_t bytes() const noexcept { return bytes_; }

  // What follows is for the head path itself.

  /// The first `bytes` bytes, on a cache line. What was kept is lost where they are new.
  PROSPECT_INLINE std::byte* memory(std::int64_t bytes) {
    if (bytes > allocated_) {
      forget();
      allocated_ = 0;
      memory_.reset();  // before the new one, so that there are never two
      memory_.reset(static_cast<std::byte*>(
          ::operator new(static_cast<std::size_t>(bytes), std::align_val_t{line})));
      allocated_ = bytes;
    }
    return memory_.get();
  }

  /// Whether `memory` gives so much without losing what was kept.
  PROSPECT_INLINE bool holds(std::int64_t bytes) const noexcept { return bytes <= allocated_; }

  /// Ends what tickets can expect of this memory.
  PROSPECT_INLINE void forget() noexcept {
    if (holds_) holds_->kept = 0;
    holds_.reset();
  }
  /// The ticket of a forward pass that left the gradients of `kept` tokens here.
  PROSPECT_INLINE head_ticket keep(const detail::head_origin& origin, std::int64_t kept) {
    forget();
    auto pass = std::make_shared<detail::head_forward>(detail::head_forward{origin, kept});
    if (kept > 0) holds_ = pass;
    return head_ticket{std::move(pass)};
  }
  /// How many tokens' gradients are here for this ticket.
  PROSPECT_INLINE std::int64_t kept(const head_ticket& ticket) const noexcept {
    return holds_ != nullptr && ticket.pass_ == holds_ ? holds_->kept : 0;
  }
  /// Why the ticket cannot serve a backward pass that was given this, or nullptr.
  PROSPECT_INLINE static const char* problem(const head_ticket& ticket,
                                             const detail::head_origin& given) noexcept {
    return ticket.pass_ ? ticket.pass_->origin.mismatch(given) : nullptr;
  }

  static constexpr std::int64_t line = 64;

 private:
  struct release {
    PROSPECT_INLINE void operator()(std::byte* p) const noexcept {
      ::operator delete(p, std::align_val_t{line});
    }
  };
  std::int64_t bytes_;
  std::int64_t allocated_ = 0;
  std::unique_ptr<std::byte, release> memory_;
  std::shared_ptr<detail::head_forward> holds_;
};

}  // namespace prospect::inline v2::cpu
PROSPECT_STRICT_END
