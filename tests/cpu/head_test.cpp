// The head path against the textbook: every schedule, for any workspace that is accepted, leaves
// the same log-probs and gradients.

#include <prospect/cpu/head.hpp>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
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
#include "executors.hpp"
#include "random.hpp"
#include "refusals.hpp"

namespace {

using prospect::bfloat16;
using prospect::compute_t;
using prospect::float16;
using prospect::ignored_target;
using prospect::sequence_layout;
using prospect::cpu::eigen_gemm;
using prospect::cpu::gemm_operand;
using prospect::cpu::head_gradient;
using prospect::cpu::head_gradients;
using prospect::cpu::head_log_probs;
using prospect::cpu::head_log_probs_and_gradient;
using prospect::cpu::head_options;
using prospect::cpu::head_step;
using prospect::cpu::head_workspace;
using testing::head_answer;
using testing::head_case;
using testing::head_results;
using testing::head_shape;
using testing::random_source;
using testing::same_bits;

constexpr std::int64_t plenty = std::int64_t{64} << 20;

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

template <class S>
std::int64_t least_bytes(head_case<S>& c, bool frozen) {
  head_results<S> r{c.shape};
  head_workspace<compute_t<S>> none{1};
  return needed_bytes([&] {
    if (frozen) {
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                  none, c.options);
    } else {
      head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), none, false, c.options);
    }
  });
}

/// Sizes from the least to plenty.
template <class S>
std::vector<std::int64_t> workspaces(head_case<S>& c) {
  const std::int64_t least = least_bytes(c, false);
  if (least == 0) return {0, plenty};
  const auto row = (c.shape.vocabulary + 32) * static_cast<std::int64_t>(sizeof(compute_t<S>));
  return {least, least + least / 3, least + 16 * row, 2 * least + (c.shape.tokens / 2) * row,
          plenty};
}

template <class S>
constexpr double scores_tolerance = std::is_same_v<S, double> ? 1e-12 : 3e-5;
/// fp32 sums of products; what is stored in 16 bits is rounded on top.
template <class R>
constexpr double sum_tolerance = std::is_same_v<R, double> ? 1e-12 : 1e-5;
template <class S>
constexpr double stored_tolerance = sum_tolerance<S>;
template <>
constexpr double stored_tolerance<bfloat16> = 4e-3;
template <>
constexpr double stored_tolerance<float16> = 1e-3;

template <class S>
void check_scores(head_case<S>& c, head_results<S>& got, const head_answer& want) {
  std::int64_t wrong = 0;
  for (std::size_t t = 0; t < c.targets.size(); ++t) {
    const bool good =
        c.targets[t] == ignored_target
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
    if (c.targets[i] != ignored_target && !(coefficients && c.d_token[i] == 0)) continue;
    for (std::int64_t k = 0; k < c.shape.width; ++k) {
      not_zero += prospect::load(got.hidden.at(t, k)) == 0 ? 0 : 1;
    }
  }
  CHECK(not_zero == 0);
}

template <class S>
void check_gradients(head_case<S>& c, head_results<S>& got, const head_answer& want) {
  using R = compute_t<S>;
  check_hidden(c, got, want.d_hidden, true);
  CHECK(testing::distance(got.weight.elements(), want.d_weight) <= sum_tolerance<R>);
  CHECK(testing::distance(got.bias.elements(), want.d_bias) <= sum_tolerance<R>);
  CHECK(got.weight.padding_untouched());
  CHECK(got.bias.only_elements_written());
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
std::vector<std::int64_t> any_offsets(random_source& random, std::int64_t tokens,
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
      if (c.targets[i] != ignored_target) d_token[i] = c.d_token[i];
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

struct head_variant {
  bool bias;
  head_options options;
};
const std::vector<head_variant> variants{{false, {}},
                                         {true, {.temperature = 0.7}},
                                         {true, {.temperature = 1.3, .soft_cap = 5}},
                                         {false, {.soft_cap = 30}}};

const std::vector<head_shape> shapes{{0, 7, 5},      {1, 1, 1},      {1, 64, 1024},
                                     {9, 7, 5},      {9, 1, 2500},   {9, 64, 1025},
                                     {300, 7, 1024}, {33, 7, 17000}, {300, 64, 2500}};

}  // namespace

TEMPLATE_TEST_CASE("every schedule of the head path, in every workspace", "[head]", float, double,
                   bfloat16, float16) {
  using R = compute_t<TestType>;
  random_source random{701};
  CAPTURE(random.seed());
  prospect::thread_pool pool{3};
  std::int64_t none_kept = 0, some_kept = 0, all_kept = 0, refused_steps = 0;
  for (std::size_t i = 0; i < shapes.size(); ++i) {
    const head_variant& variant = variants[i % variants.size()];
    head_case<TestType> c{random, shapes[i], variant.bias, variant.options};
    const head_answer want{c};
    const auto scored = static_cast<std::int64_t>(
        c.targets.size() -
        static_cast<std::size_t>(std::count(c.targets.begin(), c.targets.end(), ignored_target)));
    CAPTURE(c.shape.tokens, c.shape.width, c.shape.vocabulary, variant.bias);
    const auto offsets = any_offsets(random, c.shape.tokens, 8);
    const auto layout = sequence_layout::packed(offsets);
    const auto hidden = c.hidden.view();
    head_results<TestType> first{c.shape};
    for (const std::int64_t bytes : workspaces(c)) {
      CAPTURE(bytes);
      head_workspace<R> workspace{bytes};
      for (const bool keep : {false, true}) {
        CAPTURE(keep);
        head_results<TestType> r{c.shape};
        head_log_probs(hidden, c.head(), c.targets, r.scores(), workspace, keep, c.options, {},
                       pool);
        check_scores(c, r, want);
        if (std::isnan(first.log_prob.empty() ? R(0) : first.log_prob[0])) first = r;
        CHECK(same_bits(r.log_prob, first.log_prob));
        CHECK(same_bits(r.lse, first.lse));
        CHECK(workspace.kept() <= scored);
        if (!keep) CHECK(workspace.kept() == 0);
        if (keep && scored > 0) {
          ++(workspace.kept() == 0 ? none_kept : workspace.kept() < scored ? some_kept : all_kept);
        }
        head_gradient(hidden, c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                      workspace, c.options, {}, pool);
        check_gradients(c, r, want);
        CHECK(workspace.kept() == 0);
      }
      if (head_results<TestType> r{c.shape}; bytes >= least_bytes(c, true)) {
        head_log_probs_and_gradient(hidden, c.head(), c.targets, r.scores(), r.hidden.view(),
                                    workspace, c.options, {}, pool);
        check_scores(c, r, want);
        CHECK(same_bits(r.log_prob, first.log_prob));
        check_hidden(c, r, want.d_hidden_unit, false);
      }
      for (const std::int64_t group : {1, 2, 4}) {
        head_results<TestType> r{c.shape};
        if (!run_step(c, r, layout, group, workspace, pool)) {
          ++refused_steps;
          continue;
        }
        CAPTURE(group);
        check_scores(c, r, want);
        CHECK(same_bits(r.log_prob, first.log_prob));
        check_gradients(c, r, want);
      }
    }
  }
  // The list reaches every case.
  CHECK(none_kept > 0);
  CHECK(some_kept > 0);
  CHECK(all_kept > 0);
  CHECK(refused_steps > 0);
}

TEMPLATE_TEST_CASE("the frozen head follows logits that change by far over the vocabulary",
                   "[head]", float, double) {
  random_source random{707};
  CAPTURE(random.seed());
  const std::int64_t vocabulary = 6000;
  enum { rising, falling, late, confident };
  for (const int kind : {rising, falling, late, confident}) {
    CAPTURE(kind);
    head_case<TestType> c{random, {50, 24, vocabulary}, true};
    for (std::int64_t v = 0; v < vocabulary; ++v) {
      auto& bias = c.bias[static_cast<std::size_t>(v)];
      const double share = static_cast<double>(v) / static_cast<double>(vocabulary);
      if (kind == rising) bias += static_cast<TestType>(90 * share);
      if (kind == falling) bias -= static_cast<TestType>(90 * share);
      if (kind == late && v < 2100) bias = -std::numeric_limits<TestType>::infinity();
      if (kind == confident && v == 3000) bias += 25;
    }
    for (auto& target : c.targets) {
      if (target == ignored_target) continue;
      if (kind == confident) target = 3000;
      // Half of them at the only logit of their tile that counts.
      if (kind == late) target = target % 2 == 0 ? 7 : std::max<std::int64_t>(target, 2100);
    }
    if (kind == late) c.bias[7] = 0;
    const head_answer want{c};
    head_results<TestType> first{c.shape};
    for (const std::int64_t bytes : {least_bytes(c, false), 4 * least_bytes(c, false), plenty}) {
      CAPTURE(bytes);
      head_workspace<TestType> workspace{bytes};
      head_results<TestType> r{c.shape};
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(), r.hidden.view(),
                                  workspace);
      check_scores(c, r, want);
      check_hidden(c, r, want.d_hidden_unit, false);
      if (bytes == least_bytes(c, false)) first = r;
      CHECK(same_bits(r.hidden.elements(), first.hidden.elements()));
    }
  }
}

TEMPLATE_TEST_CASE("no executor shows in what the head path leaves", "[head][invariance]", float,
                   bfloat16) {
  using R = compute_t<TestType>;
  random_source random{702};
  CAPTURE(random.seed());
  head_case<TestType> c{random, {40, 520, 2100}, true, {.temperature = 0.9}};
  const auto offsets = any_offsets(random, 40, 6);
  const auto layout = sequence_layout::packed(offsets);
  for (const std::int64_t bytes : {least_bytes(c, false) * 2, plenty}) {
    CAPTURE(bytes);
    const auto run = [&](auto& on) {
      std::vector<head_results<TestType>> all;
      for (const bool keep : {false, true}) {
        head_workspace<R> workspace{bytes};
        auto& r = all.emplace_back(c.shape);
        head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep, c.options,
                       {}, on);
        head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                      r.gradients(), workspace, c.options, {}, on);
      }
      head_workspace<R> workspace{plenty};
      auto& step = all.emplace_back(c.shape);
      REQUIRE(run_step(c, step, layout, 2, workspace, on));
      auto& frozen = all.emplace_back(c.shape);
      head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, frozen.scores(),
                                  frozen.hidden.view(), workspace, c.options, {}, on);
      return all;
    };
    prospect::serial_executor serial;
    auto want = run(serial);
    testing::with_each_executor([&](const std::string& name, auto& on) {
      CAPTURE(name);
      auto got = run(on);
      for (std::size_t i = 0; i < want.size(); ++i) CHECK(got[i].same_as(want[i]));
    });
  }
}

TEMPLATE_TEST_CASE("a token's log-prob is the same bits alone and in any batch",
                   "[head][invariance]", float, double, bfloat16) {
  using R = compute_t<TestType>;
  random_source random{703};
  CAPTURE(random.seed());
  for (const head_shape shape :
       {head_shape{21, 1, 1}, head_shape{21, 1, 3}, head_shape{30, 7, 5}, head_shape{40, 64, 1025},
        head_shape{21, 700, 130}, head_shape{21, 3, 2049}, head_shape{70, 4, 2},
        head_shape{70, 8, 3}, head_shape{70, 8, 1027}, head_shape{70, 8, 2050}}) {
    CAPTURE(shape.width, shape.vocabulary);
    head_case<TestType> c{random, shape, true};
    head_workspace<R> workspace{plenty};
    head_results<TestType> together{shape};
    head_log_probs(c.hidden.view(), c.head(), c.targets, together.scores(), workspace);
    testing::logits_matrix<TestType> d_together{shape.tokens, shape.width, 0, 0};
    head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, {}, d_together.view(),
                                workspace);
    for (std::int64_t first = 0; first < shape.tokens;) {
      const std::int64_t n = std::min(shape.tokens - first, random.integer(1, 17));
      const prospect::matrix_view<const TestType> part{c.hidden.view().row(first), n, shape.width,
                                                       c.hidden.view().pitch};
      const auto i = static_cast<std::size_t>(first), size = static_cast<std::size_t>(n);
      const std::vector<std::int64_t> targets(c.targets.begin() + first,
                                              c.targets.begin() + first + n);
      std::vector<R> log_prob(size, testing::poison<R>());
      std::vector<double> lse(size, testing::poison<double>());
      head_log_probs(part, c.head(), targets, {.log_prob = log_prob, .lse = lse}, workspace);
      for (std::size_t t = 0; t < size; ++t) {
        CAPTURE(first, t, n);
        CHECK(same_bits(log_prob[t], together.log_prob[i + t]));
        CHECK(same_bits(lse[t], together.lse[i + t]));
      }
      testing::logits_matrix<TestType> d_alone{n, shape.width, 0, 0};
      head_log_probs_and_gradient(part, c.head(), targets, {}, d_alone.view(), workspace);
      bool same = true;
      for (std::int64_t t = 0; t < n; ++t) {
        for (std::int64_t k = 0; k < shape.width; ++k) {
          same = same && same_bits(d_alone.at(t, k), d_together.at(first + t, k));
        }
      }
      CHECK(same);
      first += n;
    }
  }
}

TEST_CASE("gradients of the head path are those of finite differences", "[head]") {
  random_source random{704};
  CAPTURE(random.seed());
  for (const head_variant& variant : variants) {
    head_case<double> c{random, {6, 3, 7}, true, variant.options};
    head_workspace<double> workspace{plenty};
    head_results<double> r{c.shape};
    const auto loss = [&] {
      head_results<double> scores{c.shape};
      head_log_probs(c.hidden.view(), c.head(), c.targets, scores.scores(), workspace, false,
                     c.options);
      double sum = 0;
      for (std::size_t t = 0; t < c.targets.size(); ++t) {
        if (c.targets[t] != ignored_target) sum += c.d_token[t] * scores.log_prob[t];
      }
      return sum;
    };
    head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, true, c.options);
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  workspace, c.options);
    const auto slope = [&](double& x) {
      const double here = x, h = 1e-5;
      x = here + h;
      const double above = loss();
      x = here - h;
      const double below = loss();
      x = here;
      return (above - below) / (2 * h);
    };
    for (std::int64_t k = 0; k < c.shape.width; ++k) {
      for (std::int64_t t = 0; t < c.shape.tokens; ++t) {
        if (c.targets[static_cast<std::size_t>(t)] == ignored_target) continue;
        CHECK(testing::near(r.hidden.at(t, k), slope(c.hidden.at(t, k)), 1e-7L, 1e-8L));
      }
      for (std::int64_t v = 0; v < c.shape.vocabulary; ++v) {
        CHECK(testing::near(r.weight.at(v, k), slope(c.weight.at(v, k)), 1e-7L, 1e-8L));
      }
    }
    for (std::int64_t v = 0; v < c.shape.vocabulary; ++v) {
      CHECK(testing::near(r.bias[v], slope(c.bias[static_cast<std::size_t>(v)]), 1e-7L, 1e-8L));
    }
  }
}

TEMPLATE_TEST_CASE("weight and bias gradients add to what is there, if asked", "[head]", float,
                   bfloat16) {
  using R = compute_t<TestType>;
  random_source random{705};
  CAPTURE(random.seed());
  // With tokens, with masked ones only, with none.
  for (const auto& [tokens, masked] :
       {std::pair<std::int64_t, double>{40, 0.2}, {5, 1.0}, {0, 0.0}}) {
    head_case<TestType> c{random, {tokens, 7, 1100}, false, {}, masked};
    const head_answer want{c};
    for (const std::int64_t bytes : {std::max<std::int64_t>(least_bytes(c, false), 1), plenty}) {
      for (const bool step : {false, true}) {
        for (const bool accumulate : {false, true}) {
          CAPTURE(tokens, masked, bytes, step, accumulate);
          head_workspace<R> workspace{step ? plenty : bytes};
          head_results<TestType> r{c.shape};
          std::vector<double> weight = want.d_weight, bias = want.d_bias;
          for (std::int64_t v = 0; accumulate && v < 1100; ++v) {
            const auto i = static_cast<std::size_t>(v);
            r.bias[v] = static_cast<R>(random.normal(1));
            bias[i] += static_cast<double>(r.bias[v]);
            for (std::int64_t k = 0; k < 7; ++k) {
              r.weight.at(v, k) = static_cast<R>(random.normal(1));
              weight[i * 7 + static_cast<std::size_t>(k)] += static_cast<double>(r.weight.at(v, k));
            }
          }
          if (step) {
            head_step(
                c.hidden.view(), c.head(), c.targets, sequence_layout::padded(tokens, 1), 1,
                r.scores(), [](std::int64_t, std::int64_t) {},
                prospect::strided_span<const R>{c.d_token}, r.gradients(accumulate), workspace);
          } else {
            head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, true);
            head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                          r.gradients(accumulate), workspace);
          }
          CHECK(testing::distance(r.weight.elements(), weight) <= sum_tolerance<R>);
          CHECK(testing::distance(r.bias.elements(), bias) <= sum_tolerance<R>);
          CHECK(r.weight.padding_untouched());
          check_hidden(c, r, want.d_hidden, true);
        }
      }
    }
  }
}

TEST_CASE("a gradient that is not wanted is not written, and the others are", "[head]") {
  random_source random{706};
  head_case<float> c{random, {20, 7, 1500}, true};
  const head_answer want{c};
  for (const bool keep : {false, true}) {
    for (int wanted = 0; wanted < 8; ++wanted) {
      CAPTURE(keep, wanted);
      head_results<float> r{c.shape};
      head_gradients<float> g = r.gradients();
      if (!(wanted & 1)) g.hidden = {};
      if (!(wanted & 2)) g.weight = {};
      if (!(wanted & 4)) g.bias = {};
      head_workspace<float> workspace{plenty};
      head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
      head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, g,
                    workspace);
      head_results<float> untouched{c.shape};
      if (wanted & 1) {
        check_hidden(c, r, want.d_hidden, true);
      } else {
        CHECK(same_bits(r.hidden.elements(), untouched.hidden.elements()));
      }
      if (wanted & 2) {
        CHECK(testing::distance(r.weight.elements(), want.d_weight) <= 1e-5);
      } else {
        CHECK(same_bits(r.weight.elements(), untouched.weight.elements()));
      }
      if (wanted & 4) {
        CHECK(testing::distance(r.bias.elements(), want.d_bias) <= 1e-5);
      } else {
        CHECK(same_bits(r.bias.elements(), untouched.bias.elements()));
      }
    }
  }
  // Scores may be left out as well, kept gradients or not.
  for (const bool keep : {false, true}) {
    head_results<float> all{c.shape}, r{c.shape};
    head_workspace<float> workspace{plenty};
    head_log_probs(c.hidden.view(), c.head(), c.targets, all.scores(), workspace);
    head_log_probs(c.hidden.view(), c.head(), c.targets, {.entropy = r.entropy}, workspace, keep);
    CHECK(same_bits(r.entropy, all.entropy));
    head_gradient(c.hidden.view(), c.head(), c.targets, all.log_prob, all.lse, c.d_token,
                  r.gradients(), workspace);
    check_gradients(c, r, want);
  }
}

TEST_CASE("a coefficient of 0 keeps a token out, whatever its hidden state", "[head]") {
  random_source random{707};
  head_case<float> c{random, {24, 7, 1030}, false, {}, 0};
  c.d_token[5] = 0;
  const head_answer want{c};
  c.hidden.fill_row(5, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  for (const bool keep : {false, true}) {
    CAPTURE(keep);
    head_results<float> r{c.shape};
    head_workspace<float> workspace{plenty};
    head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
    CHECK(std::isnan(r.log_prob[5]));
    head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                  workspace);
    check_gradients(c, r, want);
  }
  head_results<float> r{c.shape};
  head_workspace<float> workspace{plenty};
  head_step(
      c.hidden.view(), c.head(), c.targets, sequence_layout::padded(24, 1), 1, r.scores(),
      [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{c.d_token},
      r.gradients(), workspace);
  check_gradients(c, r, want);
}

TEST_CASE("kept gradients serve the batch they were made from, once", "[head][errors]") {
  random_source random{731};
  head_case<float> c{random, {20, 8, 30}, true};
  head_workspace<float> workspace{plenty};
  head_results<float> r{c.shape};
  const auto forward = [&] {
    head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, true);
  };
  const auto backward = [&](const std::vector<std::int64_t>& targets) {
    prospect::cpu::head_gradient<float>(c.hidden.view(), c.head(), targets, r.log_prob, r.lse,
                                        c.d_token, {.weight = r.weight.view()}, workspace);
  };
  forward();
  REQUIRE(workspace.kept() > 0);
  auto others = c.targets;
  std::rotate(others.begin(), others.begin() + 1, others.end());
  CHECK(testing::refuses("workspace", [&] { backward(others); }));
  backward(c.targets);
  CHECK(workspace.kept() == 0);
  const auto once = r.weight.elements();
  backward(c.targets);  // computed again
  const auto twice = r.weight.elements();
  for (std::size_t i = 0; i < once.size(); ++i) {
    REQUIRE(testing::near(twice[i], once[i], 1e-4L, 1e-6L));
  }
}

TEST_CASE("a token that is NaN spoils no other token's numbers", "[head]") {
  random_source random{708};
  head_case<float> c{random, {24, 7, 1030}, false, {}, 0};
  const head_answer want{c};
  c.hidden.fill_row(5, [](std::int64_t) { return std::numeric_limits<double>::quiet_NaN(); });
  head_results<float> r{c.shape};
  head_workspace<float> workspace{plenty};
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, true);
  head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                workspace);
  for (std::int64_t t = 0; t < 24; ++t) {
    const auto i = static_cast<std::size_t>(t);
    CAPTURE(t);
    CHECK(std::isnan(r.log_prob[i]) == (t == 5));
    for (std::int64_t k = 0; k < 7; ++k) {
      if (t == 5) {
        CHECK(std::isnan(r.hidden.at(t, k)));
      } else {
        CHECK(testing::near(r.hidden.at(t, k), want.d_hidden[i * 7 + static_cast<std::size_t>(k)],
                            1e-4L, 1e-5L));
      }
    }
  }
}

TEST_CASE("a GEMM of the caller's own, and how much it is asked to do", "[head]") {
  random_source random{709};
  CAPTURE(random.seed());
  head_case<float> c{random, {72, 9, 1200}, true, {}, 0};  // a multiple of the rows' padding
  for (float& d : c.d_token) d = d == 0 ? 1.0F : d;
  const head_answer want{c};
  std::atomic<std::int64_t> work{0};
  const naive_gemm multiply{&work};
  const double unit = 72.0 * 9 * 1200;
  const auto products = [&] { return static_cast<double>(work.exchange(0)) / unit; };
  prospect::thread_pool pool{2};

  head_results<float> r{c.shape};
  head_workspace<float> workspace{plenty};
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, false, c.options,
                 multiply, pool);
  CHECK(products() == 1);
  check_scores(c, r, want);
  head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token, r.gradients(),
                workspace, c.options, multiply, pool);
  CHECK(products() == 3);
  check_gradients(c, r, want);

  // 4 - f in all where a share f was kept.
  std::int64_t partly = 0;
  const std::int64_t least = least_bytes(c, false);
  for (const std::int64_t bytes : {least, 2 * least, 4 * least, plenty}) {
    head_workspace<float> elastic{bytes};
    head_results<float> s{c.shape};
    head_log_probs(c.hidden.view(), c.head(), c.targets, s.scores(), elastic, true, c.options,
                   multiply, pool);
    const double share = static_cast<double>(elastic.kept()) / 72;
    partly += share > 0 && share < 1 ? 1 : 0;
    head_gradient(c.hidden.view(), c.head(), c.targets, s.log_prob, s.lse, c.d_token, s.gradients(),
                  elastic, c.options, multiply, pool);
    CAPTURE(bytes, share);
    CHECK_THAT(products(), WithinAbs(4 - share, 1e-9));
    check_gradients(c, s, want);
  }
  CHECK(partly > 0);

  head_results<float> frozen{c.shape};
  head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, frozen.scores(),
                              frozen.hidden.view(), workspace, c.options, multiply, pool);
  CHECK(products() == 2);
  check_hidden(c, frozen, want.d_hidden_unit, false);

  head_results<float> step{c.shape};
  CHECK(run_step(c, step, sequence_layout::padded(4, 18), 2, workspace, pool, multiply));
  CHECK(products() == 3);
  check_gradients(c, step, want);

  // Masked tokens take no part.
  for (std::size_t t = 24; t < 72; ++t) c.targets[t] = ignored_target;
  head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, false, c.options,
                 multiply, pool);
  CHECK_THAT(products(), WithinAbs(24.0 / 72, 1e-12));
}

TEST_CASE("a workspace that is too small is refused with the size that is enough",
          "[head][errors]") {
  random_source random{710};
  for (const head_shape shape : {head_shape{1, 1, 1}, {9, 64, 1025}, {100, 7, 5000}}) {
    head_case<bfloat16> c{random, shape, false, {}, 0};
    CAPTURE(shape.tokens, shape.vocabulary);
    for (const bool frozen : {false, true}) {
      const std::int64_t least = least_bytes(c, frozen);
      CHECK(least > 0);
      for (const std::int64_t bytes : {std::int64_t{-5}, std::int64_t{0}, least - 1, least}) {
        CAPTURE(frozen, bytes, least);
        head_results<bfloat16> r{shape}, untouched{shape};
        head_workspace<float> workspace{bytes};
        const auto call = [&](bool keep) {
          if (frozen) {
            head_log_probs_and_gradient(c.hidden.view(), c.head(), c.targets, r.scores(),
                                        r.hidden.view(), workspace);
          } else {
            head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(), workspace, keep);
          }
        };
        for (const bool keep : {false, true}) {
          CHECK(needed_bytes([&] { call(keep); }) == (bytes < least ? least : 0));
          if (bytes < least) CHECK(r.same_as(untouched));
        }
      }
    }
  }
}

TEST_CASE("a step whose groups do not fit is refused before any work", "[head][errors]") {
  random_source random{711};
  head_case<float> c{random, {40, 7, 1100}, true, {}, 0};
  // The last pair is the longest.
  const std::vector<std::int64_t> offsets{0, 3, 6, 20, 40};
  const auto layout = sequence_layout::packed(offsets);
  const auto bytes = [&] {
    head_workspace<float> none{1};
    head_results<float> r{c.shape};
    return needed_bytes([&] {
      head_step(
          c.hidden.view(), c.head(), c.targets, layout, 2, r.scores(),
          [](std::int64_t, std::int64_t) {}, prospect::strided_span<const float>{c.d_token},
          r.gradients(), none);
    });
  }();
  prospect::serial_executor on;
  head_results<float> r{c.shape}, untouched{c.shape};
  // Enough for eight tokens, or for the thirty-four of the last pair.
  if (head_workspace<float> workspace{bytes}; !run_step(c, r, layout, 2, workspace, on)) {
    CHECK(r.same_as(untouched));
  }
}

TEST_CASE("arguments of the head path are refused by name", "[head][errors]") {
  random_source random{712};
  head_case<float> c{random, {6, 4, 9}, true, {}, 0};
  head_results<float> r{c.shape}, untouched{c.shape};
  head_workspace<float> workspace{plenty};
  using prospect::matrix_view;
  const auto h = c.hidden.view();
  const matrix_view<float> fewer_rows{h.data, 5, 4, h.pitch}, narrow{h.data, 6, 3, h.pitch};
  const matrix_view<float> bad_pitch{h.data, 6, 4, 3};
  const std::vector<float> five(5, 1.0F), six(6, 1.0F);
  const std::vector<double> lse(6), five_lse(5);
  std::vector<float> out_five(5);
  const auto layout = sequence_layout::padded(3, 2);
  const prospect::strided_span<const float> d{six};
  const auto nothing = [](std::int64_t, std::int64_t) {};

  const auto log_probs = [&](matrix_view<const float> hidden, prospect::cpu::lm_head<float> head,
                             std::vector<std::int64_t> targets, head_options options = {}) {
    return testing::refusal(
        [&] { head_log_probs(hidden, head, targets, r.scores(), workspace, false, options); });
  };
  const auto backward = [&](const head_gradients<float>& g, std::size_t rows = 6) {
    return testing::refusal([&] {
      head_gradient(h, c.head(), c.targets, rows == 6 ? six : five, lse, six, g, workspace);
    });
  };
  const auto step = [&](const sequence_layout& l, std::int64_t group,
                        const prospect::token_outputs<float>& out) {
    return testing::refusal([&] {
      head_step(h, c.head(), c.targets, l, group, out, nothing, d, r.gradients(), workspace);
    });
  };
  const auto names = [](const std::string& message, const std::string& argument) {
    CAPTURE(message, argument);
    CHECK(message.find("prospect: " + argument) != std::string::npos);
  };
  names(log_probs(fewer_rows, c.head(), c.targets), "targets");
  names(log_probs(narrow, c.head(), c.targets), "head.weight");
  names(log_probs(bad_pitch, c.head(), c.targets), "hidden.pitch");
  names(log_probs(h, {.weight = c.weight.view(), .bias = five}, c.targets), "head.bias");
  names(log_probs(h, {.weight = {c.weight.view().data, 9, 4, 2}}, c.targets), "head.weight.pitch");
  auto targets = c.targets;
  for (const std::int64_t bad : {std::int64_t{9}, std::int64_t{-1}, std::int64_t{1} << 32}) {
    targets[3] = bad;
    names(log_probs(h, c.head(), targets), "targets[3]");
    names(log_probs(h, c.head(), targets), "targets[3] = " + std::to_string(bad));
  }
  names(log_probs(h, c.head(), c.targets, {.temperature = 0}), "temperature");
  names(log_probs(h, c.head(), c.targets, {.soft_cap = -1}), "soft_cap");
  names(testing::refusal(
            [&] { head_log_probs(h, c.head(), c.targets, {.log_prob = out_five}, workspace); }),
        "log_prob");
  names(backward(r.gradients(), 5), "log_prob");
  names(testing::refusal([&] {
          head_gradient(h, c.head(), c.targets, six, five_lse, six, r.gradients(), workspace);
        }),
        "lse");
  names(testing::refusal([&] {
          head_gradient(h, c.head(), c.targets, six, lse, five, r.gradients(), workspace);
        }),
        "d_token");
  auto g = r.gradients();
  g.hidden.rows = 5;
  names(backward(g), "gradients.hidden");
  g = r.gradients();
  g.weight.columns = 3;
  names(backward(g), "gradients.weight");
  g = r.gradients();
  g.bias = out_five;
  names(backward(g), "gradients.bias");
  names(step(sequence_layout::padded(2, 2), 1, r.scores()), "layout");
  for (const std::int64_t bad : {0, -1, 2}) names(step(layout, bad, r.scores()), "group");
  names(step(layout, 1, {.log_prob = r.log_prob}), "lse");
  names(step(layout, 1, {.lse = r.lse}), "log_prob");
  CHECK(r.same_as(untouched));

  // Gradients that were kept for more tokens than there are.
  head_log_probs(h, c.head(), c.targets, r.scores(), workspace, true);
  REQUIRE(workspace.kept() == 6);
  std::vector<std::int64_t> masked(6, ignored_target);
  names(testing::refusal([&] {
          head_gradient(h, c.head(), masked, r.log_prob, r.lse, six, r.gradients(), workspace);
        }),
        "workspace");
}
