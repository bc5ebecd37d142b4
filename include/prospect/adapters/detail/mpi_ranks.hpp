// What the MPI adapter is made of: its exceptions, a communicator, what ranks tell each other
// before numbers follow, and the gathering of these.
#pragma once

#include <prospect/core/error.hpp>
#include <prospect/core/index_row.hpp>
#include <prospect/cpu/ranks.hpp>
#include <prospect/tokens.hpp>

#include <mpi.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <limits>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::adapters {

#if defined(__cpp_exceptions)
/// A call of MPI's failed: `what()` names it and says what MPI says of it, `code` is what it gave.
struct mpi_error : std::runtime_error {
  int code;
  mpi_error(const std::string& message, int given) : std::runtime_error{message}, code{given} {}
};

/// Another rank refused its arguments, or its work failed there. Which one; that rank knows why.
struct another_rank_refused : std::runtime_error {
  int rank;
  another_rank_refused(const std::string& message, int which)
      : std::runtime_error{message}, rank{which} {}
};
#endif

namespace detail {

/// The calling thread is in work of which another rank may be told that it failed. A collective in
/// there would wait for ranks that are already out, so calls ask: a thread is where it is in all
/// of a program's units.
class at_work {
 public:
  at_work() noexcept : outer_{now_} { now_ = true; }
  ~at_work() { now_ = outer_; }
  at_work(const at_work&) = delete;
  at_work& operator=(const at_work&) = delete;
  static bool now() noexcept { return now_; }

 private:
  static inline thread_local bool now_ = false;
  bool outer_;
};

inline namespace PROSPECT_CPU_ISA {

/// What ranks call, to see that it is the same; the kind of their numbers is added to it.
enum call : std::int64_t {
  refuses = 0,
  goes_on = 100,
  makes_room = 200,
  sums_rows = 300,
  sums_parts = 400,
  sums_sequences = 500,
  observes = 600,
  scores_tokens = 700
};

/// What a rank says before numbers follow: that it goes no further, or what it will give.
struct announcement {
  std::int64_t call = refuses;
  std::int64_t parts = 0;       ///< how many it has
  std::int64_t columns = 0;     ///< numbers in each
  std::int64_t statistics = 0;  ///< whether any are asked for
  /// Of a vocabulary: its size, where this rank's part begins, and how long that is.
  std::int64_t vocabulary = 0, first_token = 0, tokens = 0;
  /// Of tokens: fingerprints of the targets that are scored, and of what shapes their probability.
  std::int64_t scored = 0, options = 0;
};
static_assert(sizeof(announcement) == 9 * sizeof(std::int64_t));

template <cpu::rank_part T>
constexpr std::int64_t kind_of() noexcept {
  constexpr bool is[] = {std::same_as<T, float>,          std::same_as<T, double>,
                         std::same_as<T, sum_count>,      std::same_as<T, observation>,
                         std::same_as<T, paired_metrics>, std::same_as<T, token_metrics>,
                         std::same_as<T, value_metrics>,  std::same_as<T, unpaired_metrics>};
  std::int64_t kind = 0;
  while (!is[kind]) ++kind;
  return kind;
}

using cpu::detail::reject;

inline void require(const char* name, int code) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  static_cast<void>(MPI_Error_string(code, text, &length));
  const std::string message = std::string{"prospect: "}.append(name).append(": ").append(text);
#if defined(__cpp_exceptions)
  throw mpi_error{message, code};
#else
  prospect::detail::refuse(message.c_str());
#endif
}

[[noreturn]] inline void leave_with(int rank) {
  const std::string message = "prospect: rank " + std::to_string(rank) +
                              " of the communicator refused this call, or failed in it";
#if defined(__cpp_exceptions)
  throw another_rank_refused{message, rank};
#else
  prospect::detail::refuse(message.c_str());
#endif
}

/// A communicator hands its errors back for as long as this lives.
class errors_return {
 public:
  explicit errors_return(MPI_Comm communicator) : communicator_{communicator} {
    require("MPI_Comm_get_errhandler", MPI_Comm_get_errhandler(communicator_, &before_));
    static_cast<void>(MPI_Comm_set_errhandler(communicator_, MPI_ERRORS_RETURN));
  }
  ~errors_return() {
    static_cast<void>(MPI_Comm_set_errhandler(communicator_, before_));
    static_cast<void>(MPI_Errhandler_free(&before_));
  }
  errors_return(const errors_return&) = delete;
  errors_return& operator=(const errors_return&) = delete;

 private:
  MPI_Comm communicator_;
  MPI_Errhandler before_{};
};

/// The ranks of a communicator. Its error handler is the host's, but while numbers are gathered.
class ranks {
 public:
  explicit ranks(MPI_Comm communicator) : communicator_{checked(communicator)} {
    require("MPI_Comm_size", MPI_Comm_size(communicator_, &size_));
    if (at_work::now() && size_ > 1) {
      reject("communicator",
             "is used inside of the work of another call, where a rank that failed "
             "would leave the others waiting");
    }
  }
  int size() const { return size_; }
  /// all[r] becomes what rank r calls `mine`, as many bytes on every rank.
  template <class T>
  void gather(const T* mine, std::int64_t count, T* all) const {
    const int bytes = bytes_of<T>(count);
    const errors_return scope{communicator_};
    require("MPI_Allgather",
            MPI_Allgather(mine, bytes, MPI_BYTE, all, bytes, MPI_BYTE, communicator_));
  }
  /// The same of counts[r] elements of rank r.
  template <class T>
  void gather(const T* mine, std::int64_t count, T* all,
              const std::vector<std::int64_t>& counts) const {
    std::vector<int> bytes(counts.size());
    std::vector<int> places(counts.size());
    int place = 0;
    for (std::size_t r = 0; r < counts.size(); ++r) {
      bytes[r] = bytes_of<T>(counts[r]);
      places[r] = place;
      place += bytes[r];
    }
    const errors_return scope{communicator_};
    require("MPI_Allgatherv", MPI_Allgatherv(mine, bytes_of<T>(count), MPI_BYTE, all, bytes.data(),
                                             places.data(), MPI_BYTE, communicator_));
  }

 private:
  template <class T>
  static int bytes_of(std::int64_t count) {
    static_assert(std::is_trivially_copyable_v<T>);
    return static_cast<int>(count * static_cast<std::int64_t>(sizeof(T)));
  }
  static MPI_Comm checked(MPI_Comm communicator) {
    int begun = 0;
    int ended = 0;
    int between = 0;
    require("MPI_Initialized", MPI_Initialized(&begun));
    require("MPI_Finalized", MPI_Finalized(&ended));
    if (begun == 0 || ended != 0) reject("communicator", "is used before MPI_Init, or too late");
    if (communicator == MPI_COMM_NULL) reject("communicator", "is MPI_COMM_NULL");
    require("MPI_Comm_test_inter", MPI_Comm_test_inter(communicator, &between));
    if (between != 0) reject("communicator", "is one between two groups of ranks");
    return communicator;
  }

  MPI_Comm communicator_;
  int size_ = 0;
};

/// What all ranks announce. `prepare` gives this rank's announcement, or throws: then this throws
/// on every rank. No collective may be in it, so that a rank that throws meets the others here.
template <class Prepare>
std::vector<announcement> announce(const ranks& in, call which, const Prepare& prepare) {
  std::vector<announcement> all(static_cast<std::size_t>(in.size()));
  announcement mine{};
  std::exception_ptr error;
  PROSPECT_TRY {
    const at_work scope;
    mine = prepare();
    mine.call += which;
  }
  PROSPECT_CATCH_ALL {
    error = std::current_exception();
    mine = {};
  }
  in.gather(&mine, 1, all.data());
  if (error) std::rethrow_exception(error);
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].call == refuses) leave_with(static_cast<int>(r));
  }
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r].call == all[0].call) continue;
    reject("communicator", "has ranks that make different calls: rank " + std::to_string(r) +
                               " another one than rank 0");
  }
  return all;
}

/// Refuses, on all ranks, what is not the same on all of them.
inline void require_same(const std::vector<announcement>& all, std::int64_t announcement::*what,
                         std::string_view name) {
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r].*what == all[0].*what) continue;
    reject(name, "differs between ranks: " + std::to_string(all[0].*what) + " on rank 0, " +
                     std::to_string(all[r].*what) + " on rank " + std::to_string(r));
  }
}

/// The same of fingerprints, which say nothing by themselves.
inline void require_alike(const std::vector<announcement>& all, std::int64_t announcement::*what,
                          std::string_view name) {
  for (std::size_t r = 1; r < all.size(); ++r) {
    if (all[r].*what == all[0].*what) continue;
    reject(name, "differ between ranks: rank " + std::to_string(r) + " has others than rank 0");
  }
}

/// A number for a row of numbers: another one for another row, but for one in 2^64.
class fingerprint {
 public:
  void add(std::int64_t x) noexcept {
    of_ = (of_ ^ static_cast<std::uint64_t>(x)) * 0x9e3779b97f4a7c15U;
    of_ ^= of_ >> 29;
  }
  void add(double x) noexcept { add(std::bit_cast<std::int64_t>(x)); }
  std::int64_t value() const noexcept { return static_cast<std::int64_t>(of_); }

 private:
  std::uint64_t of_ = 0;
};

/// Which tokens are scored, against which targets; however that is said.
inline std::int64_t fingerprint_of(const index_row& targets, const mask_row& mask) {
  fingerprint of;
  for (std::int64_t t = 0; t < targets.size(); ++t) {
    of.add(mask.empty() || mask[t] ? targets[t] : std::int64_t{ignored_target});
  }
  return of.value();
}
/// What makes probabilities of logits.
inline std::int64_t fingerprint_of(const token_options& options) {
  fingerprint of;
  of.add(options.temperature);
  of.add(options.soft_cap);
  for (std::int64_t t = 0; t < options.inverse_temperatures.size(); ++t) {
    of.add(double{options.inverse_temperatures[t]});
  }
  return of.value();
}

inline constexpr std::int64_t most_bytes = (std::numeric_limits<int>::max)();

/// Refuses parts of the vocabulary that are not all of it, one behind the other.
inline void require_tiles(const std::vector<announcement>& all) {
  require_same(all, &announcement::vocabulary, "vocabulary");
  std::int64_t next = 0;
  for (std::size_t r = 0; r < all.size(); ++r) {
    if (all[r].first_token != next) {
      reject("first_token", "is " + std::to_string(all[r].first_token) + " on rank " +
                                std::to_string(r) + ", where the ranks before it end with token " +
                                std::to_string(next - 1));
    }
    next += all[r].tokens;
  }
  if (next != all[0].vocabulary) {
    reject("vocabulary", "is " + std::to_string(all[0].vocabulary) + ", and the ranks have " +
                             std::to_string(next) + " tokens of it");
  }
}

/// How many numbers each rank has in a column, and all of them together.
struct part_counts {
  std::vector<std::int64_t> of_rank;
  std::int64_t all = 0;
};
template <class T>
part_counts count_parts(const std::vector<announcement>& ranks) {
  require_same(ranks, &announcement::columns, "the number of columns");
  part_counts counts;
  for (const announcement& a : ranks) {
    counts.of_rank.push_back(a.parts);
    if (a.parts > most_bytes / static_cast<std::int64_t>(sizeof(T)) - counts.all) {
      reject("parts", "of all ranks are more than MPI can count the bytes of");
    }
    counts.all += a.parts;
  }
  if (counts.all == 0) reject("parts", "are none: no rank has any");
  return counts;
}

/// Sums of columns, of which as many are gathered at a time as make 16 MiB.
template <class T>
void sum_columns(const ranks& in, const std::vector<announcement>& announced,
                 const matrix_view<const T>& mine, const strided_span<T>& sums) {
  constexpr std::int64_t at_a_time = (std::int64_t{1} << 24) / sizeof(T);
  const part_counts parts = count_parts<T>(announced);
  const std::int64_t most =
      (std::min)((std::max)(std::int64_t{1}, at_a_time / parts.all), sums.size());
  std::vector<T> own;
  std::vector<T> all;
  announce(in, makes_room, [&] {
    own.reserve(static_cast<std::size_t>(mine.rows * most));
    all.resize(static_cast<std::size_t>(parts.all * most));
    return announcement{};
  });
  for (std::int64_t first = 0; first < sums.size(); first += most) {
    const std::int64_t width = (std::min)(most, sums.size() - first);
    own.clear();
    for (std::int64_t i = 0; i < mine.rows; ++i) {
      const T* const row = mine.row(i) + first;
      own.insert(own.end(), row, row + width);
    }
    std::vector<std::int64_t> counts = parts.of_rank;
    for (std::int64_t& n : counts) n *= width;
    in.gather(own.data(), mine.rows * width, all.data(), counts);
    cpu::sum_over_ranks<T>({all.data(), parts.all, width}, sums.slice(first, width));
  }
}

/// Refuses sequences of more tokens than are counted.
inline void require_countable(const std::vector<sum_count>& sequences) {
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (sequences[i].count <= (std::numeric_limits<std::int32_t>::max)()) continue;
    reject("tokens",
           "cannot count more than 2^31 - 1 of them: sequence " + std::to_string(i) + " is longer");
  }
}

/// What work gives, a part or a range of them, as parts.
template <cpu::rank_part T>
std::vector<T> parts_of(const T& part) {
  return {part};
}
template <std::ranges::input_range Parts>
auto parts_of(const Parts& parts) {
  return std::vector<std::ranges::range_value_t<Parts>>(std::ranges::begin(parts),
                                                        std::ranges::end(parts));
}

/// The sum of what `work` gives on all ranks.
template <class Work>
auto sum_parts(const ranks& in, call which, const Work& work) {
  using parts = decltype(parts_of(work()));
  using T = typename parts::value_type;
  static_assert(cpu::rank_part<T>,
                "prospect: ranks add up numbers, sum_count, observations and metrics");
  parts mine;
  const auto announced = announce(in, which, [&] {
    mine = parts_of(work());
    return announcement{
        .call = kind_of<T>(), .parts = static_cast<std::int64_t>(mine.size()), .columns = 1};
  });
  const part_counts counts = count_parts<T>(announced);
  parts all;
  announce(in, makes_room, [&] {
    all.resize(static_cast<std::size_t>(counts.all));
    return announcement{};
  });
  in.gather(mine.data(), static_cast<std::int64_t>(mine.size()), all.data(), counts.of_rank);
  return cpu::sum_over_ranks<T>(strided_span<const T>{all});
}

}  // namespace PROSPECT_CPU_ISA
}  // namespace detail

}  // namespace prospect::inline v2::adapters
PROSPECT_STRICT_END
