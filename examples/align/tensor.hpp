// The trainer's own tensor: a row-major matrix that keeps its memory from batch to batch, and the
// views through which layers and products see it.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <cstdint>
#include <new>
#include <prospect/core/dtype.hpp>
#include <prospect/core/matrix_view.hpp>
#include <vector>

namespace align {

using bfloat16 = prospect::bfloat16;

// The type that arithmetic on stored numbers is done in.
template <class W>
using arithmetic = prospect::compute_t<W>;

// Memory that always starts on a cache line. Vectorised code treats the elements before the first
// boundary and after the last one alone, and rounds them differently, so a run repeats bit for bit
// only where the boundaries fall alike.
template <class T>
struct line_allocator {
  using value_type = T;
  static constexpr std::align_val_t line{64};

  line_allocator() = default;
  template <class U>
  line_allocator(const line_allocator<U>&) {}

  T* allocate(std::size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), line)); }
  void deallocate(T* p, std::size_t) { ::operator delete(p, line); }
  friend bool operator==(const line_allocator&, const line_allocator&) = default;
};

template <class T>
using aligned_vector = std::vector<T, line_allocator<T>>;

// A view of rows: `data`, `rows`, `columns`, `pitch`, and `row(i)`.
template <class T>
using matrix = prospect::matrix_view<T>;

template <class T>
matrix<T> rows_of(matrix<T> m, std::int64_t first, std::int64_t count) {
  return {m.row(first), count, m.columns, m.pitch};
}

template <class T>
matrix<T> columns_of(matrix<T> m, std::int64_t first, std::int64_t count) {
  return {m.data + first, m.rows, count, m.pitch};
}

// A row as Eigen computes on it.
template <class T>
auto array_of(T* data, std::int64_t size) {
  using array = Eigen::Array<std::remove_const_t<T>, 1, Eigen::Dynamic>;
  using kind = std::conditional_t<std::is_const_v<T>, const array, array>;
  return Eigen::Map<kind>(data, size);
}

template <class T>
class tensor {
 public:
  // Sets the shape; the content is unspecified afterwards. Memory only ever grows, so a training
  // loop allocates in its first steps and never again.
  matrix<T> reshape(std::int64_t rows, std::int64_t columns) {
    rows_ = rows;
    columns_ = columns;
    const auto wanted = static_cast<std::size_t>(rows * columns);
    if (memory_.size() < wanted) {
      memory_ = {};  // before the new memory is asked for: nothing of the old is wanted
      memory_.resize(wanted);
    }
    return view();
  }

  std::size_t bytes() const { return memory_.size() * sizeof(T); }

  matrix<T> view() { return {memory_.data(), rows_, columns_}; }
  matrix<const T> view() const { return {memory_.data(), rows_, columns_}; }

 private:
  aligned_vector<T> memory_;
  std::int64_t rows_ = 0, columns_ = 0;
};

}  // namespace align
