// A vocabulary that is split over ranks: the parts, and each part's view and options.

#pragma once

#include <prospect/core/matrix_view.hpp>
#include <prospect/tokens.hpp>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "random.hpp"

namespace testing {

/// Columns [begin, end) of a matrix, and what they are of.
struct shard {
  std::int64_t begin, end;

  prospect::token_options options(prospect::token_options o, std::int64_t vocabulary) const {
    o.first_token = begin;
    o.vocabulary = vocabulary;
    return o;
  }
  template <class S>
  prospect::matrix_view<S> of(prospect::matrix_view<S> m) const {
    return {m.data + begin, m.rows, end - begin, m.pitch};
  }
};

/// Parts that end there, the last one with the vocabulary.
inline std::vector<shard> shards_to(const std::vector<std::int64_t>& ends) {
  std::vector<shard> shards;
  std::int64_t begin = 0;
  for (const std::int64_t end : ends) {
    shards.push_back({begin, end});
    begin = end;
  }
  return shards;
}

/// Up to five parts, some of them empty.
inline std::vector<shard> any_split(random_source& random, std::int64_t vocabulary) {
  std::vector<std::int64_t> ends{vocabulary};
  for (std::int64_t more = random.integer(0, 4); more > 0; --more) {
    ends.push_back(random.chance(0.3) ? ends.back() : random.integer(0, vocabulary));
  }
  std::sort(ends.begin(), ends.end());
  return shards_to(ends);
}

}  // namespace testing
