// Every format that feedback comes in, on small files made here, and every complaint about one.
#include "sources.hpp"

#include "catch.hpp"
#include "scratch.hpp"

using namespace align;

namespace {

worded_feedback feedback_lines(std::string_view text) {
  return parse_json_lines(text, "mine.jsonl");
}

std::string complaint_about(std::string_view text) {
  return complaint([&] { feedback_lines(text); });
}

std::string transcript(const std::string& question, const std::string& answer) {
  return "\\n\\nHuman: " + question + "\\n\\nAssistant:" + answer;
}

std::string choice(const std::string& chosen, const std::string& rejected) {
  return "{\"chosen\": \"" + chosen + "\", \"rejected\": \"" + rejected + "\"}\n";
}

}  // namespace

TEST_CASE("a polarity snippet is a prompt of two tokens and a completion") {
  const worded_feedback f = parse_polarity("a fine film that never lets go .\ntoo short\n\n",
                                           "a dull film that never ends .");
  REQUIRE(f.rows.size() == 2);
  CHECK(f.duels.empty());
  CHECK(f.rows[0].prompt == words{"a", "fine"});
  CHECK(f.rows[0].completion == words{"film", "that", "never", "lets", "go", "."});
  CHECK(f.rows[0].desirable);
  CHECK_FALSE(f.rows[1].desirable);
  CHECK(contains(f.notes.back(), "Left out 1 snippets"));
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
    const auto path = here.write(name, choice(transcript("a", "b"), transcript("a", "c")));
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

TEST_CASE("transcripts are split at the last turn of the assistant") {
  const worded_feedback f = feedback_lines(
      choice(transcript("one?", " no. \\n\\nHuman: two?") + "\\n\\nAssistant: Yes",
             transcript("one?", " no. \\n\\nHuman: two?") + "\\n\\nAssistant: Never!"));
  REQUIRE(f.duels.size() == 1);
  CHECK(f.duels[0].prompt == words{"human", ":", "one", "?", "assistant", ":", "no", ".", "human",
                                   ":", "two", "?", "assistant", ":"});
  CHECK(f.duels[0].chosen == words{"yes"});
  CHECK(f.duels[0].rejected == words{"never", "!"});
  CHECK_FALSE(f.quotable);
  CHECK(f.vocabulary_limit == 3000);
}

TEST_CASE("transcripts that cannot be compared are left out and counted") {
  const std::string good = choice(transcript("q", " a"), transcript("q", " b"));
  const worded_feedback f =
      feedback_lines(good + choice(transcript("q", " a"), transcript("other", " b")) +
                     choice(transcript("q", ""), transcript("q", " b")) +
                     choice(transcript("q", " "), transcript("q", " b")) + good);
  CHECK(f.duels.size() == 2);
  REQUIRE(f.notes.size() == 3);
  CHECK(contains(f.notes[0], "Left out 1 rows whose two transcripts differ"));
  CHECK(contains(f.notes[1], "Left out 2 rows with an empty completion"));
}

TEST_CASE("a user's own thumbs and choices are read without a fingerprint") {
  const scratch here;
  const auto thumbs =
      here.write("mine.jsonl",
                 "{\"prompt\": \"Is it?\", \"completion\": \"Yes.\", \"label\": true}\r\n"
                 "\n"
                 "{\"label\": 0, \"completion\": \"No\", \"prompt\": \"\", \"id\": 7}");
  const worded_feedback f = read_feedback(thumbs);
  REQUIRE(f.rows.size() == 2);
  CHECK(f.name == "mine.jsonl");
  CHECK(f.quotable);
  CHECK(f.rows[0].prompt == words{"is", "it", "?"});
  CHECK(f.rows[0].desirable);
  CHECK(f.rows[1].prompt.empty());
  CHECK_FALSE(f.rows[1].desirable);

  const worded_feedback g =
      feedback_lines("{\"prompt\": \"p\", \"chosen\": \"good one\", \"rejected\": \"bad\"}");
  REQUIRE(g.duels.size() == 1);
  CHECK(g.duels[0].chosen == words{"good", "one"});
}

TEST_CASE("a malformed line is named by its number") {
  const std::string good = "{\"prompt\": \"p\", \"completion\": \"c\", \"label\": true}\n";
  const auto third = [&](const std::string& line) { return complaint_about(good + "\n" + line); };
  CHECK(third("{\"prompt\": ") == "mine.jsonl, line 3: not valid JSON at column 12");
  CHECK(contains(third("{\"prompt\": \"\xff\"}"), "mine.jsonl, line 3: not valid JSON"));
  CHECK(contains(third(good.substr(0, good.size() - 1) + "}"), "line 3: not valid JSON"));
  CHECK(third("{\"prompt\": 1e999}") == "mine.jsonl, line 3: a number is out of range");
  CHECK(third("[1, 2]") == "mine.jsonl, line 3: a JSON object is expected");
  CHECK(third("{\"prompt\": \"p\", \"label\": true}") ==
        "mine.jsonl, line 3: the key \"completion\" is missing");
  CHECK(third("{\"prompt\": [], \"completion\": \"c\", \"label\": true}") ==
        "mine.jsonl, line 3: \"prompt\" must be a text");
  for (const char* label : {"\"yes\"", "2", "null", "0.5"}) {
    CHECK(third("{\"prompt\": \"p\", \"completion\": \"c\", \"label\": " + std::string(label) +
                "}") == "mine.jsonl, line 3: \"label\" must be true or false");
  }
  CHECK(contains(third("{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}"),
                 "line 3: the key \"completion\" is missing"));
  CHECK(contains(complaint_about("{\"text\": \"x\"}"), "line 1: the keys must be prompt"));
  CHECK(complaint_about(choice("hello", "world")) ==
        "mine.jsonl, line 1: \"chosen\" has no assistant turn");
  CHECK(complaint_about(" \n\n") == "mine.jsonl is empty");
}
