// The published sets, and how a path is told apart.
#include "data/sources.hpp"

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

TEST_CASE("a polarity snippet is a prompt of two words and a completion") {
  const text_feedback f = parse_polarity("a  fine film that never lets go .\ntoo short\n\n",
                                         "a dull film that never ends .\r\n");
  REQUIRE(f.rows.size() == 2);
  CHECK(f.duels.empty());
  CHECK(f.rows[0].prompt == std::vector<message>{{"user", "a  fine"}});
  CHECK(f.rows[0].completion == "film that never lets go .");
  CHECK(f.rows[0].line == 1);
  CHECK(f.rows[1].completion == "film that never ends .");
  CHECK(f.rows[0].desirable);
  CHECK_FALSE(f.rows[1].desirable);
  CHECK(contains(f.notes.back(),
                 "Left out 1 snippets of rt-polarity.pos shorter than 7 words: line 2."));
}

TEST_CASE("a polarity folder must be whole and published") {
  const scratch here;
  here.write("rt-polarity.pos", "a fine film that never lets go .\n");
  CHECK(contains(complaint([&] { read_feedback(here.folder()); }), "there is no file"));
  here.write("rt-polarity.neg", "a dull film that never ends , alas .\n");
  const std::string what = complaint([&] { read_feedback(here.folder()); });
  CHECK(contains(what, "rt-polarity.pos differs from the published file"));
  // Either of the two files stands for the pair.
  CHECK(complaint([&] { read_feedback(here.folder() / "rt-polarity.neg"); }) == what);
}

TEST_CASE("the HH file must be the published one, packed or not") {
  const scratch here;
  for (const char* name : {"harmless-base-test.jsonl", "harmless-base-test.jsonl.gz"}) {
    const auto path = here.write(name, "{}");
    CHECK(contains(complaint([&] { read_feedback(path); }), "differs from the published file"));
    CHECK(contains(complaint([&] { read_feedback(here.folder()); }), "differs"));
    std::filesystem::remove(path);
  }
}

TEST_CASE("a path to nothing known is refused with what was looked for") {
  const scratch here;
  CHECK(complaint([&] { read_feedback(here.folder() / "no"); }) ==
        "there is no file or folder " + (here.folder() / "no").string());
  const std::string what = complaint([&] { read_feedback(here.folder()); });
  CHECK(contains(what, "holds neither rt-polarity.pos"));
  CHECK(contains(what, "harmless-base-test.jsonl.gz"));
}

TEST_CASE("a file of one's own is read without a fingerprint") {
  const scratch here;
  const auto path = here.write(
      "mine.jsonl", "{\"prompt\": \"Is it?\", \"completion\": \"Yes.\", \"label\": true}\r\n");
  const text_feedback f = read_feedback(path);
  REQUIRE(f.rows.size() == 1);
  CHECK(f.name == "mine.jsonl");
}
