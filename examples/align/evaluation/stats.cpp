// See stats.hpp.
#include "evaluation/stats.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace align {
namespace {

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

bool has_nan(std::span<const double> values) {
  return std::ranges::any_of(values, [](double x) { return std::isnan(x); });
}

}  // namespace

double auc(std::span<const double> positive, std::span<const double> negative) {
  if (positive.empty() || negative.empty()) return not_a_number;
  if (has_nan(positive) || has_nan(negative)) return not_a_number;  // they have no order
  std::vector<double> ranked(negative.begin(), negative.end());
  std::ranges::sort(ranked);
  double twice_wins = 0;
  for (const double score : positive) {
    const auto [first, last] = std::equal_range(ranked.begin(), ranked.end(), score);
    twice_wins += static_cast<double>((first - ranked.begin()) + (last - ranked.begin()));
  }
  return twice_wins /
         (2 * static_cast<double>(positive.size()) * static_cast<double>(negative.size()));
}

double auc_standard_error(double auc, std::size_t positives, std::size_t negatives) {
  if (positives == 0 || negatives == 0) return not_a_number;
  const double p = static_cast<double>(positives), n = static_cast<double>(negatives);
  const double two_positives = auc / (2 - auc), two_negatives = 2 * auc * auc / (1 + auc);
  const double square = auc * auc;
  return std::sqrt(
      (auc - square + (p - 1) * (two_positives - square) + (n - 1) * (two_negatives - square)) /
      (p * n));
}

estimate summarise(std::span<const double> values) {
  double sum = 0, count = 0;
  for (const double x : values) {
    if (std::isnan(x)) continue;
    sum += x;
    count += 1;
  }
  const double mean = count > 0 ? sum / count : not_a_number;
  if (count < 2) return {mean, not_a_number};
  double squares = 0;
  for (const double x : values) {
    if (!std::isnan(x)) squares += (x - mean) * (x - mean);
  }
  return {mean, std::sqrt(squares / (count - 1) / count)};
}

}  // namespace align
