// A checkpoint gives back what was saved, and anything else than that is refused.
#include "training/checkpoint.hpp"

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "../scratch.hpp"
#include "catch.hpp"
#include "sha256.hpp"

using namespace align;

namespace {

const std::vector<float> some_numbers{1.5f, -2.0f, std::numeric_limits<float>::denorm_min()};

training_state some_state() {
  training_state state{3};
  state.optimiser.mean = {0.1f, 0.2f, 0.3f};
  state.optimiser.variance = {4, 5, 6};
  state.step = 7;
  state.memory = {0.25, 3};
  state.records = {{.step = 7, .loss = 0.5}};
  return state;
}

}  // namespace

TEST_CASE("what was saved comes back") {
  const scratch files;
  const auto path = files.folder() / "a.checkpoint";
  save_checkpoint(path, "settings", some_numbers, some_state());
  std::vector<float> numbers(3);
  const training_state back = load_checkpoint(path, "settings", numbers);
  CHECK(numbers == some_numbers);
  CHECK(back.optimiser.mean == some_state().optimiser.mean);
  CHECK(back.optimiser.variance == some_state().optimiser.variance);
  CHECK(back.step == 7);
  CHECK(back.memory.sum == 0.25);
  CHECK(back.memory.count == 3);
  REQUIRE(back.records.size() == 1);
  CHECK(back.records[0].loss == 0.5);
}

TEST_CASE("a damaged, foreign or unfitting checkpoint is refused in one sentence") {
  const scratch files;
  const auto path = files.folder() / "a.checkpoint";
  save_checkpoint(path, "settings", some_numbers, some_state());
  const std::string whole = scratch::read(path);
  const auto refusal = [&](const std::string& content, const char* settings = "settings",
                           std::size_t size = 3) {
    files.write("b.checkpoint", content);
    std::vector<float> numbers(size);
    return complaint([&] { load_checkpoint(files.folder() / "b.checkpoint", settings, numbers); });
  };
  CHECK(refusal(whole).empty());
  CHECK(contains(refusal("GIF89a"), "is not a checkpoint"));
  CHECK(contains(refusal(""), "is not a checkpoint"));
  for (std::size_t size = 40; size < whole.size(); size += 7) {
    REQUIRE(contains(refusal(whole.substr(0, size)), "is damaged or cut off"));
  }
  for (std::size_t at = 40; at < whole.size(); at += 11) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    REQUIRE(contains(refusal(flipped), "is damaged or cut off"));
  }
  CHECK(contains(refusal(whole, "other"), "was made with other data or settings"));
  CHECK(contains(refusal(whole, "settings", 4), "a model of another size"));
  CHECK(contains(refusal(whole, "other"), "b.checkpoint"));
}

TEST_CASE("a whole file that says nonsense is refused") {
  const scratch files;
  const auto path = files.folder() / "a.checkpoint";
  const auto refusal = [&](const training_state& state) {
    save_checkpoint(path, "settings", some_numbers, state);
    std::vector<float> numbers(3);
    return complaint([&] { load_checkpoint(path, "settings", numbers); });
  };
  training_state state = some_state();
  state.optimiser.mean.pop_back();
  CHECK(contains(refusal(state), "a model of another size"));
  state = some_state();
  state.optimiser.variance.push_back(1);
  CHECK(contains(refusal(state), "a model of another size"));

  // With a digest that fits, counts and ends are believed no more than before.
  const std::string format = "prospect example checkpoint 2\n";
  const auto forged = [&](std::uint64_t count, const std::string& behind) {
    std::string bytes = format;
    bytes.append(reinterpret_cast<const char*>(&count), sizeof count);
    bytes += behind;
    files.write("b.checkpoint", bytes + sha256(bytes));
    std::vector<float> numbers(3);
    return complaint(
        [&] { load_checkpoint(files.folder() / "b.checkpoint", "settings", numbers); });
  };
  for (const std::uint64_t count : {std::uint64_t{9}, std::uint64_t{1} << 62, ~std::uint64_t{0}}) {
    CHECK(contains(forged(count, "settings"), "is damaged;"));
  }
  CHECK(contains(forged(8, "settings"), "is damaged;"));  // right so far, and then nothing
  CHECK(contains(forged(8, "sEttings"), "other data or settings"));
}

TEST_CASE("other settings have another file") {
  CHECK(checkpoint_name("sft", "a") == checkpoint_name("sft", "a"));
  CHECK(checkpoint_name("sft", "a") != checkpoint_name("sft", "b"));
  CHECK(checkpoint_name("sft", "a") != checkpoint_name("align", "a"));
}

TEST_CASE("a checkpoint that cannot be written leaves the old one") {
  const scratch files;
  const auto path = files.folder() / "a.checkpoint";
  save_checkpoint(path, "settings", some_numbers, some_state());
  const std::string before = scratch::read(path);
  CHECK_FALSE(complaint([&] {
                save_checkpoint(files.folder() / "no" / "a.checkpoint", "settings", some_numbers,
                                some_state());
              }).empty());
  CHECK(scratch::read(path) == before);
  CHECK(std::distance(std::filesystem::directory_iterator(files.folder()), {}) == 1);
}
