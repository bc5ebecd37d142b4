// What the doctor finds in feedback that is made to have it, and that it finds nothing elsewhere.
#include "doctor.hpp"

#include <algorithm>
#include <sstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "data/grammar.hpp"
#include "scratch.hpp"

using namespace align;

namespace {

constexpr token end_token = vocabulary::end;

/// A patient: `rows` train rows of as many prompts, thumbs in turn, and the same again held out.
struct patient {
  dataset data;
  loss_choice choice;
  schedule plan{.batch = 8, .seed = 1};

  explicit patient(int rows = 200) {
    data.text.end = end_token;
    for (split* part : {&data.train, &data.held_out}) {
      for (int i = 0; i < rows; ++i) {
        const auto own = static_cast<token>(10 + i + (part == &data.train ? 0 : 1000));
        part->rows.push_back({{1, own, 2},
                              {own, end_token},
                              i % 2 == 0,
                              static_cast<std::size_t>(i + (part == &data.train ? 1 : 1001))});
      }
    }
  }

  std::vector<finding> examined() const {
    const bool paired = !data.train.duels.empty();
    const feedback train{paired ? split_duels(data.train.duels) : data.train.rows, paired};
    return examine(data, train, preference_objective(choice), choice, plan);
  }

  /// The one sentence with this part, and whether it is a problem; "" where there is none.
  finding about(std::string_view part) const {
    for (const finding& f : examined()) {
      if (contains(f.sentence, part)) return f;
    }
    return {severity::fact, ""};
  }

  std::size_t problems() const {
    const auto found = examined();
    return static_cast<std::size_t>(std::ranges::count(found, severity::problem, &finding::kind));
  }
};

}  // namespace

TEST_CASE("healthy feedback has no problem") {
  const patient well;
  CHECK(well.problems() == 0);
  CHECK(
      contains(well.about("train part").sentence, "200 rows, 100 desirable and 100 undesirable."));
  const finding lengths = well.about("Tokens of the completions");
  CHECK(contains(lengths.sentence, "desirable ones mean 2.0, median 2.0, longest 2; undesirable"));

  const dataset synthetic = synthetic_feedback(false);
  const loss_choice kto;
  const auto found = examine(synthetic, {synthetic.train.rows, false}, preference_objective(kto),
                             kto, {.batch = 32, .seed = 1});
  CHECK(std::ranges::count(found, severity::problem, &finding::kind) == 0);
}

TEST_CASE("one class alone, and too few held-out rows, are problems") {
  patient ill;
  for (row& r : ill.data.train.rows) r.desirable = true;
  CHECK(ill.about("The train part").kind == severity::problem);
  CHECK(contains(ill.about("The train part").sentence, "nothing can be told from one class"));
  CHECK(ill.about("The held-out part").kind == severity::fact);
  patient small;
  small.data.held_out.rows.resize(20);
  CHECK(small.about("standard error").kind == severity::problem);
}

TEST_CASE("a class that is drowned is a problem, unless its weight makes up for it") {
  patient ill;
  for (std::size_t i = 0; i < 90; ++i) ill.data.train.rows[2 * i].desirable = false;
  const finding drowned = ill.about("weigh");
  CHECK(drowned.kind == severity::problem);
  CHECK(contains(drowned.sentence, "weigh 0.05 times"));
  CHECK(contains(drowned.sentence, "taken: 25.3333 : 1."));
  ill.choice.parameters = {{"desirable_weight", 25}};
  CHECK(ill.about("weigh").kind == severity::fact);
  ill.choice = {.loss = "simple_kto"};  // takes as many of each
  CHECK(ill.about("weigh").sentence.empty());
}

TEST_CASE("an answer that wins by its length is a problem, of thumbs and of pairs") {
  patient ill;
  for (row& r : ill.data.train.rows) {
    if (!r.desirable) r.completion.insert(r.completion.begin(), 5, 7);
  }
  CHECK(ill.about("shorter answer is better").kind == severity::problem);
  CHECK(contains(ill.about("shorter").sentence, "ranks 100 % of the train part's answers"));

  patient pairs;
  pairs.choice.loss = "dpo";
  pairs.data.train.rows.clear();
  for (token i = 0; i < 100; ++i) {
    const std::vector<token> three{10, i, end_token}, four{10, 11, i, end_token};
    const bool longer_wins = i < 70;
    pairs.data.train.duels.push_back({.prompt = {1, i, 2},
                                      .chosen = longer_wins ? four : three,
                                      .rejected = longer_wins ? three : four});
  }
  const finding longer = pairs.about("longer answer is better");
  CHECK(longer.kind == severity::problem);
  CHECK(contains(longer.sentence, "ranks 70 % of the train pairs right"));
  CHECK(contains(pairs.about("train part").sentence, "has 100 pairs."));
}

TEST_CASE("rows without a scored token or without an end are named") {
  patient ill;
  ill.data.train.rows[4].completion.clear();
  ill.data.train.rows[6].completion.pop_back();
  CHECK(ill.about("without any scored token").sentence ==
        "1 row without any scored token (line 5).");
  CHECK(ill.about("without any scored token").kind == severity::problem);
  CHECK(contains(ill.about("teach no end").sentence, "1 of 200 train completions teach no end"));
  CHECK(contains(ill.about("teach no end").sentence, "(line 7)"));
}

TEST_CASE("copies are counted, and contradictions among them are named") {
  patient twins;
  auto& rows = twins.data.train.rows;
  for (std::size_t i = 0; i < 3; ++i) rows.push_back(rows[i]);
  CHECK(twins.about("say again").kind == severity::fact);
  CHECK(twins.about("say again").sentence ==
        "3 rows of 403 say again what another says, prompt and answer, all with the same label.");

  for (std::size_t i = 0; i < 3; ++i) {
    rows[200 + i].desirable = !rows[i].desirable;
    rows[200 + i].line = 201 + i;
  }
  const finding few = twins.about("say again");
  CHECK(few.kind == severity::fact);
  CHECK(contains(few.sentence,
                 "of the pairs of such copies 3 of 3 have opposite labels (lines 1, "
                 "2, 3, 201, 202, 203)."));

  // A tenth of the labels turned: 2 * 0.1 * 0.9 of the pairs contradict.
  patient noisy;
  for (std::size_t i = 0; i < 100; ++i) {
    row copy = noisy.data.train.rows[i];
    if (i < 18) copy.desirable = !copy.desirable;
    noisy.data.train.rows.push_back(copy);
  }
  CHECK(noisy.about("say again").kind == severity::problem);
  CHECK(contains(noisy.about("say again").sentence, "as if 10 % of all labels were wrong"));
}

TEST_CASE("pairs contradict each other when both were chosen") {
  patient pairs;
  pairs.choice.loss = "dpo";
  pairs.data.train.rows.clear();
  const auto add = [&](token a, token b, std::size_t line) {
    pairs.data.train.duels.push_back(
        {.prompt = {1, 2}, .chosen = {a, end_token}, .rejected = {b, end_token}, .line = line});
  };
  for (token i = 0; i < 20; ++i) add(10 + i, 100 + i, static_cast<std::size_t>(i + 1));
  add(100, 10, 21);
  add(11, 101, 22);
  const finding found = pairs.about("say again");
  CHECK(contains(found.sentence, "2 pairs of 22 say again"));
  CHECK(contains(found.sentence, "1 of 2 have opposite labels (lines 1, 21)"));
}

TEST_CASE("a mismatched answer to the same prompt is no mismatch") {
  patient ill;
  for (row& r : ill.data.train.rows) r.prompt = {1, 9, 2};
  const finding same = ill.about("answers the row's own prompt");
  CHECK(same.kind == severity::problem);
  CHECK(contains(same.sentence, "of 200 of 200 rows in the first epoch"));
  ill.choice.reference_point = "zero";  // asks for none
  CHECK(ill.about("own prompt").sentence.empty());

  patient alone;
  alone.plan.batch = 1;
  CHECK(alone.about("take a larger --batch").kind == severity::problem);
}

TEST_CASE("what cannot fill a batch is said and not thrown") {
  patient empty(0);
  CHECK(empty.about("No batch can be made").kind == severity::problem);
}

TEST_CASE("problems are printed first and counted") {
  std::ostringstream out;
  CHECK_FALSE(
      print(out, std::vector<finding>{{severity::fact, "A fact."}, {severity::problem, "Bad."}}));
  CHECK(out.str() == "!! Bad.\n - A fact.\n!! 1 problem.\n");
  out.str("");
  CHECK(print(out, std::vector<finding>{{severity::fact, "A fact."}}));
  CHECK(contains(out.str(), "ok Nothing is wrong"));
}
