// What this machine can do at best, measured in the process that judges by it: passes over memory
// that compute nothing, tried in several ways of which the fastest counts; and the clock that times
// a bench and its limit in turn, so that both see the same neighbours, frequency and memory.
#pragma once

#include <prospect/executor.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <span>
#include <vector>

namespace bench {

prospect::thread_pool& all_cores();
/// What rows are measured with: every core, and one.
std::vector<prospect::thread_pool*> pools();

template <class F>
double seconds_of(const F& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

template <class T>
T median(std::vector<T> x) {
  std::sort(x.begin(), x.end());
  return x.empty() ? T{} : (x[(x.size() - 1) / 2] + x[x.size() / 2]) / 2;
}

enum class traffic { read, in_place, copy };

/// One way to pass over memory. Whatever it is asked to do, it leaves `from` as it was.
struct memory_pass {
  using walk = void(const std::byte* from, std::byte* to, std::size_t bytes);
  walk* run;
  std::size_t piece;  ///< bytes that a thread takes at once; 0: a fair share of all
};

/// The fastest pass of its kind on a pool.
class memory_limit {
 public:
  /// Tries the candidates over `sample` (copies: from its first half to its second).
  memory_limit(traffic kind, prospect::thread_pool& on, std::span<std::byte> sample);

  /// Passes once over `memory`, all but a few bytes at its end, and returns bytes per second: those
  /// read plus those written.
  double rate(std::span<std::byte> memory) const;

 private:
  static double rate(const memory_pass& pass, traffic kind, prospect::thread_pool& on,
                     std::span<std::byte> memory);
  traffic kind_;
  prospect::thread_pool& on_;
  memory_pass best_{};
};

/// The limit of a pool, found once in each program.
const memory_limit& limit_of(traffic kind, prospect::thread_pool& on, std::span<std::byte> sample);

/// The clock of a row: wall time of every repetition, and the cores that they had.
class stopwatch {
 public:
  template <class Work>
  double time(const Work& work) {
    const std::clock_t start = std::clock();
    seconds_.push_back(seconds_of(work));
    cores_.push_back(static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC / seconds_.back());
    return seconds_.back();
  }

  /// Comparisons are of medians, and of the fastest. `cores` below the row's threads: others were
  /// running, or there was too little to divide.
  void report(benchmark::State& state) const {
    state.counters["median_s"] = median(seconds_);
    state.counters["fastest_s"] = *std::min_element(seconds_.begin(), seconds_.end());
    state.counters["cores"] = median(cores_);
  }

 private:
  std::vector<double> seconds_, cores_;
};

/// Times `work` after `prepare`, which is not timed. For rows that use manual time.
template <class Prepare, class Work>
void time_each(benchmark::State& state, const Prepare& prepare, const Work& work) {
  stopwatch watch;
  prepare();
  work();
  for (auto _ : state) {
    prepare();
    state.SetIterationTime(watch.time(work));
  }
  watch.report(state);
}

/// The same for work that has a limit, timed in turn with it: `limit()` is run before and after and
/// returns a rate, in the unit in which `work` returns how much it moved or computed. The row's
/// counters are `rate`, `limit` and `of_limit`, the median share.
template <class Limit, class Prepare, class Work>
void time_against(benchmark::State& state, const Limit& limit, const Prepare& prepare,
                  const Work& work) {
  stopwatch watch;
  std::vector<double> rates, limits, shares;
  prepare();
  work();
  for (auto _ : state) {
    prepare();
    const double before = limit();
    double amount = 0;
    const double seconds = watch.time([&] { amount = work(); });
    const double after = limit();
    state.SetIterationTime(seconds);
    rates.push_back(amount / seconds);
    limits.push_back(2 / (1 / before + 1 / after));
    shares.push_back(rates.back() / limits.back());
  }
  watch.report(state);
  state.counters["rate"] = median(rates);
  state.counters["limit"] = median(limits);
  state.counters["of_limit"] = median(shares);
}

}  // namespace bench
