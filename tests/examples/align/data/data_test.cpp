// Loading, splitting, dropping, pairing.
#include "data/data.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <string>

#include "../scratch.hpp"
#include "catch.hpp"
#include "data/grammar.hpp"
#include "data/retold.hpp"

using namespace align;

namespace {

// Row i says "answer <word> <word>", words of its own, to one of three questions.
std::string own_word(int i) {
  return {'w', static_cast<char>('a' + i / 26), static_cast<char>('a' + i % 26)};
}

std::string thumbs_file(int rows, int ups) {
  std::string out;
  for (int i = 0; i < rows; ++i) {
    out += "{\"prompt\": \"question " + own_word(i % 3) + "\", \"completion\": \"answer " +
           own_word(i) + "\", \"label\": " + (i < ups ? "true" : "false") + "}\n";
  }
  return out;
}

std::string choices_file(int rows) {
  std::string out;
  for (int i = 0; i < rows; ++i) {
    out += "{\"prompt\": \"question\", \"chosen\": \"good " + own_word(i) +
           "\", \"rejected\": \"bad " + own_word(i) + "\"}\n";
  }
  return out;
}

using row_set = std::multiset<std::vector<token>>;

row_set completions(const std::vector<row>& rows) {
  row_set out;
  for (const row& r : rows) out.insert(r.completion);
  return out;
}

bool same(const std::vector<row>& a, const std::vector<row>& b) {
  return std::ranges::equal(a, b, [](const row& x, const row& y) {
    return x.prompt == y.prompt && x.completion == y.completion && x.desirable == y.desirable;
  });
}

feedback_request from(const std::filesystem::path& path) { return {.path = path.string()}; }

}  // namespace

TEST_CASE("the split is disjoint, four to one, and the same for every seed") {
  const scratch here;
  const auto path = here.write("mine.jsonl", thumbs_file(100, 50));
  feedback_request request = from(path);
  const dataset first = load(request);
  request.seed = 99;
  const dataset second = load(request);

  CHECK(first.train.rows.size() == 80);
  CHECK(first.held_out.rows.size() == 20);
  CHECK(first.train.duels.empty());
  CHECK_FALSE(first.paired);
  CHECK(same(first.train.rows, second.train.rows));
  CHECK(same(first.held_out.rows, second.held_out.rows));
  CHECK(first.text.vocabulary == second.text.vocabulary);
  CHECK(same(first.corpus, first.train.rows));
  // Every completion holds a word of its own, so one that the train part has is in the vocabulary
  // and one of the held-out part is not.
  for (const row& r : first.train.rows) {
    REQUIRE(std::ranges::count(r.completion, vocabulary::unknown) == 0);
  }
  for (const row& r : first.held_out.rows) {
    const auto unknown = std::ranges::count(r.completion, vocabulary::unknown);
    const bool question_word = r.completion[1] != vocabulary::unknown;
    REQUIRE((unknown == 1 || question_word));
  }
  CHECK(completions(first.train.rows).size() == 80);
  // Pinned: published figures are about these held-out rows.
  CHECK(first.text.decode(first.train.rows.front().completion) == "answer wdj");
}

TEST_CASE("long prompts keep their end and the begin token, long completions their beginning") {
  std::string prompt, completion;
  for (int i = 0; i < 100; ++i) {
    prompt += own_word(i) + " ";
    completion += own_word(i) + " ";
  }
  std::string file;
  for (int i = 0; i < 40; ++i) {
    file += "{\"prompt\": \"" + prompt + "\", \"completion\": \"" + completion + own_word(i) +
            "\", \"label\": " + (i < 20 ? "true" : "false") + "}\n";
  }
  file += "{\"prompt\": \"short\", \"completion\": \"answer\", \"label\": true}\n";
  const scratch here;
  feedback_request request = from(here.write("mine.jsonl", file));
  const dataset data = load(request);
  const row& r = data.train.rows.front();
  REQUIRE(r.prompt.size() == 40);
  REQUIRE(r.completion.size() == 56);
  CHECK(r.prompt.front() == vocabulary::begin);
  CHECK(r.prompt.back() == vocabulary::separator);
  CHECK(data.text.decode(std::vector{r.prompt[38]}) == own_word(99));
  CHECK(data.text.decode(std::vector{r.prompt[1]}) == own_word(62));
  CHECK(data.text.decode(std::vector{r.completion.front()}) == own_word(0));
  CHECK(data.text.decode(std::vector{r.completion.back()}) == own_word(55));
  CHECK(contains(data.notes.front(),
                 "Cut 40 of 41 prompts to the last 40 tokens and 40 of 41 completions to the first "
                 "56, which then have no end."));

  // Whole texts are not cut: begin, 100 words, separator; 101 words and the end.
  request.max_prompt = request.max_completion = 102;
  const dataset whole = load(request);
  CHECK(whole.train.rows.front().prompt.size() == 102);
  CHECK(whole.train.rows.front().completion.size() == 102);
  CHECK(whole.train.rows.front().completion.back() == vocabulary::end);
  REQUIRE(whole.notes.size() == 1);  // of the split: all but one row have one prompt
  CHECK(contains(whole.notes[0], "held-out rows are so common that train rows have them too"));
  request.max_completion = 101;
  CHECK(contains(load(request).notes.front(), "Cut 0 of 41 prompts to the last 102 tokens and 40"));
  request.max_prompt = 1;
  CHECK(contains(complaint([&] { load(request); }), "max_prompt must be at least 2"));
}

TEST_CASE("no text of the held-out part is in the train part") {
  // 24 texts ten times each with thumbs drawn by a coin: what was torn apart by a split would be
  // known by heart, and rank the held-out rows far better than the coin can.
  std::string one_prompt, own_prompts;
  for (int i = 0; i < 240; ++i) {
    const std::string rest = ", \"completion\": \"text " + own_word(i % 24) +
                             (i % 2 == 0 ? "\"" : " \"") +
                             ", \"label\": " + (i * 7 % 5 < 2 ? "true" : "false") + "}\n";
    one_prompt += "{\"prompt\": \"Write.\"" + rest;
    own_prompts += "{\"prompt\": \"" + own_word(i) + "\"" + rest;
  }
  const scratch here;
  for (const std::string& file : {one_prompt, own_prompts}) {
    const dataset data = load(from(here.write("mine.jsonl", file)));
    CHECK(data.train.rows.size() + data.held_out.rows.size() == 240);
    CHECK(data.held_out.rows.size() == 40);  // four of the texts; five would be more than a fifth
    // A word that the train part lacks is unknown, in the held-out part only.
    for (const row& r : data.train.rows) {
      REQUIRE(std::ranges::count(r.completion, vocabulary::unknown) == 0);
    }
    for (const row& r : data.held_out.rows) {
      REQUIRE(std::ranges::count(r.completion, vocabulary::unknown) == 1);
    }
  }
}

TEST_CASE("a codec of a model replaces the words, and the held-out part may be limited") {
  const scratch here;
  feedback_request request = from(here.write("mine.jsonl", thumbs_file(100, 50)));
  codec bytes;  // a token for each byte; no begin token
  bytes.vocabulary = 257;
  bytes.end = 256;
  const auto tokens = [](std::string_view text) {
    std::vector<token> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  };
  bytes.completion = tokens;
  bytes.prompt = [tokens](std::span<const message> messages) {
    return messages.empty() ? std::vector<token>{} : tokens(messages.back().content);
  };
  bytes.decode = [](std::span<const token> ids) { return std::string(ids.begin(), ids.end()); };
  request.text = bytes;
  request.held_out_rows = 12;
  request.max_prompt = 3;
  const dataset data = load(request);
  CHECK(data.text.vocabulary == 257);
  CHECK(data.held_out.rows.size() == 12);
  const row& r = data.train.rows.front();
  CHECK(data.text.decode(std::span(r.completion).first(10)) == "answer wdj");
  CHECK(r.completion.back() == 256);
  CHECK(r.prompt.size() == 3);
  CHECK(r.prompt.front() == 'w');  // "question waa": there is no begin token to keep
  CHECK(r.line > 0);
  CHECK(contains(data.notes.front(), "Cut 100 of 100 prompts"));
  CHECK(contains(data.notes.back(), "Measured on 12 of 20 held-out"));

  // What is said after nothing follows the end of another text.
  request = from(here.write("none.jsonl",
                            "{\"prompt\": \"\", \"completion\": \"a\", "
                            "\"label\": 1}\n" +
                                thumbs_file(40, 20)));
  request.text = bytes;
  const dataset some = load(request);
  for (const auto* part : {&some.train.rows, &some.held_out.rows}) {
    for (const row& one : *part) REQUIRE_FALSE(one.prompt.empty());
  }
}

TEST_CASE("the synthetic source is retold to a codec, and its true reward with it") {
  const bool pairs = GENERATE(false, true);
  // A token for each byte; what stands before an answer is one more.
  const auto bytes_of = [](std::string_view text) {
    std::vector<token> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
    return ids;
  };
  const codec bytes{.vocabulary = 258,
                    .begin = 256,
                    .end = 257,
                    .prompt =
                        [&](std::span<const message> said) {
                          std::vector<token> ids = bytes_of(said.front().content);
                          ids.insert(ids.begin(), 256);
                          return ids;
                        },
                    .completion = bytes_of,
                    .decode =
                        [](std::span<const token> ids) {
                          std::string text;
                          for (const token t : ids) {
                            if (t < 256) text += static_cast<char>(t);
                          }
                          return text;
                        }};
  const dataset told = synthetic_feedback(pairs, {.train = 20, .held_out = 10});
  const dataset made = retold(told, bytes);
  CHECK(made.paired == pairs);
  REQUIRE(made.corpus.size() == told.corpus.size());
  REQUIRE(made.train.rows.size() == told.train.rows.size());
  REQUIRE(made.held_out.duels.size() == told.held_out.duels.size());
  for (std::size_t i = 0; i < told.corpus.size(); ++i) {
    const row &was = told.corpus[i], &is = made.corpus[i];
    CHECK(is.prompt.front() == 256);
    CHECK(is.completion.back() == 257);
    CHECK(contains(bytes.decode(is.prompt), told.text.decode(was.prompt)));
    CHECK(bytes.decode(is.completion) == told.text.decode(was.completion));
    CHECK(is.desirable == was.desirable);
    CHECK(made.true_reward(is.prompt, is.completion) ==
          told.true_reward(was.prompt, was.completion));
  }

  feedback_request request{.want_pairs = pairs, .text = bytes};
  CHECK(load(request).text.vocabulary == 258);
}

TEST_CASE("what has no token or no difference left is left out by name") {
  const scratch here;
  std::string file = choices_file(20);
  file += "{\"prompt\": \"question\", \"chosen\": \"***\", \"rejected\": \"bad\"}\n";
  file += "{\"prompt\": \"question\", \"chosen\": \"Yes\", \"rejected\": \"YES\"}\n";
  const dataset data = load(from(here.write("mine.jsonl", file)));
  CHECK(data.train.duels.size() + data.held_out.duels.size() == 20);
  CHECK(data.notes[0] == "Left out 1 rows with a completion that has no token: line 21.");
  CHECK(data.notes[1] == "Left out 1 pairs whose two completions are the same tokens: line 22.");
}

TEST_CASE("pairs load as pairs and become rows, all chosen ones first") {
  const scratch here;
  const dataset data = load(from(here.write("mine.jsonl", choices_file(50))));
  CHECK(data.paired);
  CHECK(data.train.rows.empty());
  CHECK(data.train.duels.size() == 40);
  CHECK(data.held_out.duels.size() == 10);
  CHECK(contains(data.notes.back(), "each pair was split"));

  const std::vector<row> rows = split_duels(data.train.duels);
  REQUIRE(rows.size() == 80);
  CHECK(same(rows, data.corpus));
  for (std::size_t i = 0; i < 40; ++i) {
    CHECK(rows[i].desirable);
    CHECK_FALSE(rows[40 + i].desirable);
    CHECK(rows[i].completion == data.train.duels[i].chosen);
    CHECK(rows[40 + i].completion == data.train.duels[i].rejected);
  }
}

TEST_CASE("turning round changes a share of the train thumbs or choices and nothing else") {
  const bool pairs = GENERATE(false, true);
  feedback_request request{.want_pairs = pairs};
  const dataset meant = load(request);
  request.flip = 0.25;
  const dataset noisy = load(request);
  std::size_t turned = 0;
  if (pairs) {
    for (std::size_t i = 0; i < meant.train.duels.size(); ++i) {
      const duel &was = meant.train.duels[i], &is = noisy.train.duels[i];
      REQUIRE(is.prompt == was.prompt);
      const bool swapped = is.chosen == was.rejected && is.rejected == was.chosen;
      REQUIRE((swapped || (is.chosen == was.chosen && is.rejected == was.rejected)));
      turned += swapped ? 1 : 0;
    }
    CHECK(4 * turned == meant.train.duels.size());
    CHECK(noisy.held_out.duels[0].chosen == meant.held_out.duels[0].chosen);
  } else {
    for (std::size_t i = 0; i < meant.train.rows.size(); ++i) {
      REQUIRE(noisy.train.rows[i].completion == meant.train.rows[i].completion);
      turned += noisy.train.rows[i].desirable != meant.train.rows[i].desirable ? 1 : 0;
    }
    CHECK(4 * turned == meant.train.rows.size());
    CHECK(std::ranges::equal(noisy.held_out.rows, meant.held_out.rows, {}, &row::desirable,
                             &row::desirable));
  }
  request.flip = 1.5;
  CHECK(contains(complaint([&] { load(request); }), "flip must be from 0 to 1"));
}

TEST_CASE("dropping takes a share of the desirable train rows and nothing else") {
  const scratch here;
  feedback_request request = from(here.write("mine.jsonl", thumbs_file(200, 100)));
  const dataset all = load(request);
  request.drop_desirable = 0.9;
  const dataset some = load(request);
  const dataset again = load(request);
  request.seed = 2;
  const dataset other = load(request);

  const auto ups = std::ranges::count_if(all.train.rows, &row::desirable);
  const auto left = std::ranges::count_if(some.train.rows, &row::desirable);
  CHECK(left == ups - static_cast<std::ptrdiff_t>(std::llround(0.9 * static_cast<double>(ups))));
  CHECK(some.train.rows.size() == all.train.rows.size() - static_cast<std::size_t>(ups - left));
  CHECK(same(some.held_out.rows, all.held_out.rows));
  CHECK(same(some.corpus, all.train.rows));
  CHECK(same(some.train.rows, again.train.rows));
  CHECK_FALSE(same(some.train.rows, other.train.rows));
  CHECK(contains(some.notes.back(),
                 "Dropped " + std::to_string(ups - left) + " of " + std::to_string(ups)));
}

TEST_CASE("what leaves nothing to learn is refused in one sentence") {
  const scratch here;
  const auto path = here.write("mine.jsonl", thumbs_file(20, 10));
  feedback_request request = from(path);
  request.drop_desirable = 0.999;
  CHECK(contains(complaint([&] { load(request); }), "drop_desirable leaves no desirable row"));
  for (const double share : {1.0, -0.1, std::nan("")}) {
    request.drop_desirable = share;
    CHECK(contains(complaint([&] { load(request); }), "drop_desirable must be at least 0"));
  }
  request = from(here.write("up.jsonl", thumbs_file(20, 20)));
  CHECK(contains(complaint([&] { load(request); }), "no undesirable row"));
  request = from(here.write("down.jsonl", thumbs_file(20, 0)));
  CHECK(contains(complaint([&] { load(request); }), "no desirable row"));
  request = from(here.write("one.jsonl", choices_file(1)));
  CHECK(contains(complaint([&] { load(request); }), "one.jsonl holds too few different texts"));
  request = from(here.write("pairs.jsonl", choices_file(20)));
  request.drop_desirable = 0.5;
  CHECK(contains(complaint([&] { load(request); }), "drop_desirable needs thumbs"));
}

TEST_CASE("rows are paired by prompt, then by its first token, then somehow") {
  const token a = 10, b = 11, c = 12, d = 13;
  const std::vector<row> rows = {{{a, b}, {20}, true},  {{a, c}, {21}, true},
                                 {{d, d}, {22}, true},  {{b, b}, {30}, false},
                                 {{a, b}, {31}, false}, {{a, d}, {32}, false}};
  for (const std::uint64_t seed : {1u, 2u, 3u, 4u, 5u}) {
    std::vector<duel> duels = pair_rows(rows, seed);
    REQUIRE(duels.size() == 3);
    std::ranges::sort(duels, {}, &duel::chosen);
    CHECK(duels[0].rejected == std::vector<token>{31});
    CHECK_FALSE(duels[0].rejected_prompt.has_value());
    CHECK(duels[0].prompt_of_rejected() == std::vector<token>{a, b});
    CHECK(duels[1].rejected == std::vector<token>{32});
    CHECK(duels[1].prompt_of_rejected() == std::vector<token>{a, d});
    CHECK(duels[2].rejected == std::vector<token>{30});
    CHECK(duels[2].prompt == std::vector<token>{d, d});
    CHECK(duels[2].prompt_of_rejected() == std::vector<token>{b, b});
    CHECK(split_duels(duels).back().prompt == std::vector<token>{b, b});
  }
}

TEST_CASE("what all prompts start with does not make two of them alike") {
  const std::vector<row> rows = {{{1, 5, 10, 2}, {20}, true, 1},
                                 {{1, 5, 11, 2}, {21}, true, 2},
                                 {{1, 5, 11, 12, 2}, {30}, false, 3},
                                 {{1, 5, 10, 12, 2}, {31}, false, 4}};
  for (const std::uint64_t seed : {1u, 2u, 3u}) {
    std::vector<duel> duels = pair_rows(rows, seed);
    REQUIRE(duels.size() == 2);
    std::ranges::sort(duels, {}, &duel::chosen);
    CHECK(duels[0].rejected == std::vector<token>{31});
    CHECK(duels[0].line == 1);
    CHECK(duels[0].rejected_line == 4);
    CHECK(split_duels(duels).back().line == 3);
  }
}

TEST_CASE("pairing uses every row once, as far as the smaller class reaches") {
  const scratch here;
  feedback_request request = from(here.write("mine.jsonl", thumbs_file(100, 30)));
  request.want_pairs = true;
  const dataset data = load(request);
  CHECK_FALSE(data.paired);
  CHECK(contains(data.notes.back(), "The feedback is unpaired"));

  const auto ups = std::ranges::count_if(data.train.rows, &row::desirable);
  const std::vector<duel> duels = pair_rows(data.train.rows, 1);
  CHECK(duels.size() == static_cast<std::size_t>(ups));
  const std::vector<row> used = split_duels(duels);
  const row_set used_texts = completions(used), texts = completions(data.train.rows);
  CHECK(std::ranges::includes(texts, used_texts));
  for (const row& r : used) {
    const bool known = std::ranges::any_of(data.train.rows, [&](const row& original) {
      return original.completion == r.completion && original.prompt == r.prompt &&
             original.desirable == r.desirable;
    });
    REQUIRE(known);
  }
  CHECK(same(split_duels(pair_rows(data.train.rows, 1)), used));
  CHECK_FALSE(same(split_duels(pair_rows(data.train.rows, 2)), used));
}

TEST_CASE("the synthetic source comes in both forms and has a true reward") {
  const dataset thumbs = load({});
  CHECK_FALSE(thumbs.paired);
  CHECK(thumbs.true_reward);
  const dataset pairs = load({.want_pairs = true});
  CHECK(pairs.paired);
  CHECK(pairs.train.duels.size() == 1500);
  CHECK(pairs.held_out.duels.size() == 300);
  CHECK(pairs.true_reward);
}
