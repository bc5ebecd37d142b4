// Where a call of the C API runs: the trainer's threads or the library's, and scratch memory, of
// which a call may be asked how much it takes.
#pragma once

#include "boundary.hpp"

#include <prospect/executor.hpp>

#include <exception>
#include <mutex>

namespace prospect::kernels {

/// A trainer's threads, or the library's. What a piece of work throws does not pass through their
/// C functions: it comes out behind them.
class host_executor {
 public:
  explicit host_executor(const prospect_executor* theirs) : theirs_{theirs} {
    if (theirs_ != nullptr && theirs_->run == nullptr) {
      fail(PROSPECT_INVALID_ARGUMENT, "context.executor.run is NULL");
    }
  }

  /// 0: a trainer's do not say.
  int threads() const noexcept { return theirs_ == nullptr ? thread_pool::shared().threads() : 0; }
  void run(std::int64_t n, task body) const {
    if (theirs_ == nullptr) return thread_pool::shared().run(n, body);
    work all{.body = body};
    theirs_->run(
        theirs_->context, n, [](void* w, std::int64_t i) { static_cast<work*>(w)->piece(i); },
        &all);
    if (all.error) std::rethrow_exception(all.error);
  }

 private:
  struct work {
    task body;
    std::mutex mutex{};
    std::exception_ptr error{};

    void piece(std::int64_t i) noexcept {
      try {
        body(i);
      } catch (...) {
        const std::scoped_lock lock{mutex};
        if (!error) error = std::current_exception();
      }
    }
  };

  const prospect_executor* theirs_;
};

/// What a call on the host is given.
struct host_context {
  prospect_context given;
  host_executor on;

  explicit host_context(const prospect_context* pointer)
      : given{versioned_or_zero(pointer, "context")}, on{given.executor} {
    if (given.stream != nullptr) {
      fail(PROSPECT_UNSUPPORTED, "context.stream must be NULL on the host");
    }
  }

  /// Whether the call is only asked for its scratch, of which most calls take none.
  bool asked() const noexcept { return given.query != nullptr; }
};

/// Raises what a step was found to take.
inline void answer(const prospect_context& context, std::size_t needed) {
  *context.query = std::max(*context.query, needed);
}

/// Refuses scratch memory that is too small or lies anywhere.
inline void check_scratch(const prospect_context& context, std::size_t needed,
                          std::size_t alignment) {
  if (needed == 0) return;
  const std::size_t size = context.scratch == nullptr ? 0 : context.scratch_size;
  if (size < needed) {
    fail(PROSPECT_INVALID_ARGUMENT, "context.scratch has " + std::to_string(size) + " bytes, " +
                                        std::to_string(needed) + " are needed");
  }
  if (reinterpret_cast<std::uintptr_t>(context.scratch) % alignment != 0) {
    fail(PROSPECT_INVALID_ARGUMENT,
         "context.scratch is not aligned to " + std::to_string(alignment) + " bytes");
  }
}

}  // namespace prospect::kernels
