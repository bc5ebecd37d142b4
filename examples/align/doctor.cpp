// See doctor.hpp. One function per question.
#include "doctor.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <ostream>
#include <stdexcept>
#include <utility>

#include "data/left_out.hpp"
#include "evaluation/stats.hpp"
#include "report/format.hpp"

namespace align {
namespace {

// From where on a share is a problem and no longer a fact.
constexpr double telling_length = 0.65;  // of pairs that their length alone ranks right
constexpr double noisy_share = 0.02;     // of rows whose copies have the other label
constexpr double self_matched_share =
    0.1;                              // of rows whose mismatched answer is of their own prompt
constexpr double lopsided = 2;        // one class's weight in the loss over the other's
constexpr double blurred_auc = 0.05;  // standard error

void add(std::vector<finding>& found, bool problem, std::string sentence) {
  found.push_back({problem ? severity::problem : severity::fact, std::move(sentence)});
}

std::string count(std::size_t n, const std::string& what) {
  return std::to_string(n) + ' ' + what + (n == 1 ? "" : "s");
}

// Rows that come from no file have no names.
std::string names_of(std::vector<std::size_t> lines) {
  std::erase(lines, std::size_t{0});
  std::ranges::sort(lines);
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  return lines.empty() ? "" : " (" + named_lines(lines) + ")";
}

struct class_counts {
  std::size_t desirable = 0, undesirable = 0;
};

class_counts classes_of(std::span<const row> rows) {
  const auto ups = static_cast<std::size_t>(std::ranges::count_if(rows, &row::desirable));
  return {ups, rows.size() - ups};
}

// ---- classes ------------------------------------------------------------------------------------

void look_at_classes(const dataset& data, const feedback& train, std::vector<finding>& found) {
  const auto describe = [&](const std::string& part, std::span<const row> rows, bool pairs) {
    const auto [ups, downs] = classes_of(rows);
    const bool one_sided = ups == 0 || downs == 0;
    add(found, one_sided,
        "The " + part + " part has " +
            (pairs ? count(ups, "pair")
                   : count(rows.size(), "row") + ", " + std::to_string(ups) + " desirable and " +
                         std::to_string(downs) + " undesirable") +
            (one_sided ? ": nothing can be told from one class." : "."));
  };
  describe("train", train.rows, train.paired);
  const std::vector<row> held_out =
      data.held_out.rows.empty() ? split_duels(data.held_out.duels) : data.held_out.rows;
  describe("held-out", held_out, data.held_out.rows.empty());
  const auto [ups, downs] = classes_of(held_out);
  if (ups == 0 || downs == 0) return;
  const double error = auc_standard_error(0.5, ups, downs);
  add(found, error > blurred_auc,
      "So many held-out rows give the AUC a standard error of about " + fixed(error, 3) +
          (error > blurred_auc ? ": too few to tell two models apart." : "."));
}

void look_at_weights(const feedback& train, const objective& goal, const loss_choice& choice,
                     std::vector<finding>& found) {
  const std::vector<loss_description> losses = known_losses();
  const auto loss = std::ranges::find(losses, choice.loss, &loss_description::name);
  const auto [ups, downs] = classes_of(train.rows);
  if (loss == losses.end() || goal.balanced || ups == 0 || downs == 0) return;
  double desirable = 0, undesirable = 0;
  const auto take = [&](const auto& parameters) {
    for (const auto& [name, value] : parameters) {
      if (name == "desirable_weight") desirable = value;
      if (name == "undesirable_weight") undesirable = value;
    }
  };
  take(loss->parameters);
  take(choice.parameters);
  if (desirable <= 0 || undesirable <= 0) return;
  const double ratio =
      desirable * static_cast<double>(ups) / (undesirable * static_cast<double>(downs));
  const bool uneven = ratio > lopsided || ratio < 1 / lopsided;
  add(found, uneven,
      "In the loss all desirable rows together weigh " + fixed(ratio, 2) +
          " times what all undesirable ones do" +
          (uneven ? ": the smaller class is drowned; --desirable-weight auto makes up for it. "
                  : ". ") +
          advise_weights(ups, downs).explanation);
}

// ---- lengths ------------------------------------------------------------------------------------

std::string lengths_of(std::vector<double> lengths) {
  std::ranges::sort(lengths);
  const std::size_t half = lengths.size() / 2;
  const double median =
      lengths.size() % 2 == 1 ? lengths[half] : (lengths[half - 1] + lengths[half]) / 2;
  return "mean " + fixed(summarise(lengths).mean, 1) + ", median " + fixed(median, 1) +
         ", longest " + fixed(lengths.back(), 0);
}

void look_at_lengths(const dataset& data, const feedback& train, std::vector<finding>& found) {
  std::vector<double> up, down, prompts;
  std::vector<std::size_t> empty, cut;
  for (const row& r : train.rows) {
    prompts.push_back(static_cast<double>(r.prompt.size()));
    (r.desirable ? up : down).push_back(static_cast<double>(r.completion.size()));
    if (r.completion.empty()) {
      empty.push_back(r.line);
    } else if (r.completion.back() != data.text.end) {
      cut.push_back(r.line);
    }
  }
  if (!empty.empty()) {
    add(found, true,
        count(empty.size(), "row") + " without any scored token" + names_of(empty) + ".");
  }
  if (!cut.empty()) {
    add(found, false,
        std::to_string(cut.size()) + " of " + count(train.rows.size(), "train completion") +
            " teach no end, because they are cut" + names_of(cut) + ".");
  }
  if (up.empty() || down.empty()) return;
  add(found, false, "Tokens of the prompts: " + lengths_of(prompts) + ".");
  add(found, false,
      "Tokens of the completions: desirable ones " + lengths_of(up) + "; undesirable ones " +
          lengths_of(down) + ".");
  double shorter = 0;
  if (train.paired) {
    for (std::size_t i = 0; i < up.size(); ++i) {
      shorter += up[i] < down[i] ? 1 : up[i] == down[i] ? 0.5 : 0;
    }
    shorter /= static_cast<double>(up.size());
  } else {
    shorter = auc(down, up);
  }
  const double guess = std::max(shorter, 1 - shorter);
  add(found, guess >= telling_length,
      "\"The " + std::string(shorter >= 0.5 ? "shorter" : "longer") + " answer is better\" ranks " +
          percent(guess) +
          (train.paired ? " of the train pairs" : " of the train part's answers (as an AUC)") +
          " right" +
          (guess >= telling_length ? ": a model that learns nothing but a length will look good."
                                   : "."));
}

// ---- copies -------------------------------------------------------------------------------------

struct copies {
  std::size_t ups = 0, downs = 0;
  std::vector<std::size_t> lines;
};

// Fewer pairs of copies tell nothing about all labels.
constexpr double enough_pairs = 100;

// Of the pairs of copies, those that contradict each other; q of all labels wrong would give
// 2 q (1 - q) of them.
void report_copies(const std::vector<copies>& all, const std::string& unit, std::size_t rows,
                   std::vector<finding>& found) {
  std::size_t repeats = 0;
  double pairs = 0, against = 0;
  std::vector<std::size_t> opposed;
  for (const copies& c : all) {
    const std::size_t n = c.ups + c.downs;
    repeats += n - 1;
    pairs += 0.5 * static_cast<double>(n) * static_cast<double>(n - 1);
    against += static_cast<double>(c.ups) * static_cast<double>(c.downs);
    if (c.ups > 0 && c.downs > 0) {
      opposed.insert(opposed.end(), c.lines.begin(), c.lines.end());
    }
  }
  if (repeats == 0) return;
  const std::string sentence = count(repeats, unit) + " of " + std::to_string(rows) +
                               " say again what another says, prompt and answer";
  if (against == 0) return add(found, false, sentence + ", all with the same label.");
  const double share = against / pairs;
  const double wrong = share < 0.5 ? (1 - std::sqrt(1 - 2 * share)) / 2 : 0.5;
  add(found, static_cast<double>(opposed.size()) >= noisy_share * static_cast<double>(rows),
      sentence + "; of the pairs of such copies " + fixed(against, 0) + " of " + fixed(pairs, 0) +
          " have opposite labels" + names_of(opposed) +
          (pairs < enough_pairs ? "."
                                : ", as if " + percent(wrong) + " of all labels were wrong."));
}

void look_at_copies(const dataset& data, std::vector<finding>& found) {
  const auto values = [](const auto& by_text) {
    std::vector<copies> all;
    for (const auto& [text, some] : by_text) all.push_back(some);
    return all;
  };
  const auto enter = [](copies& c, bool up, std::size_t line) {
    ++(up ? c.ups : c.downs);
    c.lines.push_back(line);
  };
  using text = std::vector<token>;
  std::map<std::pair<text, text>, copies> rows;
  std::map<std::pair<text, std::pair<text, text>>, copies> duels;
  for (const split* part : {&data.train, &data.held_out}) {
    for (const row& r : part->rows) enter(rows[{r.prompt, r.completion}], r.desirable, r.line);
    for (const duel& d : part->duels) {
      const bool in_order = d.chosen < d.rejected;
      enter(duels[{d.prompt,
                   in_order ? std::pair(d.chosen, d.rejected) : std::pair(d.rejected, d.chosen)}],
            in_order, d.line);
    }
  }
  report_copies(values(rows), "row", data.train.rows.size() + data.held_out.rows.size(), found);
  report_copies(values(duels), "pair", data.train.duels.size() + data.held_out.duels.size(), found);
}

// ---- the reference point ------------------------------------------------------------------------

// Its KL estimate is about answers to other prompts. One to the same prompt is what the model is
// trained on.
void look_at_mismatches(const feedback& train, const objective& goal, const schedule& plan,
                        std::vector<finding>& found) {
  std::vector<std::size_t> own;
  std::size_t rows = 0, alone = 0;
  for (const auto& batch : batches_of_epoch(train, plan.batch, goal.balanced, plan.seed, 0)) {
    for (std::size_t i = 0; goal.mismatched && i < batch.size(); ++i) {
      ++rows;
      const auto other = mismatched_row(i, batch.size());
      if (!other) {
        ++alone;
      } else if (train.rows[batch[i]].prompt == train.rows[batch[*other]].prompt) {
        own.push_back(train.rows[batch[i]].line);
      }
    }
  }
  if (alone > 0) {
    add(found, true,
        "A batch of one row has no mismatched answer, so the reference point stays 0: take a "
        "larger "
        "--batch.");
  }
  if (own.empty()) return;
  const double share = static_cast<double>(own.size()) / static_cast<double>(rows);
  add(found, share >= self_matched_share,
      "The mismatched answer of " + std::to_string(own.size()) + " of " + count(rows, "row") +
          " in the first epoch answers the row's own prompt" + names_of(own) +
          (share >= self_matched_share
               ? ": the reference point then measures the training itself, and no mismatch."
               : "."));
}

}  // namespace

std::vector<finding> examine(const dataset& data, const feedback& train, const objective& goal,
                             const loss_choice& choice, const schedule& plan) {
  std::vector<finding> found;
  for (const std::string& note : data.notes) add(found, false, note);
  look_at_classes(data, train, found);
  look_at_weights(train, goal, choice, found);
  look_at_lengths(data, train, found);
  look_at_copies(data, found);
  try {
    look_at_mismatches(train, goal, plan, found);
  } catch (const std::invalid_argument& too_little) {
    add(found, true, "No batch can be made: " + std::string(too_little.what()) + ".");
  }
  return found;
}

bool print(std::ostream& out, std::span<const finding> all) {
  std::size_t problems = 0;
  for (const severity kind : {severity::problem, severity::fact}) {
    for (const finding& f : all) {
      if (f.kind != kind) continue;
      out << wrapped(f.sentence, kind == severity::problem ? "!! " : " - ", 80);
      problems += kind == severity::problem ? 1 : 0;
    }
  }
  out << (problems == 0 ? "ok Nothing is wrong with the feedback or the loss.\n"
                        : "!! " + count(problems, "problem") + ".\n");
  return problems == 0;
}

}  // namespace align
