// Synthetic feedback whose true reward is known exactly: a small grammar writes one-sentence film
// reviews, a hidden taste turns each into a probability of a thumb up, and the thumbs (or the
// choices between two reviews) are noisy draws from it. Needs no file and no network.
#pragma once

#include <span>
#include <vector>

#include "data/data.hpp"

namespace align {

// How many rows; a duel takes the place of two.
struct grammar_size {
  int train = 3000;
  int held_out = 600;
};

dataset synthetic_feedback(bool want_pairs, const grammar_size& size = {});

}  // namespace align
