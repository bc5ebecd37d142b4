// The seam between the trainer and a loss: one log-probability per sequence goes in, one
// coefficient per sequence comes out. The trainer knows only this header, and objective.cpp is the
// only file of the program that knows a loss.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "report/report.hpp"

namespace align {

// The sequences of one optimiser step.
struct scored_batch {
  std::vector<double> policy = {}, reference = {};
  std::vector<std::uint8_t> desirable = {};
  std::vector<std::int32_t> tokens = {};

  // Prompt i with the completion of row mismatched_row(i); empty unless the objective asks.
  std::vector<double> mismatched_policy = {}, mismatched_reference = {};
};

// What a reference point remembers from step to step; belongs into a checkpoint.
struct point_memory {
  double sum = 0, count = 0;
};

struct objective {
  bool paired = false;      // sequences are all chosen ones, then their rejected partners
  bool mismatched = false;  // needs the mismatched rows
  bool balanced = false;    // needs both thumbs, as many of each, in every batch
  std::string reference_point = "none";

  // The reduced loss and what there is to report, and its derivative by each entry of `policy`.
  std::function<step_record(const scored_batch&, point_memory&, std::span<double> coefficients)>
      evaluate;
};

// The row whose completion stands in for row i's; a batch of one has none.
std::optional<std::size_t> mismatched_row(std::size_t i, std::size_t rows);

// Mean negative log-likelihood per token.
objective next_token_objective();

// A preference loss and where its reference point comes from, both by name.
struct loss_choice {
  std::string loss = "kto";
  std::vector<std::pair<std::string, double>> parameters = {};  // those not at their default
  std::string reference_point = {};                             // "": what the loss asks for
};

// Throws std::invalid_argument, which lists what there is, for what there is not.
objective preference_objective(const loss_choice& choice);

// The losses there are, with the defaults of their parameters.
struct loss_description {
  std::string name;
  bool paired;
  std::vector<std::pair<std::string, double>> parameters;
};
std::vector<loss_description> known_losses();
std::vector<std::string> known_reference_points();

// Weights that make up for unequal classes, and how they were found.
struct weight_advice {
  double desirable, undesirable;
  std::string explanation;
};
weight_advice advise_weights(std::size_t n_desirable, std::size_t n_undesirable);

}  // namespace align
