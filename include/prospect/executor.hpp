// Who runs the loops: the one interface between the library and threads. Every function of the CPU
// back end takes an executor as its last argument and gives the same bits whatever it is, because
// work is divided by the shape of the problem alone.
#pragma once

#include <prospect/core/error.hpp>
#include <prospect/core/float_mode.hpp>
#include <prospect/core/isa.hpp>
#include <prospect/core/processors.hpp>

#include <atomic>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <mutex>
#include <new>
#include <thread>
#include <type_traits>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2 {

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
/// own pool needs this one function to take the place of ours. One that says by `on.threads()`, a
/// whole number, how many it has is given larger pieces where they are few and no bit can change.
template <class E>
concept executor = requires(E& on, std::int64_t n, task t) { on.run(n, t); };

/// How many threads an executor has; 0 if it does not say, or names a number that no machine has.
template <executor E>
PROSPECT_INLINE std::int64_t threads_of(E& on) {
  if constexpr (requires {
                  { on.threads() } -> std::integral;
                }) {
    constexpr std::int64_t most = 1 << 20;
    const auto threads = static_cast<std::int64_t>(on.threads());
    return threads > 0 && threads <= most ? threads : 0;
  } else {
    return 0;
  }
}

/// The calling thread alone.
struct serial_executor {
  PROSPECT_INLINE static constexpr int threads() noexcept { return 1; }
  PROSPECT_INLINE static void run(std::int64_t n, task t) {
    for (std::int64_t i = 0; i < n; ++i) t(i);
  }
};

namespace detail {

/// Changes with every fork, in the child: a process's number may be used again, this is not.
PROSPECT_INLINE std::atomic<unsigned>& forks() noexcept {
  static std::atomic<unsigned> count{0};
  return count;
}

/// Threads that wait for jobs. Never destroyed in a forked child: it has the members, but none of
/// the threads they wait for.
struct team {
  struct job {
    task body;
    std::int64_t size;
    /// As the unit that asks for the work was compiled, which is not always how the threads were.
    void (*take_pieces)(team&, job&);
    std::atomic<std::int64_t> next{0};
    std::atomic<int> helpers{0};  ///< changed under the team's mutex, as is the next
    std::exception_ptr error{};

    PROSPECT_INLINE job(task work, std::int64_t count, void (*with)(team&, job&)) noexcept
        : body{work}, size{count}, take_pieces{with} {}
    PROSPECT_INLINE ~job() = default;
    job(const job&) = delete;
    job& operator=(const job&) = delete;
  };

  std::mutex in_use;
  std::mutex mutex;
  std::condition_variable wake, done;
  job* posted = nullptr;
  std::atomic<unsigned> jobs{0};  ///< so far
  bool stopping = false;
  std::vector<std::thread> workers;

  PROSPECT_INLINE team() = default;
  PROSPECT_INLINE ~team() = default;
  team(const team&) = delete;
  team& operator=(const team&) = delete;
};

/// The team whose task this thread is in, if any.
PROSPECT_INLINE const team*& joined() noexcept {
  thread_local const team* now = nullptr;
  return now;
}

inline namespace PROSPECT_ISA {

inline void count_fork() { ++forks(); }

inline void take_pieces(team& in, team::job& j) {
  joined() = &in;
  for (std::int64_t i = j.next++; i < j.size; i = j.next++) {
    PROSPECT_TRY { j.body(i); }
    PROSPECT_CATCH_ALL {
      const std::scoped_lock lock{in.mutex};
      if (!j.error) j.error = std::current_exception();
      j.next = j.size;
    }
  }
  joined() = nullptr;
}

/// Looks now and then, without the lock, whether it is worth having again.
template <class Changed>
void stay_awake(std::unique_lock<std::mutex>& lock, const Changed& changed) {
  constexpr int looks = 100;
  lock.unlock();
  for (int i = 0; i < looks && !changed(); ++i) std::this_thread::yield();
  lock.lock();
}

/// What a thread of a team does.
inline void serve(team& in) {
  const auto needed = [&] {
    return in.stopping || (in.posted != nullptr && in.posted->next < in.posted->size);
  };
  std::unique_lock lock{in.mutex};
  while (true) {
    if (!needed()) stay_awake(lock, [&, seen = in.jobs.load()] { return in.jobs != seen; });
    in.wake.wait(lock, needed);
    if (in.stopping) return;
    team::job& mine = *in.posted;
    ++mine.helpers;
    lock.unlock();
    mine.take_pieces(in, mine);
    lock.lock();
    if (--mine.helpers == 0) in.done.notify_one();
  }
}

/// Adds `count` threads, or as many as the system gives.
inline void start(team& in, int count) {
#if defined(__unix__) || defined(__APPLE__)
  [[maybe_unused]] static const int watched = pthread_atfork(nullptr, nullptr, &count_fork);
#endif
  PROSPECT_TRY {
    in.workers.reserve(static_cast<std::size_t>(count));
    for (int i = 0; i < count; ++i) in.workers.emplace_back([&in] { serve(in); });
  }
  PROSPECT_CATCH_ALL {
    // The machine gives no more threads: those there are do the work.
  }
}

/// Who is at work finishes the job first.
inline void stop(team& in) {
  std::vector<std::thread> leaving;
  {
    const std::scoped_lock lock{in.mutex};
    in.stopping = true;
    leaving.swap(in.workers);
  }
  in.wake.notify_all();
  for (std::thread& worker : leaving) worker.join();
}

/// What is static ends when the program does or when the library that holds it is unloaded.
template <class Pool>
struct at_unload {
  ~at_unload() { Pool::stop_shared(); }
};

/// One job by the team and the calling thread.
inline void run(team& in, std::int64_t n, task t) {
  const std::unique_lock user{in.in_use, std::try_to_lock};
  if (!user) return serial_executor::run(n, t);
  team::job here{t, n, &take_pieces};
  {
    const std::scoped_lock lock{in.mutex};
    in.posted = &here;
    ++in.jobs;
  }
  if (n == 2) {
    in.wake.notify_one();
  } else {
    in.wake.notify_all();
  }
  take_pieces(in, here);
  std::unique_lock lock{in.mutex};
  in.posted = nullptr;  // who has not joined yet has nothing left to do
  stay_awake(lock, [&] { return here.helpers == 0; });
  in.done.wait(lock, [&] { return here.helpers == 0; });
  if (here.error) std::rethrow_exception(here.error);
}

}  // namespace PROSPECT_ISA

}  // namespace detail

/// A fixed number of threads, the calling one included, that take pieces as they become free. Who
/// has nothing left to do stays awake for some tens of microseconds, about as long as waking up
/// takes, in which the core is free for whoever asks for it.
///
/// May be used from several threads: who finds it busy, or runs inside one of its tasks, works
/// alone. So does a child after fork(), which has none of its parent's threads.
class thread_pool {
 public:
  /// @param threads how many, the caller included; 0 is one for each processor that the process
  ///        may use, by its CPU affinity and the quota of its control groups. Fewer if the system
  ///        does not give as many.
  PROSPECT_INLINE explicit thread_pool(int threads = 0) : team_{} {
    detail::start(team_, (threads > 0 ? threads : detail::usable_processors()) - 1);
    threads_ = static_cast<int>(team_.workers.size()) + 1;
  }
  PROSPECT_INLINE ~thread_pool() {
    if (forked()) return;
    detail::stop(team_);
    team_.~team();
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;

  PROSPECT_INLINE int threads() const noexcept { return forked() ? 1 : threads_.load(); }

  PROSPECT_INLINE void run(std::int64_t n, task t) {
    if (n < 2 || threads() < 2 || detail::joined() != nullptr) return serial_executor::run(n, t);
    detail::run(team_, n, t);
  }

  /// Ends the threads, after the job they are at; from then on who uses the pool works alone. Does
  /// nothing inside the pool's own tasks, where a thread would wait for itself.
  PROSPECT_INLINE void stop() {
    if (forked() || detail::joined() == &team_) return;
    threads_ = 1;
    detail::stop(team_);
  }

  /// The pool that every function uses unless it is told otherwise: one thread for each processor
  /// the process may use, started at the first use. Its threads end when the process does, or when
  /// the shared library that holds this code is unloaded, or with `stop_shared`.
  PROSPECT_INLINE static thread_pool& shared() {
    // Never destroyed: who runs even later than the end of the threads works alone.
    alignas(thread_pool) static unsigned char place[sizeof(thread_pool)];
    static thread_pool* const pool = started() = ::new (static_cast<void*>(place)) thread_pool;
    [[maybe_unused]] static const detail::at_unload<thread_pool> end;
    return *pool;
  }

  /// Stops the shared pool if it was ever used: for hosts that want to see its threads end at a
  /// time of their choice, and not when their library is unloaded.
  PROSPECT_INLINE static void stop_shared() {
    if (thread_pool* const pool = started()) pool->stop();
  }

 private:
  PROSPECT_INLINE static std::atomic<thread_pool*>& started() noexcept {
    static std::atomic<thread_pool*> pool{nullptr};
    return pool;
  }

  PROSPECT_INLINE bool forked() const noexcept { return forks_ != detail::forks(); }

  unsigned forks_ = detail::forks();
  std::atomic<int> threads_{1};
  union {
    detail::team team_;  // not destroyed with the pool in a forked child
  };
};

static_assert(executor<thread_pool> && executor<serial_executor> &&
              executor<const serial_executor>);

}  // namespace prospect::inline v2
PROSPECT_STRICT_END
