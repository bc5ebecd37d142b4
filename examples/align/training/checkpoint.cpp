// See checkpoint.hpp. Layout: a line that names the format, the settings, the state, and the
// SHA-256 of all that. Numbers lie as the machine keeps them: a checkpoint stays where it was made.
#include "training/checkpoint.hpp"

#include <cstring>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <utility>
#include <vector>

#include "formats/mapped_file.hpp"
#include "formats/stored_tensor.hpp"
#include "sha256.hpp"

namespace align {
namespace {

constexpr std::string_view format = "prospect example checkpoint 2\n";
constexpr std::size_t digest_size = 64;

class writer {
 public:
  explicit writer(const std::filesystem::path& path) : file_(path) { add(format); }

  template <class T>
  void row(std::span<const T> items) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::uint64_t count = items.size();
    add({reinterpret_cast<const char*>(&count), sizeof count});
    add({reinterpret_cast<const char*>(items.data()), items.size_bytes()});
  }
  template <class T>
  void one(const T& item) {
    row(std::span{&item, 1});
  }
  void commit() {
    file_.write(digest_.digits());
    file_.commit();
  }

 private:
  void add(std::string_view bytes) {
    file_.write(bytes);
    digest_.add(bytes);
  }
  output_file file_;
  sha256_stream digest_;
};

class reader {
 public:
  explicit reader(std::string_view bytes) : left_(bytes) {}

  template <class T>
  std::vector<T> row() {
    std::vector<T> items(count_of<T>());
    take(items.data(), items.size() * sizeof(T));
    return items;
  }
  template <class T>
  void fill(std::span<T> items) {
    if (count_of<T>() != items.size()) throw std::runtime_error("holds a model of another size");
    take(items.data(), items.size_bytes());
  }
  template <class T>
  T one() {
    T item;
    fill(std::span{&item, 1});
    return item;
  }

 private:
  template <class T>
  std::size_t count_of() {
    std::uint64_t count = 0;
    take(&count, sizeof count);
    if (count > left_.size() / sizeof(T)) throw std::runtime_error("is damaged");
    return count;
  }
  void take(void* to, std::size_t size) {
    if (size > left_.size()) throw std::runtime_error("is damaged");
    if (size > 0) std::memcpy(to, left_.data(), size);
    left_.remove_prefix(size);
  }
  std::string_view left_;
};

training_state parse(std::string_view bytes, std::string_view settings, std::span<float> trained) {
  if (!bytes.starts_with(format)) throw std::runtime_error("is not a checkpoint of this program");
  if (bytes.size() < format.size() + digest_size ||
      sha256(bytes.substr(0, bytes.size() - digest_size)) !=
          bytes.substr(bytes.size() - digest_size)) {
    throw std::runtime_error("is damaged or cut off");
  }
  reader read(bytes.substr(format.size(), bytes.size() - digest_size - format.size()));
  const std::vector<char> made_with = read.row<char>();
  if (std::string_view{made_with.data(), made_with.size()} != settings) {
    throw std::runtime_error("was made with other data or settings");
  }
  training_state state{trained.size()};
  read.fill(trained);
  read.fill(std::span{state.optimiser.mean});
  read.fill(std::span{state.optimiser.variance});
  state.step = read.one<int>();
  state.memory = read.one<point_memory>();
  state.records = read.row<step_record>();
  return state;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, std::string_view settings,
                     std::span<const float> trained, const training_state& state) {
  writer write(path);
  write.row(std::span{settings});
  write.row(trained);
  write.row(std::span{std::as_const(state.optimiser.mean)});
  write.row(std::span{std::as_const(state.optimiser.variance)});
  write.one(state.step);
  write.one(state.memory);
  write.row(std::span{std::as_const(state.records)});
  write.commit();
}

training_state load_checkpoint(const std::filesystem::path& path, std::string_view settings,
                               std::span<float> trained) {
  const mapped_file file(path);
  try {
    return parse({reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()},
                 settings, trained);
  } catch (const std::runtime_error& why) {
    throw std::runtime_error("the checkpoint " + path.string() + " " + why.what() +
                             "; remove it, or give another folder with --out");
  }
}

std::string checkpoint_name(std::string_view stage, std::string_view settings) {
  return std::string{stage} + "-" + sha256(settings).substr(0, 12) + ".checkpoint";
}

}  // namespace align
