// What every schedule of the head path is held to, in every workspace that is accepted.

#pragma once

#include <prospect/cpu/head.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <limits>
#include <regex>
#include <string>
#include <type_traits>
#include <vector>

#include "catch.hpp"
#include "closeness.hpp"
#include "cpu/head_cases.hpp"
#include "cpu/rows.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace testing {

using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::ignored_target;
using prospect::sequence_layout;
using prospect::cpu::eigen_gemm;
using prospect::cpu::gemm_operand;
using prospect::cpu::head_options;
using prospect::cpu::head_ticket;
using prospect::cpu::head_workspace;

inline constexpr std::int64_t plenty = std::int64_t{64} << 20;

/// The size that a refusal asks for; 0 if the call is accepted.
template <class Call>
std::int64_t needed_bytes(const Call& call) {
  const std::string message = testing::refusal(call);
  if (message == "accepted") return 0;
  REQUIRE(message.find("workspace") != std::string::npos);
  std::smatch found;
  REQUIRE(std::regex_search(message, found, std::regex{"(\\d+) are needed"}));
  return std::stoll(found[1]);
}

/// For the frozen head, or for log-probs and gradients one after the other.
template <class S, class Gemm = eigen_gemm>
std::int64_t least_bytes(head_case<S>& c, bool frozen, const Gemm& multiply = {}) {
  head_results<S> r{c.shape};
  head_workspace<compute_t<S>> none{1};
  return needed_bytes([&] {
    if (frozen) {
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                  none, c.options, multiply);
    } else {
      head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), none, true, c.options,
                     multiply);
    }
  });
}

/// Sizes from the least to plenty.
template <class S, class Gemm = eigen_gemm>
std::vector<std::int64_t> workspaces(head_case<S>& c, const Gemm& multiply = {}) {
  const std::int64_t least = least_bytes(c, false, multiply);
  if (least == 0) return {0, plenty};
  const auto row = (c.shape.vocabulary + 32) * static_cast<std::int64_t>(sizeof(compute_t<S>));
  return {least, least + least / 3, least + 16 * row, 2 * least + (c.shape.tokens / 2) * row,
          plenty};
}

template <class S>
inline constexpr double scores_tolerance = std::is_same_v<S, double> ? 1e-12 : 3e-5;
/// fp32 sums of products; what is stored in 16 bits is rounded on top.
template <class R>
inline constexpr double sum_tolerance = std::is_same_v<R, double> ? 1e-12 : 1e-5;
template <class S>
inline constexpr double stored_tolerance = sum_tolerance<S>;
template <>
inline constexpr double stored_tolerance<bfloat16> = 4e-3;
template <>
inline constexpr double stored_tolerance<float16> = 1e-3;

template <class S>
void check_scores(head_case<S>& c, head_results<S>& got, const head_answer& want) {
  std::int64_t wrong = 0;
  for (std::size_t t = 0; t < c.targets.size(); ++t) {
    const bool good =
        !c.scored(static_cast<std::int64_t>(t))
            ? same_bits(got.log_prob[t], compute_t<S>(0)) && same_bits(got.lse[t], 0.0) &&
                  same_bits(got.entropy[t], compute_t<S>(0))
            : testing::near(got.log_prob[t], want.log_prob[t], 0, scores_tolerance<S>) &&
                  testing::near(got.lse[t], want.lse[t], 0, scores_tolerance<S>) &&
                  testing::near(got.entropy[t], want.entropy[t], 0, scores_tolerance<S>);
    wrong += good ? 0 : 1;
  }
  CHECK(wrong == 0);
}

/// Rows without a gradient are 0, to the bit; nothing but the matrix was written.
template <class S>
void check_hidden(head_case<S>& c, head_results<S>& got, const std::vector<double>& want,
                  bool coefficients) {
  CHECK(testing::distance(got.hidden.elements(), want) <= stored_tolerance<S>);
  CHECK(got.hidden.padding_untouched());
  std::int64_t not_zero = 0;
  for (std::int64_t t = 0; t < c.shape.tokens; ++t) {
    const auto i = static_cast<std::size_t>(t);
    if (c.scored(t) && !(coefficients && c.d_token[i] == 0)) continue;
    for (std::int64_t k = 0; k < c.shape.width; ++k) {
      not_zero += prospect::load(got.hidden.at(t, k)) == 0 ? 0 : 1;
    }
  }
  CHECK(not_zero == 0);
}

/// `sums`: how far off sums over tokens may be, normwise, whose products may be of rounded numbers.
template <class S>
void check_gradients(head_case<S>& c, head_results<S>& got, const head_answer& want,
                     double sums = sum_tolerance<compute_t<S>>) {
  check_hidden(c, got, want.d_hidden, true);
  CHECK(testing::distance(got.weight.elements(), want.d_weight) <= sums);
  CHECK(testing::distance(got.bias.elements(), want.d_bias) <= sum_tolerance<compute_t<S>>);
  CHECK(got.weight.padding_untouched());
  CHECK(got.bias.only_elements_written());
  CHECK(testing::distance(got.lora_a.elements(), want.d_lora_a) <= sums);
  CHECK(testing::distance(got.lora_b.elements(), want.d_lora_b) <= sums);
  CHECK(got.lora_a.padding_untouched());
  CHECK(got.lora_b.padding_untouched());
}

/// c = a b or c += a b, in three loops.
struct naive_gemm {
  std::atomic<std::int64_t>* multiply_adds = nullptr;

  template <class R>
  void operator()(gemm_operand<R> a, gemm_operand<R> b, prospect::matrix_view<R> c,
                  bool accumulate) const {
    const auto at = [](const gemm_operand<R>& m, std::int64_t i, std::int64_t j) {
      return m.transposed ? m.matrix.row(j)[i] : m.matrix.row(i)[j];
    };
    const std::int64_t inner = a.transposed ? a.matrix.rows : a.matrix.columns;
    for (std::int64_t i = 0; i < c.rows; ++i) {
      for (std::int64_t j = 0; j < c.columns; ++j) {
        R sum = accumulate ? c.row(i)[j] : R(0);
        for (std::int64_t k = 0; k < inner; ++k) sum += at(a, i, k) * at(b, k, j);
        c.row(i)[j] = sum;
      }
    }
    if (multiply_adds != nullptr) *multiply_adds += c.rows * c.columns * inner;
  }
};

/// Sequences of any length, some empty, in groups.
inline std::vector<std::int64_t> any_offsets(random_source& random, std::int64_t tokens,
                                             std::int64_t sequences) {
  std::vector<std::int64_t> offsets{0, tokens};
  while (std::ssize(offsets) <= sequences) offsets.push_back(random.integer(0, tokens));
  std::sort(offsets.begin(), offsets.end());
  return offsets;
}

/// A trained head in one go; coefficients come group by group. False if the workspace is refused.
template <class S, class E, class Gemm = eigen_gemm>
bool run_step(head_case<S>& c, head_results<S>& r, const sequence_layout& layout,
              std::int64_t group, head_workspace<compute_t<S>>& workspace, E& on,
              const Gemm& multiply = {}) {
  using R = compute_t<S>;
  std::vector<R> d_token(c.d_token.size(), testing::poison<R>());
  std::int64_t next = 0, unscored = 0;
  const auto coefficients = [&](std::int64_t first, std::int64_t last) {
    CHECK(first == next);
    CHECK(last > first);
    CHECK((last - first) % group == 0);
    next = last;
    for (std::int64_t t = layout.begin(first); t < layout.end(last - 1); ++t) {
      const auto i = static_cast<std::size_t>(t);
      unscored += std::isnan(r.log_prob[i]) || std::isnan(r.lse[i]) ? 1 : 0;
      if (c.scored(t)) d_token[i] = c.d_token[i];
    }
  };
  try {
    head_step(c.hidden.view(), c.head(), c.targets, layout, group, r.scores(), coefficients,
              prospect::strided_span<const R>{d_token}, r.gradients(), workspace, c.options,
              multiply, on);
  } catch (const std::invalid_argument& error) {
    CHECK(std::string{error.what()}.find("workspace") != std::string::npos);
    return false;
  }
  CHECK(next == layout.sequences());
  CHECK(unscored == 0);
  return true;
}

enum class head_schedule { recomputed, kept, in_one_step, frozen };
inline constexpr head_schedule all_schedules[] = {head_schedule::recomputed, head_schedule::kept,
                                                  head_schedule::in_one_step,
                                                  head_schedule::frozen};
inline constexpr head_schedule trained_schedules[] = {
    head_schedule::recomputed, head_schedule::kept, head_schedule::in_one_step};

/// A case in plenty of memory: scores into `r`, gradients into `g` or, the frozen head's, into `r`.
template <class S, class Gemm = eigen_gemm>
void run(head_case<S>& c, head_results<S>& r, head_schedule schedule,
         const prospect::head_gradients<S>& g, const Gemm& multiply = {}) {
  using R = compute_t<S>;
  head_workspace<R> workspace{plenty};
  prospect::serial_executor on;
  if (schedule == head_schedule::frozen) {
    head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                workspace, c.options, multiply, on);
  } else if (schedule == head_schedule::in_one_step) {
    head_step(
        c.hidden.view(), c.head(), c.targets, sequence_layout::padded(c.shape.tokens, 1), 1,
        r.scores(), [](std::int64_t, std::int64_t) {}, prospect::strided_span<const R>{c.d_token},
        g, workspace, c.options, multiply, on);
  } else {
    const head_ticket ticket =
        head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace,
                       schedule == head_schedule::kept, c.options, multiply, on);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, g, ticket,
                  workspace, c.options, multiply, on);
  }
}

/// How often a schedule took which way: the cases of a test are to reach all of them.
struct ways_taken {
  std::int64_t none_kept = 0, some_kept = 0, all_kept = 0, refused_steps = 0;
};

/// Every schedule in every workspace leaves what the textbook does.
template <class S, class Gemm = eigen_gemm>
void check_schedules(random_source& random, head_case<S>& c, prospect::thread_pool& pool,
                     ways_taken& ways, const Gemm& multiply = {},
                     double sums = sum_tolerance<compute_t<S>>) {
  using R = compute_t<S>;
  const head_answer want{c};
  const auto scored = static_cast<std::int64_t>(c.targets.size()) -
                      std::count(c.targets.begin(), c.targets.end(), ignored_target);
  CAPTURE(c.shape.tokens, c.shape.width, c.shape.vocabulary, c.shape.rank, c.bias.empty());
  const auto offsets = any_offsets(random, c.shape.tokens, 8);
  const auto layout = sequence_layout::packed(offsets);
  const auto hidden = c.hidden.view();
  head_results<S> first{c.shape};
  for (const std::int64_t bytes : workspaces(c, multiply)) {
    CAPTURE(bytes);
    head_workspace<R> workspace{bytes};
    for (const bool keep : {false, true}) {
      CAPTURE(keep);
      head_results<S> r{c.shape};
      const head_ticket ticket = head_log_probs(hidden, c.head(), c.targets, r.scores(), workspace,
                                                keep, c.options, multiply, pool);
      check_scores(c, r, want);
      if (std::isnan(first.log_prob.empty() ? R(0) : first.log_prob[0])) first = r;
      CHECK(same_bits(r.log_prob, first.log_prob));
      CHECK(same_bits(r.lse, first.lse));
      CHECK(ticket.kept() <= scored);
      if (!keep) CHECK(ticket.kept() == 0);
      if (keep && scored > 0) {
        ++(ticket.kept() == 0       ? ways.none_kept
           : ticket.kept() < scored ? ways.some_kept
                                    : ways.all_kept);
      }
      head_gradient(hidden, c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                    ticket, workspace, c.options, multiply, pool);
      check_gradients(c, r, want, sums);
      CHECK(ticket.kept() == 0);
    }
    if (head_results<S> r{c.shape}; bytes >= least_bytes(c, true, multiply)) {
      head_log_probs_and_gradient(hidden, c.head(), c.targets, r.scores(), r.hidden.view(),
                                  workspace, c.options, multiply, pool);
      check_scores(c, r, want);
      CHECK(same_bits(r.log_prob, first.log_prob));
      check_hidden(c, r, want.d_hidden_unit, false);
    }
    for (const std::int64_t group : {1, 2, 4}) {
      head_results<S> r{c.shape};
      if (!run_step(c, r, layout, group, workspace, pool, multiply)) {
        ++ways.refused_steps;
        continue;
      }
      CAPTURE(group);
      check_scores(c, r, want);
      CHECK(same_bits(r.log_prob, first.log_prob));
      check_gradients(c, r, want, sums);
    }
  }
}

struct head_variant {
  bool bias;
  head_options options;
};
inline const std::vector<head_variant> variants{{false, {}},
                                                {true, {.temperature = 0.7}},
                                                {true, {.temperature = 1.3, .soft_cap = 5}},
                                                {false, {.soft_cap = 30}}};

/// The same of several shapes, in turn with one variant after another; every way is to be taken.
template <class S, class Gemm = eigen_gemm>
void check_shapes(random_source& random, const std::vector<head_shape>& shapes,
                  const Gemm& multiply = {}, double sums = sum_tolerance<compute_t<S>>) {
  prospect::thread_pool pool{3};
  ways_taken ways;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const head_variant& variant = variants[i % variants.size()];
    head_case<S> c{random, shapes[i], variant.bias, variant.options};
    check_schedules(random, c, pool, ways, multiply, sums);
  }
  CHECK(ways.none_kept > 0);
  CHECK(ways.some_kept > 0);
  CHECK(ways.all_kept > 0);
  CHECK(ways.refused_steps > 0);
}

}  // namespace testing
