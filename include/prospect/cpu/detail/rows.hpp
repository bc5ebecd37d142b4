// Rows as their blocks are read and written: where they lie, if arithmetic takes their elements as
// they are and they lie side by side; otherwise through a copy, which widens, rounds, gathers and
// scatters.
#pragma once

#include <prospect/any_row.hpp>
#include <prospect/core/index_row.hpp>
#include <prospect/core/strict.hpp>
#include <prospect/cpu/detail/blocks.hpp>

#include <algorithm>
#include <limits>

PROSPECT_STRICT_BEGIN
namespace prospect::inline v2::cpu::detail {
inline namespace PROSPECT_CPU_ISA {

/// Asks for memory, which need not exist.
PROSPECT_INLINE void ask_for(const void* p) { __builtin_prefetch(p, 0, 3); }

/// One element for each row of a block.
template <class T>
struct block {
  alignas(64) T row[block_size];
};

/// 1 for a block of rows, and 0 for as many after it.
template <class T>
struct ones_before_zeros {
  alignas(64) T row[2 * block_size]{};

  constexpr ones_before_zeros() { std::fill_n(row, block_size, T(1)); }
};
template <class T>
inline constexpr ones_before_zeros<T> ones;

/// The indices that a row is seen through; null where none are given. Like rows, they are their
/// batch's, which outlives the pass.
using indices_at = const index_row*;
inline indices_at given(const index_row& indices) { return indices.empty() ? nullptr : &indices; }

/// f(i, k) for the rows `at`: the i-th of the block is element k of its row.
template <class F>
PROSPECT_INLINE void for_each_element(indices_at through, range at, const F& f) {
  if (through == nullptr) {
    for (std::int64_t i = 0; i < at.count; ++i) f(i, at.first + i);
  } else {
    for (std::int64_t i = 0; i < at.count; ++i) f(i, (*through)[at.first + i]);
  }
}

/// The same for rows that are listed one by one.
template <class F>
PROSPECT_INLINE void for_each_element(const std::int64_t* listed, range at, const F& f) {
  for (std::int64_t i = 0; i < at.count; ++i) f(i, listed[at.first + i]);
}

/// Where rows lie that do not all lie side by side: in pieces, or, where most of these would be
/// short, one by one.
struct pieces_at {
  const range* piece = nullptr;
  const std::int64_t* row = nullptr;

  bool given() const { return piece != nullptr || row != nullptr; }
};

/// f(i, piece) for the rows `at`, of all that lie in these pieces: the i-th of them is the piece's
/// first, and the others follow.
template <class F>
PROSPECT_INLINE void for_each_piece(const range* pieces, range at, const F& f) {
  std::int64_t skipped = at.first;
  for (std::int64_t i = 0; i < at.count; ++pieces) {
    if (skipped >= pieces->count) {
      skipped -= pieces->count;
      continue;
    }
    const std::int64_t n = (std::min)(pieces->count - skipped, at.count - i);
    f(i, range{pieces->first + skipped, n});
    skipped = 0;
    i += n;
  }
}

/// A row of whole numbers, seen through indices if there are any: token counts, thumbs.
template <class T>
class element_reader {
 public:
  explicit element_reader(strided_span<const T> row, indices_at through = nullptr)
      : row_{row}, through_{through} {}

  /// The rows `at`, 1 for each where none are given, and 0 in what is left of the last vector. Good
  /// until the next call.
  const T* read(range at) {
    if (row_.empty()) return ones<T>.row + (block_size - at.count);
    const int n = whole_vectors(at);
    if (at.count == n && row_.stride() == 1 && through_ == nullptr) return row_.data() + at.first;
    for_each_element(through_, at, [&](std::int64_t i, std::int64_t k) { copy_.row[i] = row_[k]; });
    std::fill(copy_.row + at.count, copy_.row + n, T{});
    return copy_.row;
  }

 private:
  strided_span<const T> row_;
  indices_at through_;
  block<T> copy_;
};

template <storage S, class Through, std::floating_point R>
void load_rows(strided_span<const S> row, Through through, range at, R* to) {
  const auto load_one = [&](std::int64_t i, std::int64_t k) {
    to[i] = static_cast<R>(load(row[k]));
  };
  if (row.stride() == 1 && through == nullptr) {
    const S* const from = row.data() + at.first;
    for (std::int64_t i = 0; i < at.count; ++i) to[i] = static_cast<R>(load(from[i]));
  } else {
    for_each_element(through, at, load_one);
  }
}

/// A row of numbers of any type.
template <std::floating_point R>
class row_reader {
 public:
  explicit row_reader(const const_any_row& row, indices_at through = nullptr)
      : row_{row}, through_{through}, as_it_lies_{row.type() == dtype_of<R> && row.stride() == 1} {}

  /// Whether rows side by side have to be copied to be read.
  bool copies() const { return !row_.empty() && !as_it_lies_; }

  /// The rows `at`, and 0 in what is left of the last vector; null where no row is given. Good
  /// until the next call.
  PROSPECT_INLINE const R* read(range at) {
    if (row_.empty()) return nullptr;
    if (as_it_lies_ && through_ == nullptr && at.count == whole_vectors(at)) {
      return static_cast<const R*>(row_.data()) + at.first;
    }
    return copied(at, [&](auto row) { load_rows(row, through_, at, copy_.row); });
  }
  /// The same of rows that lie in pieces, if any are given.
  PROSPECT_INLINE const R* read(range at, pieces_at pieces) {
    if (row_.empty() || !pieces.given()) return read(at);
    return copied(at, [&](auto row) {
      if (pieces.row != nullptr) return load_rows(row, pieces.row, at, copy_.row);
      for_each_piece(
          pieces.piece, at, [&](std::int64_t i, range piece) __attribute__((always_inline)) {
            ask_for_later(piece);
            load_rows(row, indices_at{}, piece, copy_.row + i);
          });
    });
  }

 private:
  /// Asks for what will be read after so many rows, which is not always where hardware looks.
  PROSPECT_INLINE void ask_for_later(range piece) const {
    if (row_.stride() != 1) return;
    const std::int64_t bytes = bytes_of(row_.type());
    const auto* const later =
        static_cast<const std::byte*>(row_.data()) + (piece.first + block_size) * bytes;
    for (std::int64_t i = 0; i < piece.count * bytes; i += 64) ask_for(later + i);
  }
  /// What f(row) copies of a row of any type.
  template <class F>
  const R* copied(range at, const F& f) {
    switch (row_.type()) {
      case dtype::f64:
        f(row_.as<double>());
        break;
      case dtype::f16:
        f(row_.as<float16>());
        break;
      case dtype::bf16:
        f(row_.as<bfloat16>());
        break;
      default:
        f(row_.as<float>());
    }
    std::fill(copy_.row + at.count, copy_.row + whole_vectors(at), R{});
    return copy_.row;
  }

  const const_any_row& row_;
  indices_at through_;
  bool as_it_lies_;
  block<R> copy_;
};

/// The least magnitude that is rounded to infinity in this type.
template <std::floating_point R>
constexpr R infinite_from(dtype type) {
  constexpr R none = std::numeric_limits<R>::infinity();
  if (type == dtype::f16) return R(65520);
  if (type == dtype::bf16) return R(0x1.ffp127);
  return type == dtype::f32 && std::same_as<R, double> ? R(0x1.ffffffp127) : none;
}

/// Rounds once, and tells whether all that was written is below `limit`.
template <storage S, class Through, std::floating_point R>
bool store_rows(strided_span<S> row, Through through, range at, const R* from, R limit) {
  if (row.stride() == 1 && through == nullptr) {
    S* const to = row.data() + at.first;
    for (std::int64_t i = 0; i < at.count; ++i) to[i] = prospect::detail::stored_as<S>(from[i]);
  } else {
    for_each_element(through, at, [&](std::int64_t i, std::int64_t k) {
      row[k] = prospect::detail::stored_as<S>(from[i]);
    });
  }
  auto largest = prospect::detail::magnitude_bits(R(0));
  for (std::int64_t i = 0; i < at.count; ++i) {
    largest = (std::max)(largest, prospect::detail::magnitude_bits(from[i]));
  }
  return largest < prospect::detail::magnitude_bits(limit);
}

/// A row of results.
template <std::floating_point R>
class row_writer {
 public:
  explicit row_writer(const any_row& row, indices_at through = nullptr)
      : row_{row},
        through_{through},
        limit_{row.empty() ? std::numeric_limits<R>::infinity() : infinite_from<R>(row.type())},
        as_it_lies_{!row.empty() && row.type() == dtype_of<R> && row.stride() == 1} {}

  /// Whether results of rows side by side have to be copied to be written.
  bool copies() const { return !row_.empty() && !as_it_lies_; }
  /// From which magnitude on a result is infinite once it is written.
  R limit() const { return limit_; }

  /// Where the results of the rows `at` go, until `write` hands them out.
  PROSPECT_INLINE R* begin(range at) {
    return lies(at) ? static_cast<R*>(row_.data()) + at.first : copy_.row;
  }
  /// False if a number became infinite, or was none, on its way to another type.
  PROSPECT_INLINE bool write(range at) { return lies(at) || write_from(copy_.row, at); }
  /// The same from elsewhere.
  bool write_from(const R* from, range at) {
    return written([&](auto row) { return store_rows(row, through_, at, from, limit_); });
  }

  /// The same to rows that lie in pieces, if any are given.
  PROSPECT_INLINE R* begin(range at, pieces_at pieces) {
    return pieces.given() ? copy_.row : begin(at);
  }
  PROSPECT_INLINE bool write(range at, pieces_at pieces) {
    if (!pieces.given()) return write(at);
    return written([&](auto row) {
      if (pieces.row != nullptr) return store_rows(row, pieces.row, at, copy_.row, limit_);
      bool finite = true;
      for_each_piece(pieces.piece, at, [&](std::int64_t i, range piece) {
        finite &= store_rows(row, indices_at{}, piece, copy_.row + i, limit_);
      });
      return finite;
    });
  }

 private:
  bool lies(range at) const {
    return as_it_lies_ && through_ == nullptr && at.count == whole_vectors(at);
  }
  /// What f(row) says of a row of any type.
  template <class F>
  bool written(const F& f) {
    if (row_.empty()) return true;
    switch (row_.type()) {
      case dtype::f64:
        return f(row_.as<double>());
      case dtype::f16:
        return f(row_.as<float16>());
      case dtype::bf16:
        return f(row_.as<bfloat16>());
      default:
        return f(row_.as<float>());
    }
  }

  const any_row& row_;
  indices_at through_;
  R limit_;
  bool as_it_lies_;
  block<R> copy_;
};

/// How many rows have tokens on every side, how many tokens a next-token term is over where that is
/// asked, and whether any count is negative.
struct token_tally {
  std::int64_t counted = 0;
  std::int64_t tokens = 0;
  bool negative = false;

  void add(const std::int32_t* side, const std::int32_t* other, int n) {
    std::int32_t signs = 0;
    std::int32_t both = 0;
    for (int i = 0; i < n; ++i) {
      signs |= side[i] | other[i];
      both += (side[i] > 0 ? 1 : 0) & (other[i] > 0 ? 1 : 0);
    }
    counted += both;
    negative = negative || signs < 0;
  }
  /// The same of pairs, and how many tokens a next-token term is over: those of the first side, of
  /// a third row where there is one, or of both.
  void add_pairs(const std::int32_t* side, const std::int32_t* other, const std::int32_t* third,
                 bool over_side, int n) {
    add(side, other, n);
    std::int32_t signs = 0;
    for (int i = 0; i < n; ++i) {
      const std::int32_t more = third == nullptr ? 0 : third[i];
      const std::int64_t scored = std::int64_t{over_side ? side[i] : 0} + more;
      tokens += side[i] > 0 && other[i] > 0 ? scored : 0;
      signs |= more;
    }
    negative = negative || signs < 0;
  }
  token_tally& operator+=(const token_tally& later) {
    counted += later.counted;
    tokens += later.tokens;
    negative = negative || later.negative;
    return *this;
  }
};

}  // namespace PROSPECT_CPU_ISA
}  // namespace prospect::inline v2::cpu::detail
PROSPECT_STRICT_END
