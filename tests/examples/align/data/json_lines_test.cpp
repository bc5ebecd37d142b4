// Every kind of line, and every complaint about one.
#include "data/json_lines.hpp"

#include "../scratch.hpp"
#include "catch.hpp"

using namespace align;

namespace {

using conversation = std::vector<message>;

text_feedback read(std::string_view text) { return parse_json_lines(text, "mine.jsonl"); }
std::string complaint_about(std::string_view text) {
  return complaint([&] { read(text); });
}

std::string said(const std::string& role, const std::string& content) {
  return R"({"role": ")" + role + R"(", "content": ")" + content + R"("})";
}

std::string transcript(const std::string& question, const std::string& answer) {
  return "\\n\\nHuman: " + question + "\\n\\nAssistant:" + answer;
}

std::string choice(const std::string& chosen, const std::string& rejected) {
  return R"({"chosen": ")" + chosen + R"(", "rejected": ")" + rejected + "\"}\n";
}

std::string thumb(const std::string& label) {
  return R"({"prompt": "p", "completion": "c", "label": )" + label + "}\n";
}

}  // namespace

TEST_CASE("thumbs are a prompt, a completion and a label") {
  const text_feedback f = read(
      "{\"prompt\": \"Is it?\", \"completion\": \"Yes.\", \"label\": true}\r\n"
      "\n"
      "{\"label\": 0, \"completion\": \" No\", \"prompt\": \"\", \"id\": 7}");
  REQUIRE(f.rows.size() == 2);
  CHECK(f.quotable);
  CHECK(f.rows[0].prompt == conversation{{"user", "Is it?"}});
  CHECK(f.rows[0].completion == "Yes.");
  CHECK(f.rows[0].desirable);
  CHECK(f.rows[0].line == 1);
  CHECK(f.rows[1].prompt.empty());
  CHECK(f.rows[1].completion == " No");
  CHECK_FALSE(f.rows[1].desirable);
  CHECK(f.rows[1].line == 3);
  CHECK(f.notes.empty());
}

TEST_CASE("a label is true, false, 1 or 0, and nothing that only looks like one") {
  const text_feedback f =
      read(thumb("true") + thumb("1") + thumb("1.0") + thumb("false") + thumb("0") + thumb("0.0"));
  REQUIRE(f.rows.size() == 6);
  for (std::size_t i = 0; i < 6; ++i) CHECK(f.rows[i].desirable == (i < 3));
  for (const char* label : {"\"thumbs up\"", "\"true\"", "2", "-1", "null", "0.5"}) {
    CHECK(complaint_about(thumb(label)) ==
          "mine.jsonl, line 1: \"label\" must be true, false, 1 or 0, not " + std::string(label));
  }
  CHECK(contains(complaint_about(thumb("[1]")), "not a list"));
  CHECK(contains(complaint_about(thumb("{\"a\": 1}")), "not an object"));
  const std::string endless = complaint_about(thumb('"' + std::string(100000, 'x') + '"'));
  CHECK(endless.size() < 150);
}

TEST_CASE("the last message of a rated conversation is the answer") {
  const text_feedback f =
      read(R"({"messages": [)" + said("system", "Be brief.") + ", " + said("user", "Hi") + ", " +
           said("assistant", "Hello") + R"(], "label": true})");
  REQUIRE(f.rows.size() == 1);
  CHECK(f.rows[0].prompt == conversation{{"system", "Be brief."}, {"user", "Hi"}});
  CHECK(f.rows[0].completion == "Hello");
  CHECK(f.rows[0].desirable);
}

TEST_CASE("a prompt and an answer may be texts or lists of messages") {
  const conversation hi{{"user", "Hi"}};
  const std::string user = said("user", "Hi"), liked = said("assistant", "good"),
                    disliked = said("assistant", "bad");
  for (const std::string& prompt : {std::string("\"Hi\""), "[" + user + "]"}) {
    for (const std::string& before : {std::string(), user + ", "}) {
      const text_feedback f =
          read("{\"prompt\": " + prompt + ", \"chosen\": [" + before + liked +
               "], \"rejected\": [" + before + disliked + "]}\n{\"prompt\": " + prompt +
               ", \"chosen\": \"good\", \"rejected\": [" + disliked + "]}");
      REQUIRE(f.duels.size() == 2);
      for (const text_duel& d : f.duels) {
        CHECK(d.prompt == hi);
        CHECK(d.chosen == "good");
        CHECK(d.rejected == "bad");
      }
      CHECK(f.duels[1].line == 2);
    }
    const text_feedback f =
        read("{\"prompt\": " + prompt + ", \"completion\": [" + liked + "], \"label\": 1}");
    CHECK(f.rows.at(0).prompt == hi);
    CHECK(f.rows.at(0).completion == "good");
  }
  const text_feedback f = read("{\"chosen\": [" + user + ", " + liked + "], \"rejected\": [" +
                               user + ", " + disliked + "]}");
  CHECK(f.duels.at(0).prompt == hi);
  CHECK(f.duels.at(0).chosen == "good");
  CHECK(f.quotable);
}

TEST_CASE("transcripts are split into turns, and the last of the assistant is the answer") {
  const std::string before = transcript("one?", " no. \\n\\nHuman: two?");
  const text_feedback f =
      read(choice(before + "\\n\\nAssistant: Yes", before + "\\n\\nAssistant: Never!"));
  REQUIRE(f.duels.size() == 1);
  CHECK(f.duels[0].prompt ==
        conversation{{"user", "one?"}, {"assistant", "no."}, {"user", "two?"}});
  CHECK(f.duels[0].chosen == "Yes");
  CHECK(f.duels[0].rejected == "Never!");
  CHECK_FALSE(f.quotable);
  CHECK(f.vocabulary_limit == 3000);
  const text_feedback g =
      read(choice("Rules." + transcript("q", " a"), "Rules." + transcript("q", " b")));
  CHECK(g.duels.at(0).prompt == conversation{{"system", "Rules."}, {"user", "q"}});
}

TEST_CASE("rows that teach nothing are left out, counted and named") {
  const std::string fine = choice(transcript("q", " a"), transcript("q", " b"));
  std::string file = fine + choice(transcript("q", " a"), transcript("other", " b")) +
                     choice(transcript("q", ""), transcript("q", " b")) +
                     choice(transcript("q", " b"), transcript("q", " ")) + fine;
  for (int i = 0; i < 13; ++i) file += choice(transcript("q", " a"), transcript("q", " a"));
  const text_feedback f = read(file);
  CHECK(f.duels.size() == 2);
  REQUIRE(f.notes.size() == 3);
  CHECK(f.notes[0] ==
        "Left out 1 rows whose two conversations differ before the last turn: line 2.");
  CHECK(f.notes[1] == "Left out 2 rows with an empty completion: lines 3, 4.");
  CHECK(f.notes[2] ==
        "Left out 13 rows whose chosen and rejected completion are the same: lines 6, 7, 8, 9, 10, "
        "11, 12, 13, 14, 15 and 3 more.");
}

TEST_CASE("a malformed line is named by its number") {
  const std::string fine = thumb("true");
  const auto third = [&](const std::string& line) { return complaint_about(fine + "\n" + line); };
  CHECK(third("{\"prompt\": ") == "mine.jsonl, line 3: not valid JSON at column 12");
  CHECK(contains(third("{\"prompt\": \"\xff\"}"), "mine.jsonl, line 3: not valid JSON"));
  CHECK(contains(third(fine.substr(0, fine.size() - 1) + "}"), "line 3: not valid JSON"));
  CHECK(contains(third(std::string("{\"prompt\0\": 1}", 14)), "line 3: not valid JSON"));
  CHECK(third("{\"prompt\": 1e999}") == "mine.jsonl, line 3: a number is out of range");
  CHECK(third("[1, 2]") == "mine.jsonl, line 3: a JSON object is expected");
  CHECK(third("{\"prompt\": \"p\", \"label\": true}") ==
        "mine.jsonl, line 3: the key \"completion\" is missing");
  CHECK(third("{\"prompt\": 1, \"completion\": \"c\", \"label\": true}") ==
        "mine.jsonl, line 3: \"prompt\" must be a text or a list of messages");
  CHECK(third("{\"prompt\": \"p\", \"completion\": {}, \"label\": true}") ==
        "mine.jsonl, line 3: \"completion\" must be a text or a list of messages");
  CHECK(third("{\"prompt\": \"p\", \"label\": true, \"completion\": \"c\", \"label\": false}") ==
        "mine.jsonl, line 3: a key comes twice: \"label\"");
  CHECK(third("{\"prompt\": \"p\", \"chosen\": \"c\", \"rejected\": \"r\"}") ==
        "mine.jsonl, line 3: this line holds prompt, chosen, rejected, but those before it prompt, "
        "completion, label: a file has lines of one kind");
  CHECK(contains(complaint_about("{\"text\": \"x\"}"), "line 1: the keys must be prompt"));
  CHECK(complaint_about(choice("hello", "world")) ==
        "mine.jsonl, line 1: \"chosen\" has no assistant turn");
  CHECK(complaint_about("{\"chosen\": 1, \"rejected\": 2}") ==
        "mine.jsonl, line 1: \"chosen\" must be a transcript or a list of messages");
  CHECK(complaint_about(" \n\n") == "mine.jsonl is empty");
}

TEST_CASE("a malformed conversation is named by its line and key") {
  const auto rated = [](const std::string& list) {
    return complaint_about("{\"messages\": " + list + ", \"label\": true}");
  };
  const std::string where = "mine.jsonl, line 1: ";
  CHECK(rated("\"hello\"") == where + "\"messages\" must be a list of messages");
  CHECK(rated("[]") == where + "\"messages\" must end with a message of the assistant");
  CHECK(rated("[" + said("user", "x") + "]") ==
        where + "\"messages\" must end with a message of the assistant");
  CHECK(contains(rated("[\"x\"]"), where + "every message of \"messages\" must have a \"role\""));
  CHECK(contains(rated("[{\"role\": \"user\"}]"), "every message of \"messages\""));
  CHECK(contains(rated("[{\"role\": 1, \"content\": \"x\"}]"), "every message of \"messages\""));
  CHECK(rated("[" + said("tool", "x") + "]") ==
        where + "a role must be system, user or assistant, not \"tool\"");
}

TEST_CASE("values may be as long and as deep as they like without harm") {
  const std::string deep(1000000, '[');
  CHECK(contains(complaint_about("{\"prompt\": " + deep), "lie deeper in each other than 32"));
  CHECK(contains(complaint_about(deep + std::string(1000000, ']')), "lie deeper"));
  CHECK(read("\xef\xbb\xbf" + thumb("1")).rows.size() == 1);  // a byte order mark
  const text_feedback f =
      read("{\"prompt\": \"a\\u0000b\", \"completion\": \"" + std::string(1000000, 'x') +
           "\", \"label\": 1, \"more\": {\"label\": [[0]], \"x\": {\"label\": 0}}}");
  CHECK(f.rows.at(0).prompt.at(0).content == std::string("a\0b", 3));
  CHECK(f.rows.at(0).completion.size() == 1000000);
}
