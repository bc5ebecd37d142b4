// The kernel over sequences: one for all sizes. A job says what a row adds to the sums of a pass
// and what it writes; passes are needed because a row's coefficient may depend on sums over all
// rows.
//
// Rows are cut into tiles, tiles dealt out to stripes, and a block sums a stripe at a time, always
// in the same way; stripes are added in a fixed tree. A batch is in the hands of one block, of a
// cluster of blocks that exchange sums in distributed shared memory (both in one launch), or of as
// many blocks as there are stripes, a launch for each pass: with the same bits, because nothing
// else changes.
#pragma once

#include <prospect/cuda/detail/device.cuh>
#include <prospect/cuda/detail/rows.cuh>
#include <prospect/cuda/scratch.hpp>
#include <prospect/losses/differentiate.hpp>

#include <cooperative_groups.h>
#include <cuda/atomic>

#include <algorithm>
#include <type_traits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cuda::detail {

inline constexpr int sequence_threads = 512;
inline constexpr int most_stripes = 1024;

/// What a cluster takes on: sums of so many stripes in each of its blocks, and fewer rows than a
/// grid is faster for. Without clusters a block takes on what it is done with before a grid has
/// begun.
inline constexpr int blocks_of_a_cluster = 8;
inline constexpr int stripes_in_hand = 8;
inline constexpr std::int64_t rows_of_a_grid = 32768;
inline constexpr int stripes_of_a_block = 4;

/// How many rows, side by side, a thread takes of a tile. One, where the threads of a cluster have
/// a row each, and time is that of a row; else four, which are a load and a store of 16 bytes.
PROSPECT_HD constexpr int rows_per_thread(std::int64_t rows) {
  return rows <= blocks_of_a_cluster * sequence_threads ? 1 : four;
}

/// What rows add up to, and the first of them that is not finite.
struct row_sums {
  static constexpr int size = 8;
  static constexpr std::int64_t none = 0x7fffffffffffffff;

  double sum[size] = {};
  double nonfinite = 0;
  std::int64_t first_nonfinite = none;
};

/// What has to be known before the next can start: counts and reference points; what flows back
/// through attached points; the results.
enum pass { observe, attach, results, passes };

struct pass_totals {
  row_sums of[passes];
};

/// What launches of one pass each leave to the next. All zero at first.
struct sequence_state {
  pass_totals totals;
  unsigned tickets[passes];
};

/// The same bits in all lanes: what is added is the same pair in both of two lanes.
template <class T, class Add>
__device__ T over_warp(T x, const Add& add) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) x = add(x, __shfl_xor_sync(0xffffffffU, x, step));
  return x;
}
struct plus {
  __device__ double operator()(double a, double b) const { return a + b; }
};
struct least {
  __device__ std::int64_t operator()(std::int64_t a, std::int64_t b) const { return b < a ? b : a; }
};

/// Adds `count` sums, by a block: a warp for each component, the same tree whoever does it.
/// Barriers before and after are the caller's. A call, so that its addresses hold no registers
/// while rows are worked on.
static __device__ __noinline__ void add_up(const row_sums* sums, std::int64_t count,
                                           row_sums& total) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int component = static_cast<int>(threadIdx.x) / 32;
  if (component <= row_sums::size) {
    const bool plain = component < row_sums::size;
    double sum = 0;
    for (std::int64_t i = lane; i < count; i += 32) {
      sum += plain ? sums[i].sum[component] : sums[i].nonfinite;
    }
    sum = over_warp(sum, plus{});
    if (lane == 0) (plain ? total.sum[component] : total.nonfinite) = sum;
  } else if (component == row_sums::size + 1) {
    std::int64_t first = row_sums::none;
    for (std::int64_t i = lane; i < count; i += 32) first = least{}(first, sums[i].first_nonfinite);
    first = over_warp(first, least{});
    if (lane == 0) total.first_nonfinite = first;
  }
}

/// A job whose rows are not each for themselves deals out tiles of its own, and sums a stripe of
/// them as it sees fit.
template <class Job>
concept has_tiles = requires(const Job& job) { job.tiles(); };

template <class Job>
PROSPECT_HD constexpr std::int64_t tiles_of(const Job& job, int pass) {
  if constexpr (has_tiles<Job>) {
    return job.tiles();
  } else {
    const std::int64_t rows = job.rows(pass);
    const std::int64_t in_tile = sequence_threads * rows_per_thread(rows);
    return (rows + in_tile - 1) / in_tile;
  }
}

/// How many blocks of a job a multiprocessor holds at a time, at least.
template <class Job>
inline constexpr int blocks_resident = 1;
template <class Job>
  requires requires { Job::resident_blocks; }
inline constexpr int blocks_resident<Job> = Job::resident_blocks;

/// A launch: which passes, and where sums go that leave the block.
struct sequence_launch {
  int first_pass = observe;
  int last_pass = results;
  int blocks_of_cluster = 1;
  bool in_fours = false;            ///< whether all rows can be read and written so
  row_sums* stripes = nullptr;      ///< of all blocks, for a launch of one pass; else nullptr
  sequence_state* state = nullptr;  ///< likewise
};

/// A thread's share of each tile of a stripe: its first row, or from it on, and how far to the
/// next.
struct tile_shares {
  std::int64_t rows, first, step;
  int size;

  __device__ tile_shares(std::int64_t rows_, int stripe)
      : rows{rows_}, size{rows_per_thread(rows_)} {
    step = std::int64_t{most_stripes} * sequence_threads * size;
    first = (stripe * sequence_threads + static_cast<int>(threadIdx.x)) * size;
  }
  /// Calls f(i, end) for rows i to end - 1 of each.
  template <class F>
  __device__ void for_each(const F& f) const {
#pragma unroll 1
    for (std::int64_t i = first; i < rows; i += step) f(i, i + size < rows ? i + size : rows);
  }
};

/// A job that reads and writes four rows at a time where they lie so.
template <class Job>
concept takes_fours = requires(const Job& job) { job.in_fours(); };

/// What a thread's rows of a stripe add up to.
template <class Job>
__device__ row_sums sum_stripe(const Job& job, int pass, const typename Job::terms& terms,
                               int stripe, [[maybe_unused]] bool in_fours) {
  typename Job::tally mine;
  tile_shares shares{job.rows(pass), stripe};
  if constexpr (takes_fours<Job>) {
    if (in_fours && pass == results) {
#pragma unroll 1
      for (; shares.first + four <= shares.rows;
           shares.first += std::int64_t{most_stripes} * sequence_threads * four) {
        job.add_four(shares.first, terms, mine);
      }
    }
  }
  shares.for_each([&](std::int64_t i, std::int64_t end) {
#pragma unroll 1
    for (; i < end; ++i) job.add(pass, i, job.load(pass, i), terms, mine);
  });
  return mine;
}

/// A job of one of several losses looks its loss up once for a few rows of a thread: what the loss
/// takes lies in the thread's slots of shared memory, and what it gives comes to lie in its place.
/// So its formula, whichever it is, shares registers with nothing but its own loop.
template <class Job>
concept looks_up = !has_tiles<Job> && requires(const Job& job) {
  requires one_of_several<std::remove_cvref_t<decltype(job.loss)>>;
};
/// How many, and how much memory they take in a block: for no type more than a block may have on
/// any device.
template <looks_up Job>
inline constexpr int rows_at_once = 16 / sizeof(typename Job::number);
template <class Job>
inline constexpr std::size_t slot_memory = 0;
template <looks_up Job>
inline constexpr std::size_t slot_memory<Job> =
    sizeof(typename Job::slot) * rows_at_once<Job> * sequence_threads;

/// What is done with the loss, once it is known.
template <class Slot>
struct each_slot {
  Slot* slots;  ///< a thread's: each `sequence_threads` behind the one before
  int n;

  template <class Loss>
  PROSPECT_HD void operator()(const Loss& loss) const {
#if defined(__CUDA_ARCH__)  // unrolled, it takes more registers than there are
#pragma unroll 1
#endif
    for (int k = 0; k < n; ++k) {
      Slot& slot = slots[k * sequence_threads];
      slot.take(differentiate(loss, slot.value()));
    }
  }
};

template <looks_up Job>
__device__ row_sums sum_stripe(const Job& job, int pass, const typename Job::terms& terms,
                               int stripe, bool) {
  extern __shared__ __align__(16) std::byte slots_of_block[];
  auto* const slots = reinterpret_cast<typename Job::slot*>(slots_of_block) + threadIdx.x;
  typename Job::tally mine;
  tile_shares{job.rows(pass), stripe}.for_each([&](std::int64_t i, std::int64_t end) {
#pragma unroll 1
    for (; i < end; i += rows_at_once<Job>) {
      const auto left = static_cast<int>(end - i);
      const int n = left < rows_at_once<Job> ? left : rows_at_once<Job>;
      if (pass != observe) {
#pragma unroll 1
        for (int k = 0; k < n; ++k) {
          slots[k * sequence_threads] = job.prepare(pass, i + k, terms);
        }
        job.loss.look_up(each_slot<typename Job::slot>{slots, n});
      }
#pragma unroll 1
      for (int k = 0; k < n; ++k) {
        job.add(pass, i + k, slots[k * sequence_threads], terms, mine);
      }
    }
  });
  return mine;
}

template <has_tiles Job>
__device__ row_sums sum_stripe(const Job& job, int pass, const typename Job::terms& terms,
                               int stripe, bool) {
  return job.sum_stripe(pass, terms, stripe);
}

/// Adds up what the threads of a block have, with a barrier at the end.
__device__ inline void add_threads(const row_sums& mine, row_sums* warp_sums, row_sums& total) {
  row_sums& warp = warp_sums[threadIdx.x / 32];
  const bool writes = threadIdx.x % 32 == 0;
#pragma unroll
  for (int k = 0; k < row_sums::size; ++k) {
    const double sum = over_warp(mine.sum[k], plus{});
    if (writes) warp.sum[k] = sum;
  }
  const double nonfinite = over_warp(mine.nonfinite, plus{});
  const std::int64_t first = over_warp(mine.first_nonfinite, least{});
  if (writes) {
    warp.nonfinite = nonfinite;
    warp.first_nonfinite = first;
  }
  __syncthreads();
  add_up(warp_sums, sequence_threads / 32, total);
  __syncthreads();
}

template <class Job>
static __global__ void __launch_bounds__(sequence_threads, blocks_resident<Job>)
    sequence_kernel(const Job job, const sequence_launch launch) {
  // Raw, because row_sums are not born empty in shared memory.
  __shared__ __align__(16) std::byte warp_memory[sizeof(row_sums) * sequence_threads / 32];
  __shared__ __align__(16) std::byte own_memory[sizeof(row_sums) * stripes_in_hand];
  __shared__ __align__(16) std::byte totals_memory[sizeof(pass_totals)];
  __shared__ bool last;
  auto* const warp_sums = reinterpret_cast<row_sums*>(warp_memory);
  auto* const own = reinterpret_cast<row_sums*>(own_memory);
  auto& totals = *reinterpret_cast<pass_totals*>(totals_memory);
  const bool one_pass = launch.stripes != nullptr;
  const auto block = static_cast<int>(blockIdx.x);
  const int blocks = one_pass ? static_cast<int>(gridDim.x) : launch.blocks_of_cluster;

  if (threadIdx.x < passes) {
    totals.of[threadIdx.x] = one_pass ? launch.state->totals.of[threadIdx.x] : row_sums{};
  }
  __syncthreads();
  for (int pass = launch.first_pass; pass <= launch.last_pass; ++pass) {
    if (!job.wants(pass)) continue;
    const typename Job::terms terms = job.begin(totals);
    const std::int64_t tiles = tiles_of(job, pass);
    const int stripes = tiles < most_stripes ? static_cast<int>(tiles) : most_stripes;
    for (int stripe = block; stripe < stripes; stripe += blocks) {
      add_threads(sum_stripe(job, pass, terms, stripe, launch.in_fours), warp_sums,
                  one_pass ? launch.stripes[stripe] : own[stripe / blocks]);
    }

    if (one_pass) {
      // Who finishes last adds up. Behind the barrier, thread 0 releases the block's sums with its
      // ticket, and acquires those of the others for the block.
      if (threadIdx.x == 0) {
        ::cuda::atomic_ref<unsigned, ::cuda::thread_scope_device> ticket{
            launch.state->tickets[pass]};
        last = ticket.fetch_add(1, ::cuda::memory_order_acq_rel) == gridDim.x - 1;
      }
      __syncthreads();
      if (!last) return;
      add_up(launch.stripes, stripes, totals.of[pass]);
      __syncthreads();
      if (threadIdx.x == 0) launch.state->totals.of[pass] = totals.of[pass];
    } else if (blocks == 1) {
      __syncthreads();  // of an empty batch no sum has waited for who still reads the totals
      add_up(own, stripes, totals.of[pass]);
      __syncthreads();
    } else {
#if __CUDA_ARCH__ >= 900
      __shared__ __align__(16)
          std::byte all_memory[sizeof(row_sums) * stripes_in_hand * blocks_of_a_cluster];
      auto* const all = reinterpret_cast<row_sums*>(all_memory);
      const auto cluster = cooperative_groups::this_cluster();
      cluster.sync();
      for (int i = static_cast<int>(threadIdx.x); i < stripes; i += sequence_threads) {
        all[i] = cluster.map_shared_rank(own, static_cast<unsigned>(i % blocks))[i / blocks];
      }
      // The sums were read: they may be overwritten, and their block may leave.
      cluster.sync();
      add_up(all, stripes, totals.of[pass]);
      __syncthreads();
#endif
    }
  }
  if (launch.last_pass == results && threadIdx.x == 0 && (one_pass || block == 0)) {
    job.finish(totals, job.begin(totals));
  }
}

/// Who works on a batch.
enum class sequence_scheme { block, cluster, grid };

/// Whoever is done first, by rows and tiles of the largest pass.
template <class Job>
static cudaError_t scheme_for(const Job& job, sequence_scheme& scheme) {
  std::int64_t rows = 0, tiles = 0;
  for (int pass = observe; pass < passes; ++pass) {
    if (!job.wants(pass)) continue;
    rows = (std::max)(rows, job.rows(pass));
    tiles = (std::max)(tiles, tiles_of(job, pass));
  }
  scheme = sequence_scheme::block;
  if (tiles <= 1) return cudaSuccess;
  scheme = sequence_scheme::grid;
  if (tiles > stripes_in_hand * blocks_of_a_cluster || rows >= rows_of_a_grid) return cudaSuccess;
  device_limits device;
  if (const cudaError_t e = device_limits::of_current(device)) return e;
  bool clusters = false;
  if (const cudaError_t e = knows_clusters(&sequence_kernel<Job>, device, clusters)) return e;
  if (clusters) {
    scheme = sequence_scheme::cluster;
  } else if (tiles <= stripes_of_a_block && rows <= stripes_of_a_block * sequence_threads) {
    scheme = sequence_scheme::block;
  }
  return cudaSuccess;
}

template <class Job>
static cudaError_t run(const Job& job, sequence_scheme scheme, scratch space, cudaStream_t stream) {
  const auto kernel = &sequence_kernel<Job>;
  const bool grid = scheme == sequence_scheme::grid;
  sequence_launch launch;
  if constexpr (takes_fours<Job>) {
    launch.in_fours = rows_per_thread(job.rows(results)) == four && job.in_fours();
  }
  if (grid) {
    launch.stripes = space.carve<row_sums>(most_stripes);
    launch.state = space.carve<sequence_state>(1);
  }
  if (!space.suffices() || !space.aligned()) return cudaErrorInvalidValue;
  if (space.counting()) return cudaSuccess;
  if constexpr (slot_memory<Job> != 0) {
    if (const cudaError_t e =
            cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 static_cast<int>(slot_memory<Job>))) {
      return e;
    }
  }
  if (!grid) {
    launch.blocks_of_cluster = scheme == sequence_scheme::cluster ? blocks_of_a_cluster : 1;
    return detail::launch(kernel, launch.blocks_of_cluster, sequence_threads, slot_memory<Job>,
                          launch.blocks_of_cluster, stream, job, launch);
  }
  if (const cudaError_t e = cudaMemsetAsync(launch.state, 0, sizeof(sequence_state), stream)) {
    return e;
  }
  for (int pass = observe; pass < passes; ++pass) {
    if (!job.wants(pass)) continue;
    launch.first_pass = launch.last_pass = pass;
    const std::int64_t tiles = tiles_of(job, pass);
    const std::int64_t blocks = tiles < 1 ? 1 : tiles < most_stripes ? tiles : most_stripes;
    if (const cudaError_t e = detail::launch(kernel, blocks, sequence_threads, slot_memory<Job>, 1,
                                             stream, job, launch)) {
      return e;
    }
  }
  return cudaSuccess;
}

template <class Job>
static cudaError_t run(const Job& job, scratch space, cudaStream_t stream) {
  sequence_scheme scheme{};
  if (const cudaError_t e = scheme_for(job, scheme)) return e;
  return run(job, scheme, space, stream);
}

}  // namespace prospect::inline v2::cuda::detail
PROSPECT_STRICT_END
