// See judge.hpp.
#include "evaluation/judge.hpp"

#include <cmath>
#include <cstddef>
#include <limits>
#include <stdexcept>

namespace align {
judge::judge(std::span<const row> held_out, int vocabulary_size, token end)
    : prior_(0), evidence_(static_cast<std::size_t>(vocabulary_size), 0.0) {
  struct tally {
    double rows = 0, tokens = 0;
    std::vector<double> of_token;
  };
  tally classes[2];  // undesirable, desirable
  for (tally& t : classes) t.of_token.resize(evidence_.size());
  for (const row& r : held_out) {
    tally& t = classes[r.desirable ? 1 : 0];
    t.rows += 1;
    for (const token id : r.completion) {
      if (id == end) continue;
      t.tokens += 1;
      t.of_token.at(static_cast<std::size_t>(id)) += 1;
    }
  }
  const auto& [undesirable, desirable] = classes;
  if (undesirable.rows == 0 || desirable.rows == 0) {
    throw std::invalid_argument("judge: held_out must hold rows of both classes");
  }

  const double size = static_cast<double>(vocabulary_size);
  prior_ = std::log(desirable.rows / undesirable.rows);
  for (std::size_t i = 0; i < evidence_.size(); ++i) {
    // A token that nobody was seen to write says nothing, and how a text ends says nothing either.
    if (desirable.of_token[i] + undesirable.of_token[i] == 0) continue;
    // Laplace smoothing: every token was seen once more in either class.
    evidence_[i] = std::log((desirable.of_token[i] + 1) / (desirable.tokens + size)) -
                   std::log((undesirable.of_token[i] + 1) / (undesirable.tokens + size));
  }
}

double judge::probability_desirable(std::span<const token> completion) const {
  double log_odds = prior_;
  for (const token id : completion) log_odds += evidence_.at(static_cast<std::size_t>(id));
  return 1 / (1 + std::exp(-log_odds));
}

double judge::accuracy(std::span<const row> rows) const {
  if (rows.empty()) return std::numeric_limits<double>::quiet_NaN();
  double right = 0;
  for (const row& r : rows) {
    if ((probability_desirable(r.completion) > 0.5) == r.desirable) right += 1;
  }
  return right / static_cast<double>(rows.size());
}

}  // namespace align
