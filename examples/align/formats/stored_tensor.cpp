// See stored_tensor.hpp.
#include "formats/stored_tensor.hpp"

#include <unistd.h>

#include <algorithm>
#include <stdexcept>
#include <system_error>

namespace align {
namespace fs = std::filesystem;

std::string to_string(const tensor_shape& shape) {
  std::string text = "[";
  for (const std::size_t size : shape) {
    if (text.size() > 1) text += ", ";
    text += std::to_string(size);
  }
  return text + "]";
}

void require_disjoint(std::span<const stored_tensor> tensors, const std::string& name) {
  std::vector<const stored_tensor*> in_order;
  for (const stored_tensor& t : tensors) {
    if (!t.bytes.empty()) in_order.push_back(&t);
  }
  std::sort(in_order.begin(), in_order.end(),
            [](const auto* a, const auto* b) { return a->bytes.data() < b->bytes.data(); });
  for (std::size_t i = 1; i < in_order.size(); ++i) {
    const stored_tensor &before = *in_order[i - 1], &after = *in_order[i];
    if (before.bytes.data() + before.bytes.size() > after.bytes.data()) {
      throw std::runtime_error(name + ": the tensors " + before.name + " and " + after.name +
                               " overlap");
    }
  }
}

std::size_t byte_count(const planned_tensor& plan) {
  const auto bytes = byte_count(plan.type, plan.shape);
  if (!bytes || !can_encode(plan.type)) {
    throw std::runtime_error("the tensor " + plan.name + " of shape " + to_string(plan.shape) +
                             " cannot be written as " + std::string(layout_of(plan.type).name));
  }
  return *bytes;
}

output_file::output_file(const fs::path& path) : path_(path) {
  std::error_code error;
  if (fs::is_symlink(path_, error)) path_ = fs::weakly_canonical(path_);  // through it, not over it
  if (fs::exists(path_, error) && !fs::is_regular_file(path_, error)) fail("it is no regular file");
  // In the same folder, because rename is atomic only within one file system; with the process
  // number, because two runs may write the same file.
  temporary_ = path_;
  temporary_ += ".tmp" + std::to_string(getpid());
  out_.open(temporary_, std::ios::binary | std::ios::trunc);
  if (!out_) fail("a file in its folder cannot be made");
}

output_file::~output_file() {
  std::error_code error;
  if (!temporary_.empty()) fs::remove(temporary_, error);
}

void output_file::write(std::span<const std::byte> bytes) {
  out_.write(reinterpret_cast<const char*>(bytes.data()),
             static_cast<std::streamsize>(bytes.size()));
  if (!out_) fail("the disk may be full");
  written_ += bytes.size();
}

void output_file::write(const planned_tensor& plan, std::size_t tensor, const row_source& source) {
  constexpr std::size_t elements_at_once = std::size_t{1} << 18U;
  if (byte_count(plan) == 0) return;
  const std::size_t columns = plan.shape.back();
  std::size_t rows = 1;
  for (std::size_t i = 0; i + 1 < plan.shape.size(); ++i) rows *= plan.shape[i];
  const std::size_t rows_at_once = std::clamp(elements_at_once / columns, std::size_t{1}, rows);
  const tensor_shape row_shape{columns};
  const std::size_t row_bytes = *byte_count(plan.type, row_shape);

  std::vector<float> elements(rows_at_once * columns);
  std::vector<std::byte> encoded(rows_at_once * row_bytes);
  for (std::size_t first = 0; first < rows; first += rows_at_once) {
    const std::size_t count = std::min(rows_at_once, rows - first);
    const std::span<float> in = std::span(elements).first(count * columns);
    const std::span<std::byte> out = std::span(encoded).first(count * row_bytes);
    source(tensor, first, in);
    if (!can_hold(plan.type, in)) {
      fail("the tensor " + plan.name + " has a value that is not finite as " +
           std::string(layout_of(plan.type).name));
    }
    encode(plan.type, in, out);
    write(out);
  }
}

void output_file::commit() {
  out_.close();
  if (!out_) fail("the disk may be full");
  std::error_code error;
  fs::rename(temporary_, path_, error);
  if (error) fail(error.message());
  temporary_.clear();
}

void output_file::fail(const std::string& reason) const {
  throw std::runtime_error("cannot write " + path_.string() + ": " + reason);
}

}  // namespace align
