// Reading, fingerprints, atomic writing, and what can be known before it.
#include "files.hpp"

#include <iterator>

#include "catch.hpp"
#include "scratch.hpp"
#include "sha256.hpp"

using namespace align;

TEST_CASE("a file is replaced as a whole and leaves no temporary behind") {
  const scratch here;
  const auto path = here.folder() / "report.json";
  write_atomically(path, "old");
  write_atomically(path, "new content");
  CHECK(read_file(path) == "new content");
  const std::filesystem::directory_iterator entries(here.folder());
  CHECK(std::distance(begin(entries), end(entries)) == 1);
}

TEST_CASE("what cannot be read or written is named in one sentence") {
  const scratch here;
  const auto missing = here.folder() / "missing.txt";
  CHECK(complaint([&] { read_file(missing); }) == "there is no file " + missing.string());
  CHECK(contains(complaint([&] { read_file(here.folder()); }), "is a folder, not a file"));
  const auto nowhere = here.folder() / "no" / "such" / "folder";
  CHECK(complaint([&] { write_atomically(nowhere, "x"); }) == "cannot write " + nowhere.string());
}

TEST_CASE("a failed write keeps the old file and removes the temporary one") {
  const scratch here;
  const auto folder = here.folder() / "taken";
  std::filesystem::create_directory(folder);
  CHECK(contains(complaint([&] { write_atomically(folder, "x"); }), "cannot write"));
  const std::filesystem::directory_iterator entries(here.folder());
  CHECK(std::distance(begin(entries), end(entries)) == 1);
  CHECK(std::filesystem::is_directory(folder));
}

TEST_CASE("a link is written through, and a device is not replaced by a file") {
  const scratch here;
  const auto target = here.write("target", "old"), link = here.folder() / "link";
  std::filesystem::create_symlink(target, link);
  write_atomically(link, "new");
  CHECK(std::filesystem::is_symlink(link));
  CHECK(scratch::read(target) == "new");

  const auto device = here.folder() / "device";
  std::filesystem::create_symlink("/dev/null", device);
  write_atomically(device, "gone");
  CHECK(std::filesystem::is_character_file("/dev/null"));
}

TEST_CASE("a fingerprint that differs is refused with both digests") {
  const std::string expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
  CHECK_NOTHROW(require_sha256("abc", expected, "x.pos"));
  const std::string what = complaint([&] { require_sha256("abd", expected, "x.pos"); });
  CHECK(contains(what, "x.pos differs from the published file"));
  CHECK(contains(what, expected));
  CHECK(contains(what, "a52d159f262b2c6ddb724a61840befc36eb30c88877a4030b65cbe86298449c9"));
}

TEST_CASE("content without gzip's mark is left as it is") {
  CHECK(unpack("plain", "x") == "plain");
  CHECK(unpack("", "x").empty());
}

TEST_CASE("gzip is unpacked, member after member, and damage is noticed, where there is zlib") {
  // gzip of "thumb\n", time stamp and file name left out.
  const std::string packed(
      "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x2b\xc9\x28\xcd\x4d\xe2\x02\x00\x1e\x3a\xc3\x23"
      "\x06\x00\x00\x00",
      26);
  if (contains(complaint([&] { unpack(packed, "x.gz"); }), "built without zlib")) return;
  CHECK(unpack(packed, "x.gz") == "thumb\n");
  CHECK(unpack(packed + packed, "x.gz") == "thumb\nthumb\n");
  CHECK(contains(complaint([&] { unpack(packed.substr(0, 15), "x.gz"); }), "x.gz is a damaged"));
  CHECK(contains(complaint([&] { unpack(packed + "junk", "x.gz"); }), "x.gz is a damaged"));
}

TEST_CASE("a large file has the fingerprint of its bytes") {
  const scratch here;
  const std::string bytes(3 << 20, 'x');
  CHECK(sha256_of_file(here.write("large", bytes)) == sha256(bytes));
  CHECK(sha256_of_file(here.write("empty", "")) == sha256(""));
  CHECK(contains(complaint([&] { sha256_of_file(here.folder() / "no"); }), "there is no file"));
}

TEST_CASE("what cannot be written is found before there is anything to write") {
  const scratch here;
  const auto folder = here.folder();
  CHECK(complaint([&] { require_writable(folder / "report.html"); }).empty());
  CHECK(complaint([&] { require_writable(here.write("old", "x")); }).empty());
  CHECK(scratch::read(folder / "old") == "x");
  CHECK(complaint([&] { require_writable("/dev/null"); }).empty());
  CHECK(complaint([&] { require_writable("report.html"); }).empty());
  CHECK(complaint([&] { require_writable(folder); }) ==
        "cannot write " + folder.string() + ": it is a folder");
  const auto nowhere = folder / "no" / "report.html";
  CHECK(complaint([&] { require_writable(nowhere); }) ==
        "cannot write " + nowhere.string() + ": there is no folder " + (folder / "no").string());
  CHECK(contains(complaint([&] { require_writable(folder / "old" / "x"); }), "there is no folder"));
  CHECK(contains(complaint([&] { require_writable("/proc/report.html"); }), "cannot write /proc"));
}

TEST_CASE("a folder is made where there is none, and a file is not one") {
  const scratch here;
  const auto deep = here.folder() / "a" / "b";
  require_folder(deep);
  require_folder(deep);
  CHECK(std::filesystem::is_directory(deep));
  const auto file = here.write("taken", "x");
  CHECK(complaint([&] { require_folder(file); }) ==
        file.string() + " is a file, where a folder is needed");
  CHECK(contains(complaint([&] { require_folder(file / "b"); }), "cannot make the folder"));
}
