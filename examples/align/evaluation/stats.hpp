// The few statistics that the report needs.
#pragma once

#include <cstddef>
#include <span>

namespace align {

// Probability that a positive scores above a negative; ties count half. NaN when a side is empty.
double auc(std::span<const double> positive, std::span<const double> negative);

// Sampling standard error of an AUC measured on that many rows (Hanley and McNeil 1982).
double auc_standard_error(double auc, std::size_t positives, std::size_t negatives);

struct estimate {
  double mean;            // NaN without values
  double standard_error;  // of the mean; NaN with fewer than two values
};

// Values that are NaN ("not measured") are left out.
estimate summarise(std::span<const double> values);

}  // namespace align
