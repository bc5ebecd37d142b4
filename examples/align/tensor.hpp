// The trainer's own tensor: a row-major matrix that keeps its memory from batch to batch, and the
// view through which Eigen computes on it.
#pragma once

#include <Eigen/Core>
#include <cstddef>
#include <new>
#include <type_traits>
#include <vector>

namespace align {

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

template <class T>
using row_major = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class T>
using matrix = Eigen::Map<row_major<T>>;

template <class T>
using const_matrix = Eigen::Map<const row_major<T>>;

// Of constants, if T is const.
template <class T>
using matrix_of =
    std::conditional_t<std::is_const_v<T>, const_matrix<std::remove_const_t<T>>, matrix<T>>;

template <class T>
class tensor {
 public:
  // Sets the shape; the content is unspecified afterwards. Memory only ever grows, so a training
  // loop allocates in its first steps and never again.
  matrix<T> reshape(Eigen::Index rows, Eigen::Index columns) {
    rows_ = rows;
    columns_ = columns;
    const auto wanted = static_cast<std::size_t>(rows * columns);
    if (memory_.size() < wanted) memory_.resize(wanted);
    return view();
  }

  matrix<T> view() { return {memory_.data(), rows_, columns_}; }
  const_matrix<T> view() const { return {memory_.data(), rows_, columns_}; }

 private:
  aligned_vector<T> memory_;
  Eigen::Index rows_ = 0, columns_ = 0;
};

}  // namespace align
