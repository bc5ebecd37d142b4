// See checkpoint.hpp. Layout: a line that names the format, the settings, the state, and the
// SHA-256 of all that. Numbers lie as the machine keeps them: a checkpoint stays where it was made.
#include "checkpoint.hpp"

#include <cstring>
#include <span>
#include <stdexcept>
#include <type_traits>
#include <vector>

#include "files.hpp"
#include "sha256.hpp"

namespace align {
namespace {

constexpr std::string_view format = "prospect example checkpoint 1\n";
constexpr std::size_t digest_size = 64;

class writer {
 public:
  template <class T>
  void row(std::span<const T> items) {
    static_assert(std::is_trivially_copyable_v<T>);
    const std::uint64_t count = items.size();
    bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    bytes.append(reinterpret_cast<const char*>(items.data()), items.size_bytes());
  }
  template <class T>
  void one(const T& item) {
    row(std::span{&item, 1});
  }
  std::string bytes{format};
};

class reader {
 public:
  explicit reader(std::string_view bytes) : left_(bytes) {}

  template <class T>
  aligned_vector<T> row() {
    std::uint64_t count = 0;
    take(&count, sizeof count);
    if (count > left_.size() / sizeof(T)) throw std::runtime_error("is damaged");
    aligned_vector<T> items(count);
    take(items.data(), count * sizeof(T));
    return items;
  }
  template <class T>
  T one() {
    const aligned_vector<T> items = row<T>();
    if (items.size() != 1) throw std::runtime_error("is damaged");
    return items.front();
  }

 private:
  void take(void* to, std::size_t size) {
    if (size > left_.size()) throw std::runtime_error("is damaged");
    if (size > 0) std::memcpy(to, left_.data(), size);
    left_.remove_prefix(size);
  }
  std::string_view left_;
};

training_state parse(std::string_view bytes, std::string_view settings, std::size_t parameters) {
  if (!bytes.starts_with(format)) throw std::runtime_error("is not a checkpoint of this program");
  if (bytes.size() < format.size() + digest_size ||
      sha256(bytes.substr(0, bytes.size() - digest_size)) !=
          bytes.substr(bytes.size() - digest_size)) {
    throw std::runtime_error("is damaged or cut off");
  }
  reader read(bytes.substr(format.size(), bytes.size() - digest_size - format.size()));
  const aligned_vector<char> made_with = read.row<char>();
  if (std::string_view{made_with.data(), made_with.size()} != settings) {
    throw std::runtime_error("was made with other data or settings");
  }
  training_state state{read.row<float>()};
  state.optimiser.mean = read.row<float>();
  state.optimiser.variance = read.row<float>();
  state.step = read.one<int>();
  state.memory = read.one<point_memory>();
  const aligned_vector<step_record> records = read.row<step_record>();
  state.records.assign(records.begin(), records.end());
  if (state.parameters.size() != parameters || state.optimiser.mean.size() != parameters ||
      state.optimiser.variance.size() != parameters) {
    throw std::runtime_error("holds a model of another size");
  }
  return state;
}

}  // namespace

void save_checkpoint(const std::filesystem::path& path, std::string_view settings,
                     const training_state& state) {
  writer write;
  write.row(std::span{settings});
  write.row(std::span{state.parameters});
  write.row(std::span{state.optimiser.mean});
  write.row(std::span{state.optimiser.variance});
  write.one(state.step);
  write.one(state.memory);
  write.row(std::span{state.records});
  write_atomically(path, write.bytes + sha256(write.bytes));
}

training_state load_checkpoint(const std::filesystem::path& path, std::string_view settings,
                               std::size_t parameters) {
  const std::string bytes = read_file(path);
  try {
    return parse(bytes, settings, parameters);
  } catch (const std::runtime_error& why) {
    throw std::runtime_error("the checkpoint " + path.string() + " " + why.what() +
                             "; remove it, or give another folder with --out");
  }
}

std::string checkpoint_name(std::string_view stage, std::string_view settings) {
  return std::string{stage} + "-" + sha256(settings).substr(0, 12) + ".checkpoint";
}

}  // namespace align
