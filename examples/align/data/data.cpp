// See data.hpp.
#include "data/data.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <numeric>
#include <set>
#include <stdexcept>
#include <unordered_set>
#include <utility>

#include "data/encode.hpp"
#include "data/grammar.hpp"
#include "data/grouping.hpp"
#include "data/retold.hpp"
#include "data/sources.hpp"
#include "random_source.hpp"

namespace align {
namespace {

// The split is the same for every run, so that held-out figures of different seeds are about the
// same rows.
constexpr std::uint64_t split_seed = 20051;

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

std::string as_key(std::span<const message> prompt) {
  std::string key;
  for (const message& m : prompt) key += m.role + ": " + m.content + '\n';
  return key;
}

row_texts texts_of(const text_row& r) { return {as_key(r.prompt), {r.completion}}; }
row_texts texts_of(const text_duel& d) { return {as_key(d.prompt), {d.chosen, d.rejected}}; }

template <class T>
std::pair<std::vector<T>, std::vector<T>> split_rows(std::vector<T> all) {
  std::vector<row_texts> texts;
  for (const T& one : all) texts.push_back(texts_of(one));
  const row_split parts = split_groups(related_rows(texts), split_seed);
  const auto taken = [&](std::span<const std::size_t> places) {
    std::vector<T> part;
    for (const std::size_t i : places) part.push_back(std::move(all[i]));
    return part;
  };
  return {taken(parts.train), taken(parts.held_out)};
}

void add_texts(const text_row& r, std::vector<words>& texts) {
  texts.push_back(prompt_words(r.prompt));
  texts.push_back(tokenise(r.completion));
}

void add_texts(const text_duel& d, std::vector<words>& texts) {
  texts.push_back(prompt_words(d.prompt));
  texts.push_back(tokenise(d.chosen));
  texts.push_back(tokenise(d.rejected));
}

template <class T>
codec codec_of_words(const std::vector<T>& train, std::size_t limit) {
  std::vector<words> texts;
  for (const T& one : train) add_texts(one, texts);
  return word_codec(vocabulary::most_frequent(texts, limit));
}

// Of a prompt that very many rows have, some are held out and some are not.
template <class T>
void note_common_prompts(const std::vector<T>& train, const std::vector<T>& held_out,
                         std::vector<std::string>& notes) {
  std::set<words> seen;
  for (const T& one : train) seen.insert(prompt_words(one.prompt));
  const auto common = std::ranges::count_if(
      held_out, [&](const T& one) { return seen.contains(prompt_words(one.prompt)); });
  if (common == 0) return;
  notes.push_back("The prompts of " + std::to_string(common) + " of " +
                  std::to_string(held_out.size()) +
                  " held-out rows are so common that train rows have them too: there the answers "
                  "alone are new.");
}

// Splits, counts words in the train part only, encodes both parts.
template <class T, class Row>
void fill(dataset& out, std::vector<T> all, const feedback_request& request,
          std::size_t vocabulary_limit, std::vector<Row> split::*form) {
  const auto [train, held_out] = split_rows(std::move(all));
  if (train.empty() || held_out.empty()) {
    fail(out.name +
         " holds too few different texts for a train and a held-out part, which share none");
  }
  out.text = request.text ? *request.text : codec_of_words(train, vocabulary_limit);
  encoder encode(out.text, request.max_prompt, request.max_completion);
  out.train.*form = encode(train);
  out.held_out.*form = encode(held_out);
  encode.note(out.notes);
  note_common_prompts(train, held_out, out.notes);
}

dataset load_file(const feedback_request& request) {
  text_feedback source = read_feedback(request.path);
  dataset out;
  out.name = std::move(source.name);
  out.notes = std::move(source.notes);
  out.quotable = source.quotable;
  out.paired = source.rows.empty();
  if (out.paired) {
    fill(out, std::move(source.duels), request, source.vocabulary_limit, &split::duels);
    out.corpus = split_duels(out.train.duels);
  } else {
    fill(out, std::move(source.rows), request, source.vocabulary_limit, &split::rows);
    out.corpus = out.train.rows;
  }
  return out;
}

// The held-out part lies in an order of its own, so that its first rows are as good as any.
template <class Row>
void keep_first(std::vector<Row>& rows, std::size_t limit, std::vector<std::string>& notes) {
  if (limit == 0 || rows.size() <= limit) return;
  notes.push_back("Measured on " + std::to_string(limit) + " of " + std::to_string(rows.size()) +
                  " held-out rows or pairs, as asked for.");
  rows.resize(limit);
}

std::ptrdiff_t count_desirable(const std::vector<row>& rows) {
  return std::ranges::count_if(rows, &row::desirable);
}

void require_both_classes(const std::vector<row>& rows, const std::string& part) {
  const auto desirable = count_desirable(rows);
  const auto all = static_cast<std::ptrdiff_t>(rows.size());
  if (desirable == 0) fail("the " + part + " holds no desirable row (thumb up)");
  if (desirable == all) fail("the " + part + " holds no undesirable row (thumb down)");
}

void require_usable(const dataset& data) {
  if (data.paired) {
    if (data.train.duels.empty() || data.held_out.duels.empty()) {
      fail(data.name + " holds too few usable pairs for a train and a held-out part");
    }
  } else {
    require_both_classes(data.train.rows, "train part of " + data.name);
    require_both_classes(data.held_out.rows, "held-out part of " + data.name);
  }
}

void drop_desirable(dataset& data, double share, std::uint64_t seed) {
  std::vector<std::size_t> desirable;
  for (std::size_t i = 0; i < data.train.rows.size(); ++i) {
    if (data.train.rows[i].desirable) desirable.push_back(i);
  }
  const auto had = desirable.size();
  const auto dropped =
      static_cast<std::size_t>(std::llround(share * static_cast<double>(desirable.size())));
  if (dropped == had) {
    fail("drop_desirable leaves no desirable row of " + std::to_string(had) +
         " in the train part of " + data.name);
  }
  random_source random(seed);
  shuffle(std::span(desirable), random);
  desirable.resize(dropped);
  std::ranges::sort(desirable);
  std::vector<row> kept;
  for (std::size_t i = 0; i < data.train.rows.size(); ++i) {
    if (!std::ranges::binary_search(desirable, i)) kept.push_back(std::move(data.train.rows[i]));
  }
  data.train.rows = std::move(kept);
  data.notes.push_back("Dropped " + std::to_string(dropped) + " of " + std::to_string(had) +
                       " desirable train rows; " + std::to_string(had - dropped) +
                       " are left against " +
                       std::to_string(data.train.rows.size() - (had - dropped)) + " undesirable.");
}

// How many tokens all prompts start with: the begin token, and the markup of a conversation.
std::size_t common_start(std::span<const row> rows) {
  if (rows.empty()) return 0;
  std::span<const token> shared = rows.front().prompt;
  for (const row& r : rows) {
    const auto differ = std::ranges::mismatch(shared, r.prompt);
    shared = shared.first(static_cast<std::size_t>(differ.in1 - shared.begin()));
  }
  return shared.size();
}

// Noise that is known: so many thumbs or choices say the opposite of what was meant. The held-out
// part stays as it is.
void flip(dataset& data, double share, std::uint64_t seed) {
  const std::size_t all = data.paired ? data.train.duels.size() : data.train.rows.size();
  std::vector<std::size_t> order(all);
  std::iota(order.begin(), order.end(), std::size_t{0});
  random_source random(seed);
  shuffle(std::span(order), random);
  order.resize(static_cast<std::size_t>(std::llround(share * static_cast<double>(all))));
  for (const std::size_t i : order) {
    if (data.paired) {
      duel& d = data.train.duels[i];
      std::swap(d.chosen, d.rejected);
    } else {
      row& r = data.train.rows[i];
      r.desirable = !r.desirable;
    }
  }
  data.notes.push_back("Turned round " + std::to_string(order.size()) + " of " +
                       std::to_string(all) + " train " + (data.paired ? "choices" : "thumbs") +
                       ".");
}

// A given model takes longer over each row, and knows the language already.
dataset synthetic(const feedback_request& request) {
  if (!request.text) return synthetic_feedback(request.want_pairs);
  constexpr grammar_size few{.train = 640, .held_out = 200};
  return retold(synthetic_feedback(request.want_pairs, few), *request.text);
}

}  // namespace

dataset load(const feedback_request& request) {
  // The negation also refuses NaN.
  if (!(request.drop_desirable >= 0 && request.drop_desirable < 1)) {
    fail("drop_desirable must be at least 0 and below 1");
  }
  dataset data = request.path.empty() ? synthetic(request) : load_file(request);
  keep_first(data.held_out.rows, request.held_out_rows, data.notes);
  keep_first(data.held_out.duels, request.held_out_rows, data.notes);
  require_usable(data);
  if (!(request.flip >= 0 && request.flip <= 1)) fail("flip must be from 0 to 1");
  if (request.flip > 0) flip(data, request.flip, request.seed);
  if (request.drop_desirable > 0) {
    if (data.paired) fail("drop_desirable needs thumbs, but " + data.name + " holds pairs");
    drop_desirable(data, request.drop_desirable, request.seed);
  }
  if (request.want_pairs && !data.paired) {
    data.notes.push_back(
        "The feedback is unpaired: each thumb-up text was paired with a thumb-down text, of the "
        "same prompt where there was one and of another prompt elsewhere; the surplus of the "
        "larger class is not used.");
  }
  if (!request.want_pairs && data.paired) {
    data.notes.push_back(
        "The feedback is paired: each pair was split into a thumb up for the chosen text and a "
        "thumb down for the rejected one.");
  }
  return data;
}

std::vector<duel> pair_rows(std::vector<row> rows, std::uint64_t seed) {
  random_source random(seed);
  shuffle(std::span(rows), random);
  std::vector<row*> ups, downs;
  for (row& r : rows) (r.desirable ? ups : downs).push_back(&r);

  const std::size_t shared = common_start(rows);
  std::vector<row*> partner(ups.size(), nullptr);
  std::unordered_set<const row*> taken;
  // Pairs every thumb up that has no partner yet with a free thumb down of the same key.
  const auto match = [&](auto key_of) {
    std::map<std::vector<token>, std::vector<row*>> free;
    for (row* down : downs) {
      if (!taken.contains(down)) free[key_of(down->prompt)].push_back(down);
    }
    for (std::size_t i = 0; i < ups.size(); ++i) {
      if (partner[i] != nullptr) continue;
      const auto same_key = free.find(key_of(ups[i]->prompt));
      if (same_key == free.end() || same_key->second.empty()) continue;
      partner[i] = same_key->second.back();
      same_key->second.pop_back();
      taken.insert(partner[i]);
    }
  };
  using prompt = std::vector<token>;
  match([](const prompt& p) { return p; });
  match([&](const prompt& p) { return p.size() > shared ? prompt{p[shared]} : prompt{}; });
  match([](const prompt&) { return prompt{}; });

  std::vector<duel> duels;
  for (std::size_t i = 0; i < ups.size(); ++i) {
    if (partner[i] == nullptr) continue;
    row &up = *ups[i], &down = *partner[i];
    duel d{.prompt = std::move(up.prompt),
           .chosen = std::move(up.completion),
           .rejected = std::move(down.completion),
           .line = up.line,
           .rejected_line = down.line};
    if (down.prompt != d.prompt) d.rejected_prompt = std::move(down.prompt);
    duels.push_back(std::move(d));
  }
  return duels;
}

std::vector<row> split_duels(const std::vector<duel>& duels) {
  std::vector<row> rows;
  rows.reserve(2 * duels.size());
  for (const duel& d : duels) rows.push_back({d.prompt, d.chosen, true, d.line});
  for (const duel& d : duels) {
    rows.push_back({d.prompt_of_rejected(), d.rejected, false, d.rejected_line});
  }
  return rows;
}

}  // namespace align
