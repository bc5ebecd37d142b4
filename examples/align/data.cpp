// See data.hpp.
#include "data.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <stdexcept>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "grammar.hpp"
#include "random.hpp"
#include "sources.hpp"

namespace align {
namespace {

constexpr double train_share = 0.8;
constexpr std::size_t longest_prompt = 40;
constexpr std::size_t longest_completion = 56;

// The split is the same for every run, so that held-out figures of different seeds are about the
// same rows.
constexpr std::uint64_t split_seed = 20051;

[[noreturn]] void fail(const std::string& sentence) { throw std::runtime_error(sentence); }

template <class T>
std::pair<std::vector<T>, std::vector<T>> split_shuffled(std::vector<T> all) {
  random_source random(split_seed);
  shuffle(std::span(all), random);
  const auto cut =
      all.begin() + static_cast<std::ptrdiff_t>(train_share * static_cast<double>(all.size()));
  return {std::vector<T>(std::make_move_iterator(all.begin()), std::make_move_iterator(cut)),
          std::vector<T>(std::make_move_iterator(cut), std::make_move_iterator(all.end()))};
}

// The end of a long prompt matters most, and the beginning of a long answer.
class encoder {
 public:
  explicit encoder(const vocabulary& words) : words_(words) {}

  row operator()(const worded_row& r) const {
    return {prompt(r.prompt), completion(r.completion), r.desirable};
  }

  duel operator()(const worded_duel& d) const {
    return {prompt(d.prompt), completion(d.chosen), completion(d.rejected)};
  }

  template <class T>
  auto operator()(const std::vector<T>& all) const {
    std::vector<decltype((*this)(all.front()))> out;
    out.reserve(all.size());
    for (const T& one : all) out.push_back((*this)(one));
    return out;
  }

 private:
  std::vector<token> prompt(std::span<const std::string> text) const {
    return words_.encode(text.last(std::min(longest_prompt, text.size())));
  }

  std::vector<token> completion(std::span<const std::string> text) const {
    return words_.encode(text.first(std::min(longest_completion, text.size())));
  }

  const vocabulary& words_;
};

void add_texts(const worded_row& r, std::vector<words>& texts) {
  texts.push_back(r.prompt);
  texts.push_back(r.completion);
}

void add_texts(const worded_duel& d, std::vector<words>& texts) {
  texts.push_back(d.prompt);
  texts.push_back(d.chosen);
  texts.push_back(d.rejected);
}

// Splits, counts words in the train part only, encodes both parts.
template <class T>
auto split_and_encode(std::vector<T> all, std::size_t vocabulary_limit, vocabulary& words_out) {
  const auto [train, held_out] = split_shuffled(std::move(all));
  std::vector<words> texts;
  for (const T& one : train) add_texts(one, texts);
  words_out = vocabulary::most_frequent(texts, vocabulary_limit);
  const encoder encode(words_out);
  return std::pair(encode(train), encode(held_out));
}

dataset load_file(const std::string& path) {
  worded_feedback source = read_feedback(path);
  dataset out;
  out.name = std::move(source.name);
  out.notes = std::move(source.notes);
  out.quotable = source.quotable;
  out.paired = source.rows.empty();
  if (out.paired) {
    std::tie(out.train.duels, out.held_out.duels) =
        split_and_encode(std::move(source.duels), source.vocabulary_limit, out.words);
    out.corpus = split_duels(out.train.duels);
  } else {
    std::tie(out.train.rows, out.held_out.rows) =
        split_and_encode(std::move(source.rows), source.vocabulary_limit, out.words);
    out.corpus = out.train.rows;
  }
  return out;
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

}  // namespace

dataset load(const feedback_request& request) {
  // The negation also refuses NaN.
  if (!(request.drop_desirable >= 0 && request.drop_desirable < 1)) {
    fail("drop_desirable must be at least 0 and below 1");
  }
  dataset data =
      request.path.empty() ? synthetic_feedback(request.want_pairs) : load_file(request.path);
  require_usable(data);
  if (request.drop_desirable > 0) {
    if (data.paired) fail("drop_desirable needs thumbs, but " + data.name + " holds pairs");
    drop_desirable(data, request.drop_desirable, request.seed);
  }
  if (request.want_pairs && !data.paired) {
    data.notes.push_back(
        "The feedback is unpaired: each thumb-up text was paired with a thumb-down text, of the "
        "same prompt where there was one and of another prompt elsewhere; the surplus of the "
        "larger "
        "class is not used.");
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
  match([](const prompt& p) { return p.empty() ? p : prompt{p.front()}; });
  match([](const prompt&) { return prompt{}; });

  std::vector<duel> duels;
  for (std::size_t i = 0; i < ups.size(); ++i) {
    if (partner[i] == nullptr) continue;
    row &up = *ups[i], &down = *partner[i];
    duel d{std::move(up.prompt), std::move(up.completion), std::move(down.completion)};
    if (down.prompt != d.prompt) d.rejected_prompt = std::move(down.prompt);
    duels.push_back(std::move(d));
  }
  return duels;
}

std::vector<row> split_duels(const std::vector<duel>& duels) {
  std::vector<row> rows;
  rows.reserve(2 * duels.size());
  for (const duel& d : duels) rows.push_back({d.prompt, d.chosen, true});
  for (const duel& d : duels) rows.push_back({d.prompt_of_rejected(), d.rejected, false});
  return rows;
}

}  // namespace align
