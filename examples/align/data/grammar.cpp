// See grammar.hpp. Three parts: the lexicon, the grammar that writes reviews, and the hidden taste.
//
// The taste is on purpose no bag of words: "not" and its kin turn what follows until the clause
// ends, "very" and its kin scale the next word, and some words please in one genre and annoy in
// another, which only the prompt reveals.
#include "data/grammar.hpp"

#include <array>
#include <cmath>
#include <iterator>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_set>
#include <utility>

#include "random_source.hpp"

namespace align {
namespace {

using word_list = std::span<const std::string_view>;

// ----------------------------------------------------------------------------------- lexicon ---

enum class genre : std::size_t { comedy, thriller, documentary, romance };
constexpr std::size_t genres = 4;

struct scored_word {
  std::string_view word;
  std::array<double, genres> score;

  constexpr scored_word(std::string_view w, double everywhere) : word(w) { score.fill(everywhere); }
  constexpr scored_word(std::string_view w, const std::array<double, genres>& by_genre)
      : word(w), score(by_genre) {}
};

using scored_list = std::span<const scored_word>;

struct noun {
  std::string_view word;
  genre kind;
};

struct degree {
  std::string_view word;
  double factor;
};

constexpr noun nouns[] = {{"comedy", genre::comedy},           {"farce", genre::comedy},
                          {"thriller", genre::thriller},       {"mystery", genre::thriller},
                          {"documentary", genre::documentary}, {"biography", genre::documentary},
                          {"romance", genre::romance},         {"melodrama", genre::romance}};

//                                     comedy thriller documentary romance
constexpr scored_word adjectives[] = {{"funny", {1.6, -0.9, -0.3, 0.6}},
                                      {"dark", {-0.9, 1.3, 0.3, -0.7}},
                                      {"slow", {-1.3, -1.4, 0.5, 0.4}},
                                      {"tense", {-0.8, 1.6, 0.3, -0.6}},
                                      {"sweet", {0.5, -1.1, -0.5, 1.4}},
                                      {"sober", {-1.0, 0.3, 1.2, -0.6}},
                                      {"silly", {0.9, -1.2, -1.4, -0.3}},
                                      {"brilliant", 1.6},
                                      {"charming", 1.1},
                                      {"moving", 1.1},
                                      {"clever", 1.0},
                                      {"fresh", 0.9},
                                      {"honest", 0.8},
                                      {"warm", 0.7},
                                      {"awful", -1.6},
                                      {"boring", -1.3},
                                      {"dull", -1.1},
                                      {"clumsy", -1.0},
                                      {"shallow", -0.9},
                                      {"stale", -0.8},
                                      {"lazy", -0.7}};

constexpr scored_word acts[] = {{"delights", 1.3}, {"shines", 1.2},    {"sparkles", 1.0},
                                {"works", 0.8},    {"fails", -1.3},    {"bores", -1.2},
                                {"drags", -1.0},   {"stumbles", -0.9}, {"rambles", -0.8}};

constexpr scored_word reactions[] = {{"love", 1.4},   {"enjoy", 1.1},   {"remember", 0.9},
                                     {"hate", -1.4},  {"regret", -1.2}, {"forget", -0.9},
                                     {"endure", -0.8}};

constexpr degree degrees[] = {{"very", 1.5}, {"truly", 1.4}, {"rather", 0.7}, {"slightly", 0.4}};

constexpr std::string_view negations[] = {"not", "never", "hardly"};
constexpr std::string_view clause_ends[] = {",", "but", "and", "."};
constexpr std::string_view determiners[] = {"the", "this", "that", "his", "her", "their", "our"};
constexpr std::string_view parts[] = {"plot",  "cast",     "script",    "ending", "story",
                                      "score", "dialogue", "direction", "hero",   "camera"};
constexpr std::string_view tails[] = {"at times", "in the end", "from start to finish",
                                      "all the way", "once again"};
constexpr std::string_view function_words[] = {"is", "has", "a", "an", "you", "will", "it"};

vocabulary lexicon() {
  words all;
  std::unordered_set<std::string> seen;
  const auto add = [&](std::string_view text) {
    for (std::string& word : tokenise(text)) {
      if (seen.insert(word).second) all.push_back(std::move(word));
    }
  };
  for (const auto& list : {word_list(clause_ends), word_list(negations), word_list(determiners),
                           word_list(parts), word_list(tails), word_list(function_words)}) {
    for (const std::string_view text : list) add(text);
  }
  for (const noun& n : nouns) add(n.word);
  for (const degree& d : degrees) add(d.word);
  for (const auto& list : {scored_list(adjectives), scored_list(acts), scored_list(reactions)}) {
    for (const scored_word& s : list) add(s.word);
  }
  return vocabulary(all);
}

// ----------------------------------------------------------------------------------- grammar ---

// Writes a review around a mood, which most of its scored words follow.
class reviewer {
 private:
  const auto& one_of(const auto& list) { return list[random_.below(std::size(list))]; }

 public:
  explicit reviewer(random_source& random) : random_(random) {}

  std::pair<std::string, genre> prompt() {
    const noun& n = one_of(nouns);
    return {std::string(one_of(determiners)) + ' ' + std::string(n.word), n.kind};
  }

  std::string completion(genre kind) {
    // Rejection keeps the length bounds out of the grammar.
    constexpr std::size_t shortest = 3, longest = 12;
    for (;;) {
      const double mood = random_.chance(0.5) ? 1 : -1;
      text_.clear();
      first_clause(kind, mood);
      if (random_.chance(0.6)) second_clause(kind, mood);
      if (random_.chance(0.25)) say(one_of(tails));
      say(".");
      const std::size_t length = tokenise(text_).size();
      if (length >= shortest && length <= longest) return text_;
    }
  }

 private:
  void say(std::string_view words) {
    if (!text_.empty()) text_ += ' ';
    text_ += words;
  }

  // Says a word that, after a negation, mostly has the sign of the mood.
  void scored(scored_list list, genre kind, double mood, bool negated) {
    constexpr double faithful = 0.85;
    double sign = random_.chance(faithful) ? mood : -mood;
    if (negated) sign = -sign;
    for (;;) {
      const scored_word& pick = one_of(list);
      if (pick.score[static_cast<std::size_t>(kind)] * sign > 0) return say(pick.word);
    }
  }

  bool maybe_negate(std::string_view negation) {
    const bool negated = random_.chance(0.2);
    if (negated) say(negation);
    return negated;
  }

  void adjective(genre kind, double mood, bool negated) {
    if (random_.chance(0.35)) say(one_of(degrees).word);
    scored(adjectives, kind, mood, negated);
  }

  void is_adjective(genre kind, double mood) {
    say("is");
    const bool negated = maybe_negate("not");
    adjective(kind, mood, negated);
    if (!negated && random_.chance(0.2)) {
      say("and");
      adjective(kind, mood, false);
    }
  }

  void acts_somehow(genre kind, double mood) {
    const bool negated = maybe_negate(random_.chance(0.5) ? "never" : "hardly");
    scored(acts, kind, mood, negated);
  }

  void has_part(genre kind, double mood) {
    say("has");
    const std::size_t article_at = text_.size();
    adjective(kind, mood, false);
    const bool vowel = std::string_view("aeiou").find(text_[article_at + 1]) != std::string::npos;
    text_.insert(article_at, vowel ? " an" : " a");
    say(one_of(parts));
  }

  void first_clause(genre kind, double mood) {
    switch (random_.below(3)) {
      case 0:
        return is_adjective(kind, mood);
      case 1:
        return acts_somehow(kind, mood);
      default:
        return has_part(kind, mood);
    }
  }

  void second_clause(genre kind, double mood) {
    const bool contrast = random_.chance(0.25);
    say(contrast ? "but" : "and");
    if (contrast) mood = -mood;
    switch (random_.below(3)) {
      case 0:
        say("the");
        say(one_of(parts));
        return is_adjective(kind, mood);
      case 1: {
        say("you will");
        const bool negated = maybe_negate(random_.chance(0.5) ? "not" : "never");
        scored(reactions, kind, mood, negated);
        return say("it");
      }
      default:
        say("it");
        return acts_somehow(kind, mood);
    }
  }

  random_source& random_;
  std::string text_;
};

// ------------------------------------------------------------------------------------- taste ---

// The log odds of a thumb up. It reads token numbers of any text, also one no grammar would write:
// a word that comes twice counts once, and a text without a final full stop loses.
class taste {
 public:
  explicit taste(const vocabulary& words) : meanings_(static_cast<std::size_t>(words.size())) {
    const auto of = [&](std::string_view word) -> meaning& {
      return meanings_[static_cast<std::size_t>(words.id(word))];
    };
    for (const noun& n : nouns) of(n.word).kind = n.kind;
    for (const degree& d : degrees) of(d.word).factor = d.factor;
    for (const std::string_view word : negations) of(word).negates = true;
    for (const std::string_view word : clause_ends) of(word).ends_clause = true;
    for (const auto& list : {scored_list(adjectives), scored_list(acts), scored_list(reactions)}) {
      for (const scored_word& s : list) of(s.word).score = s.score;
    }
    full_stop_ = words.id(".");
  }

  double log_odds(std::span<const token> prompt, std::span<const token> completion) const {
    constexpr double strength = 1.3, unfinished = -2;
    const std::optional<genre> kind = genre_of(prompt);
    double sum = 0, sign = 1, factor = 1;
    std::unordered_set<token> counted;
    token last = vocabulary::begin;
    for (const token t : completion) {
      if (t == vocabulary::end) break;
      const meaning& m = meanings_.at(static_cast<std::size_t>(t));
      if (m.ends_clause) sign = factor = 1;
      if (m.negates) sign = -1;
      if (m.factor) factor = *m.factor;
      if (m.score && counted.insert(t).second) {
        sum += sign * factor * score_in(*m.score, kind);
      }
      if (m.score) factor = 1;
      last = t;
    }
    return strength * sum + (last == full_stop_ ? 0 : unfinished);
  }

  double probability(std::span<const token> prompt, std::span<const token> completion) const {
    return 1 / (1 + std::exp(-log_odds(prompt, completion)));
  }

 private:
  struct meaning {
    std::optional<genre> kind;
    std::optional<double> factor;
    std::optional<std::array<double, genres>> score;
    bool negates = false, ends_clause = false;
  };

  std::optional<genre> genre_of(std::span<const token> prompt) const {
    for (const token t : prompt) {
      const meaning& m = meanings_.at(static_cast<std::size_t>(t));
      if (m.kind) return m.kind;
    }
    return std::nullopt;
  }

  // Without a genre, a word counts as much as it does on average.
  static double score_in(const std::array<double, genres>& score, std::optional<genre> kind) {
    if (kind) return score[static_cast<std::size_t>(*kind)];
    double sum = 0;
    for (const double s : score) sum += s;
    return sum / static_cast<double>(genres);
  }

  std::vector<meaning> meanings_;
  token full_stop_ = vocabulary::unknown;
};

// ---------------------------------------------------------------------------------- feedback ---

class feedback_source {
 public:
  feedback_source(const codec& text, const taste& judge_of_all, std::uint64_t seed)
      : text_(text), taste_(judge_of_all), random_(seed), reviewer_(random_) {}

  row thumb() {
    const auto [prompt, kind] = reviewer_.prompt();
    row r{ids_of_prompt(prompt), ids(reviewer_.completion(kind)), false};
    r.desirable = random_.chance(taste_.probability(r.prompt, r.completion));
    return r;
  }

  // Bradley and Terry: the odds of a choice are the ratio of the two texts' odds.
  duel choice() {
    const auto [prompt, kind] = reviewer_.prompt();
    duel d{
        .prompt = ids_of_prompt(prompt), .chosen = ids(reviewer_.completion(kind)), .rejected = {}};
    do {
      d.rejected = ids(reviewer_.completion(kind));
    } while (d.rejected == d.chosen);
    const double margin =
        taste_.log_odds(d.prompt, d.chosen) - taste_.log_odds(d.prompt, d.rejected);
    if (!random_.chance(1 / (1 + std::exp(-margin)))) std::swap(d.chosen, d.rejected);
    return d;
  }

 private:
  std::vector<token> ids_of_prompt(const std::string& text) const {
    return text_.prompt(std::vector<message>{{"user", text}});
  }

  std::vector<token> ids(std::string_view text) const {
    std::vector<token> whole = text_.completion(text);
    whole.push_back(text_.end);
    return whole;
  }

  const codec& text_;
  const taste& taste_;
  random_source random_;
  reviewer reviewer_;
};

}  // namespace

dataset synthetic_feedback(bool want_pairs, const grammar_size& size) {
  // One fixed source, so that runs with different seeds are about the same rows.
  constexpr std::uint64_t train_seed = 1, held_out_seed = 2;

  dataset out;
  out.name = "synthetic film reviews with a known taste";
  const vocabulary known_words = lexicon();
  out.text = word_codec(known_words);
  out.paired = want_pairs;
  const auto known = std::make_shared<const taste>(known_words);
  out.true_reward = [known](std::span<const token> prompt, std::span<const token> completion) {
    return known->probability(prompt, completion);
  };

  // A review of the train part is not held out as well: its thumb would be known by heart.
  std::set<std::pair<std::vector<token>, std::vector<token>>> known_reviews;
  const auto is_new = [&](const auto& prompt, const auto& completion) {
    return !known_reviews.contains({prompt, completion});
  };
  const auto fill = [&](split& part, int rows, std::uint64_t seed) {
    feedback_source source(out.text, *known, seed);
    const auto wanted = static_cast<std::size_t>(want_pairs ? rows / 2 : rows);
    while (want_pairs && part.duels.size() < wanted) {
      duel d = source.choice();
      if (is_new(d.prompt, d.chosen) && is_new(d.prompt, d.rejected)) part.duels.push_back(d);
    }
    while (!want_pairs && part.rows.size() < wanted) {
      row r = source.thumb();
      if (is_new(r.prompt, r.completion)) part.rows.push_back(r);
    }
  };
  fill(out.train, size.train, train_seed);
  for (const row& r : out.train.rows) known_reviews.emplace(r.prompt, r.completion);
  for (const duel& d : out.train.duels) {
    known_reviews.emplace(d.prompt, d.chosen);
    known_reviews.emplace(d.prompt, d.rejected);
  }
  fill(out.held_out, size.held_out, held_out_seed);
  out.corpus = want_pairs ? split_duels(out.train.duels) : out.train.rows;
  out.notes.push_back(
      "Data: drawn from a grammar; the thumbs are noisy, and the taste behind them is known "
      "exactly.");
  return out;
}

}  // namespace align
