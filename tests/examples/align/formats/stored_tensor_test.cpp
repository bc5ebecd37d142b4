// Writing files piece by piece.
#include "formats/stored_tensor.hpp"

#include <algorithm>
#include <cmath>

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

TEST_CASE("a file appears when it is complete, and not before") {
  const scratch here;
  const auto path = here.write("file", "old");
  {
    output_file out(path);
    out.write("half of the new");
    CHECK(scratch::read(path) == "old");
  }
  CHECK(scratch::read(path) == "old");
  {
    output_file out(path);
    out.write("new");
    CHECK(out.written() == 3);
    out.commit();
  }
  CHECK(scratch::read(path) == "new");
  const std::filesystem::directory_iterator entries(here.folder());
  CHECK(std::distance(begin(entries), end(entries)) == 1);
}

TEST_CASE("where no file can be, none is started; a link is written through") {
  const scratch here;
  CHECK(contains(complaint([&] { output_file(here.folder() / "no" / "file"); }), "cannot write "));
  CHECK(contains(complaint([&] { output_file{here.folder()}; }), "it is no regular file"));
  const auto target = here.write("target", "old"), link = here.folder() / "link";
  std::filesystem::create_symlink(target, link);
  output_file out(link);
  out.write("new");
  out.commit();
  CHECK(std::filesystem::is_symlink(link));
  CHECK(scratch::read(target) == "new");
}

TEST_CASE("a full disk is noticed") {
  if (!std::filesystem::exists("/dev/full")) return;
  const scratch here;
  const auto path = here.folder() / "file";
  // The temporary's name is known: it is made a link to a device that is always full.
  std::filesystem::create_symlink("/dev/full", path.string() + ".tmp" + std::to_string(getpid()));
  const std::string what = complaint([&] {
    output_file out(path);
    out.write(std::string(100, 'x'));
    out.commit();
  });
  CHECK(what == "cannot write " + path.string() + ": the disk may be full");
  CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a tensor is asked for in whole rows, never much at once, each row once") {
  const scratch here;
  const planned_tensor plan{.name = "t", .type = element_type::bf16, .shape = {3, 1000, 400}};
  std::size_t next = 0, most = 0;
  output_file out(here.folder() / "file");
  out.write(plan, 7, [&](std::size_t tensor, std::size_t first, std::span<float> rows) {
    CHECK(tensor == 7);
    CHECK(first == next);
    CHECK(rows.size() % 400 == 0);
    next += rows.size() / 400;
    most = std::max(most, rows.size());
    std::fill(rows.begin(), rows.end(), 1.0F);
  });
  CHECK(next == 3000);
  CHECK(most < 500'000);
  CHECK(out.written() == byte_count(plan));
}

TEST_CASE("a tensor that its type cannot hold is not written") {
  const scratch here;
  output_file out(here.folder() / "file");
  const auto nan = [](std::size_t, std::size_t, std::span<float> rows) { rows[0] = std::nanf(""); };
  const planned_tensor plan{.name = "t", .type = element_type::f16, .shape = {2}};
  CHECK(contains(complaint([&] { out.write(plan, 0, nan); }),
                 "the tensor t has a value that is not finite as f16"));
  const planned_tensor odd{.name = "t", .type = element_type::q8_0, .shape = {2, 31}};
  CHECK(complaint([&] { byte_count(odd); }) ==
        "the tensor t of shape [2, 31] cannot be written as q8_0");
  const planned_tensor only_read{.name = "t", .type = element_type::q4_0, .shape = {2, 32}};
  CHECK(contains(complaint([&] { byte_count(only_read); }), "cannot be written as q4_0"));
}

TEST_CASE("tensors that share bytes are refused") {
  const std::vector<std::byte> bytes(10);
  const auto part = [&](const char* name, std::size_t first, std::size_t size) {
    return stored_tensor{
        .name = name, .shape = {size}, .bytes = std::span(bytes).subspan(first, size)};
  };
  CHECK_NOTHROW(require_disjoint(std::vector{part("b", 4, 6), part("a", 0, 4)}, "x"));
  CHECK(complaint([&] {
          require_disjoint(std::vector{part("b", 4, 6), part("a", 0, 5)}, "x");
        }) == "x: the tensors a and b overlap");
}
