// Cutting texts into words, and the regexes that do it.
#include "text/pre_tokeniser.hpp"

#include "../scratch.hpp"
#include "catch.hpp"
#include "text/regex_dialect.hpp"

using namespace align;

namespace {

std::string cut_by(std::string_view name, std::string_view text) {
  std::string joined;
  for (const std::string_view piece : pre_tokeniser(regexes_named(name)).split(text))
    joined += (joined.empty() ? "" : "|") + std::string(piece);
  return joined;
}

std::string regex_refusal(std::string_view regex) {
  return complaint([&] { pre_tokeniser(std::vector<std::string>{std::string(regex)}); });
}

}  // namespace

TEST_CASE("each cut is that of its models") {
  constexpr std::string_view text = "It's 1234  LET'S\n\n go!\n";
  CHECK(cut_by("gpt-2", text) == "It|'s| 1234| | LET|'|S|\n\n| go|!|\n");
  CHECK(cut_by("smollm", text) == "It|'s| |1|2|3|4| | LET|'|S|\n\n| go|!|\n");
  CHECK(cut_by("llama-bpe", text) == "It|'s| |123|4| | LET|'S|\n\n| go|!\n");
  CHECK(cut_by("qwen2", text) == "It|'s| |1|2|3|4| | LET|'S|\n\n| go|!\n");
  CHECK(cut_by("gpt2", text) == cut_by("gpt-2", text));
  CHECK(cut_by("default", text) == cut_by("gpt-2", text));
  CHECK(cut_by("llama3", text) == cut_by("llama-bpe", text));
  CHECK(cut_by("llama-v3", text) == cut_by("llama-bpe", text));
  CHECK(cut_by("gpt-2", "").empty());
}

TEST_CASE("white space is Unicode's and no more") {
  CHECK(cut_by("gpt-2", "a\u3000b") == "a|\u3000|b");
  CHECK(cut_by("gpt-2", "a\u0085\u2028b") == "a|\u0085|\u2028|b");
  CHECK(cut_by("gpt-2", "!\u180e!") == "!\u180e!");  // not since Unicode 6.3
  CHECK(cut_by("gpt-2", "!\u200b!") == "!\u200b!");
}

TEST_CASE("a long run is one piece, whichever rule takes it") {
  for (const std::string unit : {"a", "=", " ", "\n", "7", "日", "a\u0301", "😀"}) {
    std::string text;
    while (text.size() < 1'000'000) text += unit;
    for (const std::string_view name : {"gpt-2", "llama-bpe"}) {
      std::size_t size = 0;
      for (const std::string_view piece : pre_tokeniser(regexes_named(name)).split(text))
        size += piece.size();
      CHECK(size == text.size());
    }
  }
}

TEST_CASE("what lies between matches is a piece, and later regexes cut finer") {
  const auto split = [](std::vector<std::string> regexes, std::string_view text) {
    std::string joined;
    for (const std::string_view piece : pre_tokeniser(regexes).split(text))
      joined += (joined.empty() ? "" : "|") + std::string(piece);
    return joined;
  };
  CHECK(split({}, "a1 b") == "a1 b");
  CHECK(split({"[0-9]"}, "ab12c") == "ab|1|2|c");
  CHECK(split({"[0-9]+", "b"}, "abc12") == "a|b|c|12");
  CHECK(split({"x*"}, "axxb") == "a|xx|b");  // a match of nothing is none
  CHECK(split({"b(?!c)"}, "bc") == "bc");
  CHECK(split({"c", "b(?!c)"}, "bc") == "b|c");  // who looks ahead sees its own piece only
}

TEST_CASE("a name that is not known is refused with those that are") {
  const std::string said = complaint([] { regexes_named("falcon"); });
  CHECK(contains(said, "\"falcon\" is not known"));
  CHECK(contains(said, "smollm, gpt-2, gpt2, default, llama-bpe, llama3, llama-v3, qwen2"));
}

TEST_CASE("regexes find their name again") {
  for (const std::string name : {"smollm", "gpt-2", "llama-bpe", "qwen2"})
    CHECK(name_of_regexes(regexes_named(name)) == name);
  CHECK(contains(complaint([] { name_of_regexes({}); }), "no name"));
}

TEST_CASE("a regex is rewritten where PCRE2 means something else") {
  CHECK(to_pcre2(R"(\d\D)") == R"(\p{Nd}\P{Nd})");
  CHECK(to_pcre2(R"(\u4e00\v\.)") == R"(\x{4e00}\x{b}\.)");
  CHECK(contains(to_pcre2(R"(\s)"), R"([\x{9}-\x{d}\x{20})"));
  CHECK(contains(to_pcre2(R"(\S)"), R"([^\x{9}-\x{d}\x{20})"));
  CHECK(contains(to_pcre2(R"([^\s\p{L}])"), R"([^\x{9}-\x{d})"));
  CHECK(to_pcre2(R"((?i:a)(?!b)[a-z]{1,3}?)") == R"((?i:a)(?!b)[a-z]{1,3}?)");
}

TEST_CASE("a regex that has no equal is refused by what it has") {
  CHECK(contains(regex_refusal(R"(\w+)"), R"(the escape \w)"));
  CHECK(contains(regex_refusal(R"(\bx)"), R"(the escape \b)"));
  CHECK(contains(regex_refusal(R"([a\S])"), "a negated class"));
  CHECK(contains(regex_refusal("[a[b]]"), "a class inside a class"));
  CHECK(contains(regex_refusal("[a&&b]"), "&&"));
  CHECK(contains(regex_refusal("[a"), "does not end"));
  CHECK(contains(regex_refusal("[]a]"), "starts with ]"));
  CHECK(contains(regex_refusal("^a"), "an anchor"));
  CHECK(contains(regex_refusal("(?<name>a)"), "a group of the kind (?<"));
  CHECK(contains(regex_refusal("(*FAIL)"), "a group of the kind (*F"));
  CHECK(contains(regex_refusal("a{,3}"), "least number"));
  CHECK(contains(regex_refusal(R"(\pL)"), "without braces"));
  CHECK(contains(regex_refusal(R"(\u12)"), "four hexadecimal digits"));
  CHECK(contains(regex_refusal("a\\"), "a lone \\"));
  CHECK(contains(regex_refusal("(a"), "cannot be compiled"));
  CHECK(contains(regex_refusal(R"(\p{Nonsense})"), "cannot be compiled"));
  CHECK(contains(regex_refusal("\xff"), "not UTF-8"));
}
