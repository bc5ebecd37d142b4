#include "limits.hpp"

#include <cstring>
#include <map>
#include <utility>

namespace bench {
namespace {

using block = std::uint64_t __attribute__((vector_size(64), may_alias, aligned(8)));

/// Keeps the compiler from seeing that the passes change nothing.
std::uint64_t zero() {
  std::uint64_t value = 0;
  benchmark::DoNotOptimize(value);
  return value;
}

/// Walks along several streams at once, eight blocks in flight. What lies `ahead` bytes on is
/// prefetched, as close as `locality` says (3 is the first level).
template <traffic kind, std::size_t streams, std::size_t ahead, int locality = 3>
void walk(const std::byte* from, std::byte* to, std::size_t bytes) {
  constexpr std::size_t in_flight = 8 / streams;
  const std::size_t blocks = bytes / sizeof(block) / 8 * 8;
  const std::size_t stream = blocks / streams;
  const block* const in = reinterpret_cast<const block*>(from);
  block* const out = reinterpret_cast<block*>(to);
  const block unchanged = zero() - block{};
  block sums[8]{};
  for (std::size_t i = 0; i < stream; i += in_flight) {
#pragma GCC unroll 8
    for (std::size_t s = 0; s < streams; ++s) {
#pragma GCC unroll 8
      for (std::size_t k = 0; k < in_flight; ++k) {
        const std::size_t at = s * stream + i + k;
        if constexpr (ahead > 0) {
          __builtin_prefetch(reinterpret_cast<const std::byte*>(in + at) + ahead,
                             kind == traffic::in_place ? 1 : 0, locality);
        }
        if constexpr (kind == traffic::read) {
          sums[s * in_flight + k] += in[at];
        } else {
          out[at] = in[at] ^ unchanged;
        }
      }
    }
  }
  for (block& sum : sums) benchmark::DoNotOptimize(sum);
}

void copy(const std::byte* from, std::byte* to, std::size_t bytes) { std::memcpy(to, from, bytes); }

template <traffic kind>
std::vector<memory_pass::walk*> walks() {
  std::vector<memory_pass::walk*> all{walk<kind, 1, 0>, walk<kind, 1, 2048>, walk<kind, 1, 4096>,
                                      walk<kind, 1, 16384, 2>, walk<kind, 4, 0>};
  if constexpr (kind == traffic::copy) all.push_back(copy);
  return all;
}

}  // namespace

prospect::thread_pool& all_cores() { return prospect::thread_pool::shared(); }

std::vector<prospect::thread_pool*> pools() {
  static prospect::thread_pool one{1};
  if (all_cores().threads() == 1) return {&one};
  return {&all_cores(), &one};
}

memory_limit::memory_limit(traffic kind, prospect::thread_pool& on, std::span<std::byte> sample)
    : kind_{kind}, on_{on} {
  const auto ways = kind == traffic::read       ? walks<traffic::read>()
                    : kind == traffic::in_place ? walks<traffic::in_place>()
                                                : walks<traffic::copy>();
  std::vector<memory_pass> passes;
  for (memory_pass::walk* const way : ways) {
    passes.push_back({way, 0});
    passes.push_back({way, std::size_t{1} << 19});
  }
  // In turn, so that a disturbance does not hit one of them alone.
  std::vector<std::vector<double>> rates(passes.size());
  for (int round = 0; round < 5; ++round) {
    for (std::size_t i = 0; i < passes.size(); ++i) {
      rates[i].push_back(rate(passes[i], kind, on, sample));
    }
  }
  double best = 0;
  for (std::size_t i = 0; i < passes.size(); ++i) {
    if (median(rates[i]) <= best) continue;
    best = median(rates[i]);
    best_ = passes[i];
  }
}

const memory_limit& limit_of(traffic kind, prospect::thread_pool& on, std::span<std::byte> sample) {
  static std::map<std::pair<traffic, prospect::thread_pool*>, memory_limit> known;
  const auto found = known.find({kind, &on});
  if (found != known.end()) return found->second;
  return known.try_emplace({kind, &on}, kind, on, sample).first->second;
}

double memory_limit::rate(std::span<std::byte> memory) const {
  return rate(best_, kind_, on_, memory);
}

double memory_limit::rate(const memory_pass& pass, traffic kind, prospect::thread_pool& on,
                          std::span<std::byte> memory) {
  const bool copies = kind == traffic::copy;
  const std::size_t bytes = copies ? memory.size() / 2 : memory.size();
  const auto threads = static_cast<std::size_t>(on.threads());
  constexpr std::size_t line = 512;  // the passes work on eight blocks of a cache line at once
  const std::size_t piece = pass.piece != 0 ? pass.piece : bytes / threads / line * line;
  const auto pieces = static_cast<std::int64_t>(bytes / piece);
  const double seconds = seconds_of([&] {
    on.run(pieces, [&](std::int64_t i) {
      std::byte* const from = memory.data() + static_cast<std::size_t>(i) * piece;
      pass.run(from, copies ? from + bytes : from, piece);
    });
  });
  const double moved = static_cast<double>(piece) * static_cast<double>(pieces);
  return (kind == traffic::read ? 1 : 2) * moved / seconds;
}

}  // namespace bench
