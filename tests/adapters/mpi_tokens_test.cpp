// The MPI adapter where a vocabulary or sequences are cut over ranks: log-probs, statistics and
// sums are those of one rank that is given the parts, to the bit and on every rank, gradients of a
// rank's columns too; and all are those of the whole, by the textbook.
#include <prospect/adapters/mpi.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "adapters/mpi_ranks.hpp"
#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/contract.hpp"
#include "cpu/logits.hpp"
#include "cpu/token_checks.hpp"
#include "cpu/vocabulary_parts.hpp"
#include "oracle/softmax.hpp"
#include "random.hpp"

namespace {

namespace adapters = prospect::adapters;
using oracle::real;
using prospect::compute_t;
using prospect::ignored_target;
using prospect::sequence_layout;
using prospect::sum_count;
using prospect::token_options;
using prospect::vocabulary_partial;
using testing::as_on_rank_0;
using testing::logits_matrix;
using testing::near;
using testing::random_source;
using testing::same_bits;
using testing::share;

/// The vocabulary in as many parts as there are ranks, any of them empty.
std::vector<testing::shard> shards_of(random_source& random, std::int64_t vocabulary) {
  std::vector<std::int64_t> ends;
  for (const share& s : testing::any_shares(random, vocabulary)) ends.push_back(s.first + s.count);
  return testing::shards_to(ends);
}

}  // namespace

TEMPLATE_TEST_CASE("log-probs and gradients where the vocabulary is spread over ranks", "[mpi]",
                   float, double, prospect::bfloat16, prospect::float16) {
  using R = compute_t<TestType>;
  random_source random{4201};
  CAPTURE(random.seed(), testing::rank());
  for (int round = 0; round < 30; ++round) {
    const std::int64_t vocabulary = round == 0 ? 6001 : random.integer(1, 200), n = 5;
    const std::vector<std::uint8_t> mask{1, 1, 1, 0, 1};
    token_options options = round % 3 == 0   ? token_options{}
                            : round % 3 == 1 ? token_options{.temperature = 0.7}
                                             : token_options{.soft_cap = 30};
    options.mask = mask;
    const std::vector<std::int64_t> targets{random.integer(0, vocabulary - 1), ignored_target,
                                            random.chance(0.5) ? 0 : vocabulary - 1, -7,
                                            random.integer(0, vocabulary - 1)};
    logits_matrix<TestType> logits{n, vocabulary};
    const auto kind = testing::all_row_kinds[random.integer(0, 9)];
    for (std::int64_t t = 0; t < n; ++t)
      fill(logits, t, kind, std::max<std::int64_t>(0, targets[static_cast<std::size_t>(t)]),
           random);
    logits.fill_row(3, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
    const auto shards = shards_of(random, vocabulary);
    const auto parts = static_cast<std::int64_t>(shards.size());
    const testing::shard& mine = shards[static_cast<std::size_t>(testing::rank())];
    const bool statistics = round % 2 == 0;
    CAPTURE(round, vocabulary, static_cast<int>(kind), mine.begin, mine.end, targets, statistics);

    testing::token_results<R> got{n}, want{n};
    const auto wanted = [&](testing::token_results<R>& of) {
      return statistics ? of.out()
                        : prospect::token_outputs<R>{.log_prob = of.log_prob, .lse = of.lse};
    };
    adapters::token_log_probs<TestType>(mine.of(logits.view()), targets, wanted(got),
                                        mine.options(options, vocabulary), MPI_COMM_WORLD);
    std::vector<vocabulary_partial> partials(static_cast<std::size_t>(parts * n));
    for (std::int64_t i = 0; i < parts; ++i) {
      const testing::shard& s = shards[static_cast<std::size_t>(i)];
      prospect::cpu::vocabulary_partials<TestType>(s.of(logits.view()), targets,
                                                   {partials.data() + i * n, n},
                                                   s.options(options, vocabulary), statistics);
    }
    prospect::cpu::token_log_probs<R>({partials.data(), parts, n}, targets, wanted(want), mask);
    CHECK(same_bits(got.log_prob, want.log_prob));
    CHECK(same_bits(got.lse, want.lse));
    CHECK(same_bits(got.entropy, want.entropy));
    CHECK(same_bits(got.sum_squares, want.sum_squares));
    CHECK(same_bits(got.mean_logit, want.mean_logit));
    CHECK(same_bits(got.argmax, want.argmax));
    CHECK(as_on_rank_0(got.log_prob));
    CHECK(as_on_rank_0(got.lse));
    CHECK(got.log_prob[1] == 0);
    CHECK(got.log_prob[3] == 0);
    if (parts == 1) {  // which are the bits of a vocabulary that is not split
      testing::token_results<R> whole{n};
      prospect::cpu::token_log_probs<TestType>(logits.view(), targets, wanted(whole), options);
      CHECK(same_bits(got.log_prob, whole.log_prob));
      CHECK(same_bits(got.lse, whole.lse));
    }

    // Each rank's columns of the gradient, with no collective.
    const std::vector<R> d_token{R(0.4), R(1), R(-1.5), R(2), R(0.01)};
    logits_matrix<TestType> gradient{n, vocabulary}, again{n, vocabulary};
    prospect::cpu::logits_gradient<TestType>(mine.of(logits.view()), mine.of(gradient.view()),
                                             targets, got.log_prob, got.lse, d_token,
                                             mine.options(options, vocabulary));
    for (const testing::shard& s : shards) {
      prospect::cpu::logits_gradient<TestType>(s.of(logits.view()), s.of(again.view()), targets,
                                               want.log_prob, want.lse, d_token,
                                               s.options(options, vocabulary));
    }
    for (const std::int64_t t : {0, 1, 2, 3, 4}) {
      const auto y = targets[static_cast<std::size_t>(t)];
      const bool scored = t != 1 && t != 3;
      const auto row = logits.row(t);
      const real size = testing::largest(row) / std::min(1.0, options.temperature);
      const auto textbook = oracle::softmax(row, scored ? y : 0, testing::of(options));
      if (scored) {
        CHECK(testing::log_prob_in_contract(got.log_prob[static_cast<std::size_t>(t)],
                                            textbook.log_prob, size));
      }
      for (std::int64_t j = mine.begin; j < mine.end; ++j) {
        const TestType d = gradient.at(t, j);
        REQUIRE(same_bits(d, again.at(t, j)));
        if (!scored) {
          REQUIRE(same_bits(d, testing::stored<TestType>(0)));
          continue;
        }
        const real by = d_token[static_cast<std::size_t>(t)];
        const auto v = static_cast<std::size_t>(j);
        const real terms = j == y ? std::abs(by) * textbook.slope[v] *
                                        std::min(real(1), textbook.rest + textbook.probability[v])
                                  : 0;
        REQUIRE(testing::gradient_in_contract(d, by * textbook.gradient[v], terms, size));
      }
    }
    // Of other ranks' columns nothing was written.
    for (std::int64_t j = 0; j < vocabulary; ++j) {
      if (j >= mine.begin && j < mine.end) continue;
      REQUIRE(same_bits(gradient.at(0, j), testing::poison<TestType>()));
    }
  }
}

TEMPLATE_TEST_CASE("sums of sequences that are cut over ranks, and their way back", "[mpi]", float,
                   double) {
  random_source random{4202};
  CAPTURE(random.seed(), testing::rank());
  for (int round = 0; round < 30; ++round) {
    const std::int64_t n = round == 0 ? 40 : random.integer(0, 7);
    const std::int64_t longest = round == 0 ? 2000 : 50;
    // Of each sequence, where its pieces begin and end, one behind the other on the ranks.
    std::vector<std::vector<share>> pieces;
    std::vector<std::int64_t> start{0};
    for (std::int64_t i = 0; i < n; ++i) {
      const std::int64_t length = random.integer(0, longest);
      pieces.push_back(testing::any_shares(random, length));
      start.push_back(start.back() + length);
    }
    std::vector<TestType> log_prob;
    std::vector<std::int32_t> targets;
    std::vector<std::uint8_t> mask;
    for (std::int64_t t = 0; t < start.back(); ++t) {
      log_prob.push_back(static_cast<TestType>(
          -std::ldexp(std::abs(random.normal(1)), static_cast<int>(random.integer(-40, 3)))));
      targets.push_back(random.chance(0.3) ? -100 : 5);
      mask.push_back(random.chance(0.2) ? 0 : 1);
    }

    // What a rank has: its piece of every sequence, packed.
    struct held {
      std::vector<TestType> log_prob;
      std::vector<std::int32_t> targets;
      std::vector<std::uint8_t> mask;
      std::vector<std::int64_t> offsets{0};
    };
    std::vector<held> ranks(static_cast<std::size_t>(testing::ranks()));
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      for (std::size_t i = 0; i < pieces.size(); ++i) {
        for (std::int64_t k = 0; k < pieces[i][r].count; ++k) {
          const auto t = static_cast<std::size_t>(start[i] + pieces[i][r].first + k);
          ranks[r].log_prob.push_back(log_prob[t]);
          ranks[r].targets.push_back(targets[t]);
          ranks[r].mask.push_back(mask[t]);
        }
        ranks[r].offsets.push_back(static_cast<std::int64_t>(ranks[r].targets.size()));
      }
    }
    const held& mine = ranks[static_cast<std::size_t>(testing::rank())];
    const auto size = static_cast<std::size_t>(n);
    std::vector<double> got(size, -1);
    std::vector<std::int32_t> tokens(size, -1);
    adapters::sequence_sums<TestType>(
        mine.log_prob, mine.targets, sequence_layout::packed(mine.offsets),
        {.log_prob = got, .tokens = tokens}, mine.mask, MPI_COMM_WORLD);
    CAPTURE(round, n, mine.offsets);

    // One rank that has the pieces.
    std::vector<double> want(size), parts(ranks.size() * size);
    for (std::size_t r = 0; r < ranks.size(); ++r) {
      prospect::cpu::sequence_sums<TestType>(
          ranks[r].log_prob, ranks[r].targets, sequence_layout::packed(ranks[r].offsets),
          {.log_prob = {parts.data() + r * size, n}}, ranks[r].mask);
    }
    prospect::cpu::sum_over_ranks<double>({parts.data(), testing::ranks(), n}, want);
    CHECK(same_bits(got, want));
    CHECK(as_on_rank_0(got));
    CHECK(as_on_rank_0(tokens));

    // One rank that has the sequences.
    for (std::size_t i = 0; i < size; ++i) {
      real sum = 0;
      std::int32_t count = 0;
      for (auto t = static_cast<std::size_t>(start[i]); t < static_cast<std::size_t>(start[i + 1]);
           ++t) {
        if (targets[t] == -100 || mask[t] == 0) continue;
        sum += log_prob[t];
        ++count;
      }
      CHECK(near(got[i], sum, 1e-14L, 1e-300L));
      CHECK(tokens[i] == count);
    }
    if (testing::ranks() == 1) {
      std::vector<double> whole(size);
      prospect::cpu::sequence_sums<TestType>(log_prob, targets, sequence_layout::packed(start),
                                             {.log_prob = whole}, mask);
      CHECK(same_bits(got, whole));
    }

    // One of the two outputs, and the way back, which takes no collective.
    std::vector<double> only(size, -1);
    adapters::sequence_sums<TestType>(mine.log_prob, mine.targets,
                                      sequence_layout::packed(mine.offsets), {.log_prob = only},
                                      mine.mask, MPI_COMM_WORLD);
    CHECK(same_bits(only, want));
    std::vector<TestType> d_token(mine.targets.size(), TestType(-9));
    prospect::cpu::spread<TestType>(only, mine.targets, sequence_layout::packed(mine.offsets),
                                    d_token, mine.mask);
    std::int64_t wrong = 0;
    for (std::size_t i = 0; i < size; ++i) {
      for (auto t = static_cast<std::size_t>(mine.offsets[i]);
           t < static_cast<std::size_t>(mine.offsets[i + 1]); ++t) {
        const bool scored = mine.targets[t] != -100 && mine.mask[t] != 0;
        wrong += d_token[t] == (scored ? static_cast<TestType>(want[i]) : TestType(0)) ? 0 : 1;
      }
    }
    CHECK(wrong == 0);
  }
}
