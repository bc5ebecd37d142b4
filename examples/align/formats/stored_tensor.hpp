// What the formats have in common: named tensors in a file's bytes, and how new ones are written.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <string>
#include <vector>

#include "formats/elements.hpp"

namespace align {

using tensor_shape = std::vector<std::size_t>;  // outermost first: [rows, columns], row-major

std::string to_string(const tensor_shape& shape);  // "[576, 1536]"

struct stored_tensor {
  std::string name;
  element_type type = element_type::f32;
  tensor_shape shape;
  std::span<const std::byte> bytes;  // of the file
};

// Throws std::runtime_error, which names two of them, where tensors of the file `name` share bytes.
void require_disjoint(std::span<const stored_tensor> tensors, const std::string& name);

struct planned_tensor {
  std::string name;
  element_type type = element_type::f32;
  tensor_shape shape;
};

// Of a tensor that can be written as planned.
std::size_t byte_count(const planned_tensor& plan);

// Fills `rows`, whole rows from row `first` on, of the tensor number `tensor`. So a model is
// written without a second copy of it.
using row_source =
    std::function<void(std::size_t tensor, std::size_t first, std::span<float> rows)>;

// A file that appears under its name when it is complete, and otherwise not at all. Every failure
// is one sentence with the name.
class output_file {
 public:
  explicit output_file(const std::filesystem::path& path);
  ~output_file();
  output_file(const output_file&) = delete;
  output_file& operator=(const output_file&) = delete;

  void write(std::span<const std::byte> bytes);
  void write(std::string_view bytes) { write(std::as_bytes(std::span(bytes))); }

  // Tensor number `tensor` of the source; refuses what its type cannot hold.
  void write(const planned_tensor& plan, std::size_t tensor, const row_source& source);

  std::size_t written() const { return written_; }
  void commit();

 private:
  [[noreturn]] void fail(const std::string& reason) const;

  std::filesystem::path path_, temporary_;
  std::ofstream out_;
  std::size_t written_ = 0;
};

}  // namespace align
