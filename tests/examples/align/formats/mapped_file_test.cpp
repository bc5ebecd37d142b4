// Files as memory.
#include "formats/mapped_file.hpp"

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

TEST_CASE("a mapped file is its bytes, also after it was moved or replaced") {
  const scratch here;
  const auto path = here.write("file", "abc");
  mapped_file first(path);
  const auto bytes = first.bytes();
  mapped_file second = std::move(first);
  CHECK(second.bytes().data() == bytes.data());
  CHECK(first.bytes().empty());
  first = std::move(second);
  here.write("other", "xyz!");
  std::filesystem::rename(here.folder() / "other", path);
  REQUIRE(first.bytes().size() == 3);
  CHECK(first.bytes()[2] == std::byte{'c'});
  CHECK(mapped_file(here.write("empty", "")).bytes().empty());
}

TEST_CASE("what cannot be mapped is named") {
  const scratch here;
  const auto missing = here.folder() / "missing";
  CHECK(complaint([&] { mapped_file{missing}; }) == "there is no file " + missing.string());
  CHECK(contains(complaint([&] { mapped_file{here.folder()}; }), "is a folder, not a file"));
  CHECK(complaint([] { mapped_file{"/dev/null"}; }) == "/dev/null is no regular file");
}
