// What options say about single rows, whoever computes: masks, inverse temperatures of their own,
// padding behind them, and one coefficient for each. The same checks for every back end.

#pragma once

#include <prospect/tokens.hpp>
#include <prospect/vocabulary.hpp>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "catch.hpp"
#include "cpu/token_checks.hpp"

namespace testing {

template <class R>
bool same_outputs(const token_results<R>& a, const token_results<R>& b) {
  return same_bits(a.log_prob, b.log_prob) && same_bits(a.lse, b.lse) &&
         same_bits(a.entropy, b.entropy) && same_bits(a.sum_squares, b.sum_squares) &&
         same_bits(a.mean_logit, b.mean_logit) && same_bits(a.argmax, b.argmax);
}
template <class R>
bool same_output(const token_results<R>& a, const token_results<R>& b, std::size_t t) {
  return same_bits(a.log_prob[t], b.log_prob[t]) && same_bits(a.lse[t], b.lse[t]) &&
         same_bits(a.entropy[t], b.entropy[t]) && same_bits(a.sum_squares[t], b.sum_squares[t]) &&
         same_bits(a.mean_logit[t], b.mean_logit[t]) && a.argmax[t] == b.argmax[t];
}
template <class S>
bool same_row(logits_matrix<S>& a, logits_matrix<S>& b, std::int64_t t) {
  for (std::int64_t j = 0; j < a.columns(); ++j) {
    if (!same_bits(a.at(t, j), b.at(t, j))) return false;
  }
  return true;
}

/// All that a back end makes of a batch.
template <class S>
struct whole_way {
  token_results<compute_t<S>> pass, deferred_pass;
  logits_matrix<S> gradient, in_place, deferred;
  std::vector<prospect::vocabulary_partial> partials;

  template <class BackEnd, class Targets>
  whole_way(const BackEnd& on, const logits_matrix<S>& given, const Targets& targets,
            const std::vector<compute_t<S>>& d_token, const token_options& options)
      : pass{0}, deferred_pass{0}, gradient{given}, in_place{given}, deferred{given} {
    logits_matrix<S> logits = given;
    pass = on.forward(logits, targets, options);
    on.gradient(logits, gradient, targets, pass, d_token, options);
    on.gradient(in_place, in_place, targets, pass, d_token, options);
    deferred_pass = on.deferred(deferred, targets, options);
    partials = on.partials(logits, targets, options);
  }

  bool operator==(const whole_way& other) const {
    const auto same = [](logits_matrix<S> a, logits_matrix<S> b) {
      return same_bits(a.elements(), b.elements());
    };
    return same_outputs(pass, other.pass) && same_outputs(deferred_pass, other.deferred_pass) &&
           same(gradient, other.gradient) && same(in_place, other.in_place) &&
           same(deferred, other.deferred) && same_bits(partials, other.partials);
  }
};

/// Seven ordinary rows.
template <class S>
struct rows_of_options {
  static constexpr std::int64_t n = 7;
  std::int64_t vocabulary;
  logits_matrix<S> logits;
  std::vector<std::int64_t> targets;
  std::vector<compute_t<S>> d_token;

  rows_of_options(std::int64_t columns, random_source& random)
      : vocabulary{columns}, logits{n, columns, 3, 1} {
    for (std::int64_t t = 0; t < n; ++t) {
      targets.push_back(random.integer(0, columns - 1));
      fill(logits, t, row_kind::ordinary, targets.back(), random);
      d_token.push_back(static_cast<compute_t<S>>(random.normal(1)));
    }
    targets[5] = ignored_target;
    d_token[6] = 0;
  }
};

/// A mask is a target of -100, to the bit, and what it hides may be anything.
template <class S, class BackEnd>
void check_masks(const BackEnd& on, std::int64_t vocabulary, random_source& random) {
  rows_of_options<S> rows{vocabulary, random};
  const std::vector<std::uint8_t> mask{1, 0, 255, 0, 2, 1, 1};
  auto ignored = rows.targets;
  ignored[1] = ignored[3] = ignored_target;
  rows.targets[1] = vocabulary;
  rows.targets[3] = -7;
  for (std::int64_t j = 0; j < vocabulary; ++j) {
    rows.logits.at(3, j) = stored<S>(std::numeric_limits<double>::quiet_NaN());
  }
  const whole_way<S> want{on, rows.logits, ignored, rows.d_token, {}};
  whole_way<S> got{on, rows.logits, rows.targets, rows.d_token, {.mask = mask}};
  CHECK(got == want);
  CHECK(same_bits(got.pass.log_prob[1], compute_t<S>(0)));
  CHECK(got.pass.log_prob[0] < 0);
  CHECK(got.pass.log_prob[2] < 0);
  for (auto* gradient : {&got.gradient, &got.in_place, &got.deferred}) {
    for (std::int64_t j = 0; j < vocabulary; ++j) {
      REQUIRE(same_bits(gradient->at(1, j), stored<S>(0)));
      REQUIRE(same_bits(gradient->at(3, j), stored<S>(0)));
    }
  }
}

/// A row with an inverse temperature of its own has the bits that it has in a batch of that
/// temperature; that batch is held against the oracle elsewhere.
template <class S, class BackEnd>
void check_temperatures(const BackEnd& on, std::int64_t vocabulary, const token_options& options,
                        random_source& random) {
  rows_of_options<S> rows{vocabulary, random};
  const std::vector<float> own{1, 0.25F, 4, 1, 0.5F, 0, 2};
  token_options with = options;
  with.inverse_temperatures = own;
  whole_way<S> got{on, rows.logits, rows.targets, rows.d_token, with};
  for (std::size_t t = 0; t < own.size(); ++t) {
    if (rows.targets[t] == ignored_target) continue;  // whose temperature may be anything
    CAPTURE(t, own[t], options.temperature, options.soft_cap);
    token_options alone = options;
    alone.temperature = options.temperature / static_cast<double>(own[t]);  // by powers of two
    whole_way<S> want{on, rows.logits, rows.targets, rows.d_token, alone};
    CHECK(same_output(got.pass, want.pass, t));
    CHECK(same_output(got.deferred_pass, want.deferred_pass, t));
    CHECK(same_bits(got.partials[t], want.partials[t]));
    const auto row = static_cast<std::int64_t>(t);
    CHECK(same_row(got.gradient, want.gradient, row));
    CHECK(same_row(got.in_place, want.in_place, row));
    CHECK(same_row(got.deferred, want.deferred, row));
  }
  // Not only powers of two: against the oracle.
  logits_matrix<S> one{1, vocabulary};
  fill(one, 0, row_kind::ordinary, 0, random);
  const std::vector<float> odd{1.3F};
  with.inverse_temperatures = odd;
  const oracle::softmax_options exact{.temperature = options.temperature / odd[0],
                                      .soft_cap = options.soft_cap};
  const std::vector<std::int64_t> target{0};
  const auto pass = on.forward(one, target, with);
  check_scores(pass, 0, oracle::softmax(one.row(0), 0, exact), one.row(0), exact);
}

/// A vocabulary of V in rows of Vp: what a host multiplies over must be 0 behind V. The padding
/// holds logits far above all others, which must not be read.
template <class S, class BackEnd>
void check_padding(const BackEnd& on, std::int64_t vocabulary, std::int64_t padding,
                   random_source& random) {
  CAPTURE(vocabulary, padding);
  constexpr std::int64_t n = 4, before = 1;
  const auto padded = [&] {
    logits_matrix<S> m{n, vocabulary, padding, before};
    for (std::int64_t t = 0; t < n; ++t) {
      for (std::int64_t j = 0; j < padding; ++j) m.at(t, vocabulary + j) = stored<S>(2005);
    }
    return m;
  };
  logits_matrix<S> logits = padded();
  for (std::int64_t t = 0; t < n; ++t) fill(logits, t, row_kind::ordinary, 0, random);
  // Scored, without a target, without a coefficient, masked.
  const std::vector<std::int64_t> targets{vocabulary - 1, ignored_target, 0, 0};
  const std::vector<compute_t<S>> d_token{compute_t<S>(0.5), 1, 0, 1};
  const std::vector<std::uint8_t> mask{1, 1, 1, 0};
  const auto pass = on.forward(logits, targets, {.mask = mask});

  const auto written = [&](bool zero, const auto& write) {
    logits_matrix<S> to = logits;
    write(to, token_options{.mask = mask, .zero_padding = zero});
    const S expected = stored<S>(zero ? 0 : 2005);
    std::int64_t wrong = 0;
    for (std::int64_t t = 0; t < n; ++t) {
      for (std::int64_t j = 0; j < padding; ++j) {
        wrong += same_bits(to.at(t, vocabulary + j), expected) ? 0 : 1;
      }
    }
    CHECK(wrong == 0);
    // Nothing in front of the matrix or behind it.
    const auto& block = to.block();
    CHECK(same_bits(block.front(), poison<S>()));
    for (std::size_t i = block.size() - 4; i < block.size(); ++i) {
      CHECK(same_bits(block[i], poison<S>()));
    }
    return to.elements();
  };
  const auto in_place = [&](logits_matrix<S>& to, const token_options& options) {
    on.gradient(to, to, targets, pass, d_token, options);
  };
  const auto elsewhere = [&](logits_matrix<S>& to, const token_options& options) {
    logits_matrix<S> from = logits;
    on.gradient(from, to, targets, pass, d_token, options);
    CHECK(same_bits(from.block(), logits.block()));
  };
  const auto with_two = [&](logits_matrix<S>& to, const token_options& options) {
    on.gradient(to, to, targets, pass, d_token, d_token, options);
  };
  const auto with_three = [&](logits_matrix<S>& to, const token_options& options) {
    on.gradient(to, to, targets, pass, d_token, d_token, d_token, options);
  };
  const auto deferred = [&](logits_matrix<S>& to, const token_options& options) {
    on.deferred(to, targets, options);
  };
  const auto want = written(false, in_place);
  CHECK(same_bits(written(true, in_place), want));
  CHECK(same_bits(written(true, elsewhere), want));
  CHECK(same_bits(written(false, elsewhere), want));
  CHECK(same_bits(written(true, with_two), written(false, with_two)));
  CHECK(same_bits(written(true, with_three), written(false, with_three)));
  CHECK(same_bits(written(true, deferred), written(false, deferred)));
}

/// One coefficient out of place is in place, and both are two coefficients of the opposite sign.
template <class S, class BackEnd>
void check_one_coefficient(const BackEnd& on, std::int64_t vocabulary, random_source& random) {
  rows_of_options<S> rows{vocabulary, random};
  const auto pass = on.forward(rows.logits, rows.targets, {});
  std::vector<compute_t<S>> minus;
  for (const compute_t<S> d : rows.d_token) minus.push_back(-d);
  logits_matrix<S> in_place = rows.logits, apart{rows.n, vocabulary, 5, 2}, two = apart;
  const logits_matrix<S> before = rows.logits;
  on.gradient(rows.logits, apart, rows.targets, pass, rows.d_token, {});
  CHECK(same_bits(rows.logits.elements(), logits_matrix<S>{before}.elements()));
  on.gradient(in_place, in_place, rows.targets, pass, rows.d_token, {});
  on.gradient(rows.logits, two, rows.targets, pass, minus, minus, {});
  CHECK(same_bits(apart.elements(), in_place.elements()));
  CHECK(same_bits(apart.elements(), two.elements()));
  CHECK(apart.padding_untouched());
  // And it points upward: d (1 - p) at the target.
  const auto want = oracle::softmax(rows.logits.row(0), rows.targets[0]);
  const real d = rows.d_token[0];
  CHECK(wrong_columns(apart, 0, rows.targets[0], -d, -d, want, largest(rows.logits.row(0))) == 0);
}

}  // namespace testing
