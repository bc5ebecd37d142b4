// A command that can be pasted.
#include "command.hpp"

#include "catch.hpp"

using namespace align;

TEST_CASE("a word is quoted where a shell would read it as something else") {
  CHECK(shell_word("--beta=0.5") == "--beta=0.5");
  CHECK(shell_word("/data/mine.jsonl") == "/data/mine.jsonl");
  CHECK(shell_word("a b") == "'a b'");
  CHECK(shell_word("it's") == R"('it'\''s')");
  CHECK(shell_word("") == "''");
  for (const char* word : {"$HOME", "*", "a;b", "~", "a\nb", "\"", "\\", "(", "#", "&", "|", "<"}) {
    CHECK(shell_word(word).front() == '\'');
  }
}

TEST_CASE("the command is what was typed, or else the words of the program") {
  const char* const words[] = {"build/align", "--data", "a b"};
  CHECK(command_line(words, nullptr) == "build/align --data 'a b'");
  CHECK(command_line(words, "") == "build/align --data 'a b'");
  CHECK(command_line(words, "examples/run --data a\\ b") == "examples/run --data a\\ b");
}
