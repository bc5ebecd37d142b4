// Who runs the loops: the one interface between the library and threads. Every function of the CPU
// back end takes an executor as its last argument and gives the same bits whatever it is, because
// work is divided by the shape of the problem alone.
#pragma once

#include <prospect/config.hpp>
#include <prospect/core/float_mode.hpp>

#include <algorithm>
#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v1 {

/// A loop body, by reference: `task(i)` does the i-th piece of the work, whatever floating-point
/// mode the thread is in. Valid during the call it is passed to; called from several threads at
/// once.
class task {
 public:
  template <class Body>
    requires(!std::same_as<std::remove_cvref_t<Body>, task> &&
             std::invocable<const Body&, std::int64_t>)
  PROSPECT_INLINE task(const Body& body) noexcept
      : body_{&body}, call_{[](const void* b, std::int64_t i) {
          const detail::default_float_mode mode;
          (*static_cast<const Body*>(b))(i);
        }} {}

  PROSPECT_INLINE void operator()(std::int64_t i) const { call_(body_, i); }

 private:
  const void* body_;
  void (*call_)(const void*, std::int64_t);
};

/// `on.run(n, t)` calls `t(i)` once for every i in [0, n), in any order, on any threads, and
/// returns when all are done. If one of them throws, one of the exceptions comes out. A trainer's
/// own pool needs this one function to take the place of ours.
template <class E>
concept executor = requires(E& on, std::int64_t n, task t) { on.run(n, t); };

/// The calling thread alone.
struct serial_executor {
  static void run(std::int64_t n, task t) {
    for (std::int64_t i = 0; i < n; ++i) t(i);
  }
};

/// A fixed number of threads, the calling one included, that take pieces as they become free. Who
/// has nothing left to do stays awake for some tens of microseconds, about as long as waking up
/// takes, in which the core is free for whoever asks for it.
///
/// May be used from several threads: who finds it busy, or runs inside one of its tasks, works
/// alone. After fork() the child must not use a pool its parent started: give it one of its own.
class thread_pool {
 public:
  /// @param threads how many, the caller included; 0 is one for each core. Fewer, if the system
  /// does
  ///        not give as many.
  explicit thread_pool(int threads = 0) {
    if (threads <= 0) threads = static_cast<int>(std::thread::hardware_concurrency());
    try {
      for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
    } catch (const std::system_error&) {
      // The machine gives no more threads: those there are do the work.
    }
  }
  ~thread_pool() {
    {
      const std::scoped_lock lock{mutex_};
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t n, task t) {
    if (n < 2 || workers_.empty() || inside()) return serial_executor::run(n, t);
    const std::unique_lock user{in_use_, std::try_to_lock};
    if (!user) return serial_executor::run(n, t);
    job here{t, n};
    {
      const std::scoped_lock lock{mutex_};
      job_ = &here;
      ++posted_;
    }
    if (n == 2) {
      wake_.notify_one();
    } else {
      wake_.notify_all();
    }
    take_pieces(here);
    std::unique_lock lock{mutex_};
    job_ = nullptr;  // who has not joined yet has nothing left to do
    stay_awake(lock, [&] { return here.helpers == 0; });
    done_.wait(lock, [&] { return here.helpers == 0; });
    if (here.error) std::rethrow_exception(here.error);
  }

  /// The pool that every function uses unless it is told otherwise: one thread for each core,
  /// started at the first use.
  static thread_pool& shared() {
    // Never destroyed: a forked child that exits must not wait for threads it does not have.
    static thread_pool& pool = *new thread_pool;
    return pool;
  }

 private:
  struct job {
    task body;
    std::int64_t size;
    std::atomic<std::int64_t> next{0};
    std::atomic<int> helpers{0};  ///< changed under the pool's mutex, as is the next
    std::exception_ptr error{};
  };

  static bool& inside() noexcept {
    thread_local bool value = false;
    return value;
  }

  /// Looks now and then, without the lock, whether it is worth having again.
  template <class Changed>
  static void stay_awake(std::unique_lock<std::mutex>& lock, const Changed& changed) {
    constexpr int looks = 100;
    lock.unlock();
    for (int i = 0; i < looks && !changed(); ++i) std::this_thread::yield();
    lock.lock();
  }

  void take_pieces(job& j) {
    inside() = true;
    for (std::int64_t i = j.next++; i < j.size; i = j.next++) {
      try {
        j.body(i);
      } catch (...) {
        const std::scoped_lock lock{mutex_};
        if (!j.error) j.error = std::current_exception();
        j.next = j.size;
      }
    }
    inside() = false;
  }

  void work() {
    const auto needed = [&] { return stopping_ || (job_ != nullptr && job_->next < job_->size); };
    std::unique_lock lock{mutex_};
    while (true) {
      if (!needed()) {
        stay_awake(lock, [&, seen = posted_.load()] { return posted_ != seen; });
      }
      wake_.wait(lock, needed);
      if (stopping_) return;
      job& mine = *job_;
      ++mine.helpers;
      lock.unlock();
      take_pieces(mine);
      lock.lock();
      if (--mine.helpers == 0) done_.notify_one();
    }
  }

  std::mutex in_use_;
  std::mutex mutex_;
  std::condition_variable wake_, done_;
  job* job_ = nullptr;
  std::atomic<unsigned> posted_{0};  ///< jobs so far
  bool stopping_ = false;
  std::vector<std::thread> workers_;
};

static_assert(executor<thread_pool> && executor<serial_executor> &&
              executor<const serial_executor>);

}  // namespace prospect::inline v1
PROSPECT_STRICT_END
