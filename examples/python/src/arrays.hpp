// Arrays of other libraries (NumPy, PyTorch, whatever speaks DLPack or the buffer protocol) as rows
// and matrices of the C API, for the time of one call. Nothing is copied: strides are handed on.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <prospect/c/prospect.h>

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

namespace prospect::python {

namespace nb = nanobind;

/// Throws what Python shows as ValueError; `problem` follows the name of the argument.
[[noreturn]] void refuse(const std::string& name, const std::string& problem);

/// What a row or matrix may be made of.
enum class made_of {
  reals,    ///< float32, float64, bfloat16, float16
  indices,  ///< int32, int64
  counts,   ///< int32
  flags,    ///< bool, uint8
  masks,    ///< bool, uint8, int32, float32
};

/// The arrays of a call: kept alive as long as this is, and all in one place, the host's memory or
/// one device.
class arrays {
 public:
  /// A one-dimensional array that is read. None is a row that is not given.
  prospect_row read(const char* name, nb::handle array, made_of what);
  /// One of real numbers or flags that is written. None is not wanted.
  prospect_row write(const char* name, nb::handle array, made_of what = made_of::reals);
  prospect_matrix read_matrix(const char* name, nb::handle array);
  prospect_matrix write_matrix(const char* name, nb::handle array);

  bool on_device() const { return device_type_ == nb::device::cuda::value; }

 private:
  template <class Array>
  const Array& keep(const char* name, nb::handle array, int rank, std::vector<Array>& kept);
  void place(const char* name, int type, int id);
  /// An empty array often has no memory, where the C API tells "of no elements" from "not given" by
  /// it, and one array from another: each is given an address of its own.
  void* memory_of(const void* data);

  std::vector<nb::ndarray<nb::ro>> read_;
  std::vector<nb::ndarray<>> written_;
  std::deque<double> nowhere_;  // whose elements stay where they are
  std::string first_;
  int device_type_ = 0;  // of none yet
  int device_id_ = 0;
};

/// A row of the batch B by the name that Python calls it.
template <class B>
struct named_row {
  const char* name;
  prospect_row B::*row;
  made_of what = made_of::reals;
};

/// Puts the rows of a dictionary into their places in a batch; what has no place is refused.
template <class B, class Table>
void fill(B& batch, const Table& table, nb::dict given, arrays& held, bool written) {
  for (const auto [key, array] : given) {
    const auto name = nb::cast<std::string>(key);
    const named_row<B>* found = nullptr;
    for (const named_row<B>& candidate : table) {
      if (name == candidate.name) found = &candidate;
    }
    if (found == nullptr) refuse(name, "is no row that this takes");
    batch.*(found->row) = written ? held.write(found->name, array, found->what)
                                  : held.read(found->name, array, found->what);
  }
}

}  // namespace prospect::python
