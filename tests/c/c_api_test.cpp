// The C surface against the C++ one, loss by loss and dtype by dtype, and against hostile callers:
// other struct versions, bad pointers, sizes, dtypes, kinds. Nothing may be written on failure.
#include "catch.hpp"
#include "cpu/cases.hpp"
#include "random.hpp"

#include <prospect/c/prospect.h>
#include <kernels/loops.hpp>
#include <prospect/class_weights.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/cpu/tokens.hpp>
#include <prospect/losses/losses.hpp>

#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

namespace {

using testing::random_source;
using testing::same_bits;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

template <class S>
constexpr prospect_dtype dtype_of() {
  if constexpr (std::same_as<S, float>) return PROSPECT_F32;
  if constexpr (std::same_as<S, double>) return PROSPECT_F64;
  if constexpr (std::same_as<S, prospect::float16>) return PROSPECT_F16;
  if constexpr (std::same_as<S, prospect::bfloat16>) return PROSPECT_BF16;
  if constexpr (std::same_as<S, std::int32_t>) return PROSPECT_I32;
  if constexpr (std::same_as<S, std::int64_t>) return PROSPECT_I64;
}

template <class T>
prospect_const_row in(const std::vector<T>& v, std::int64_t stride = 1) {
  return {v.data(), static_cast<std::int64_t>(v.size()) / stride, stride};
}
template <class T>
prospect_row out(std::vector<T>& v, std::int64_t stride = 1) {
  return {v.data(), static_cast<std::int64_t>(v.size()) / stride, stride};
}
template <class T>
prospect_const_row in(testing::laid_out_row<T>& r) {
  return {r.view().data(), r.view().size(), r.view().stride()};
}
template <class T>
prospect_row out(testing::laid_out_row<T>& r) {
  return {r.view().data(), r.view().size(), r.view().stride()};
}
template <class T>
prospect_indices indices(const std::vector<T>& v) {
  return {in(v), dtype_of<T>(), 0};
}

bool says(const prospect_error& error, const std::string& word) {
  return std::string{error.message}.find(word) != std::string::npos;
}

bool same_number(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }

void check_metrics(const prospect_metrics& got, const auto& want) {
  CHECK(same_number(got.total, want.total));
  CHECK(got.first_nonfinite == want.first_nonfinite);
  const auto named = want.named();
  REQUIRE(got.size == static_cast<std::int32_t>(named.size()));
  for (std::size_t k = 0; k < named.size(); ++k) {
    CAPTURE(std::string{named[k].name});
    CHECK(named[k].name == got.metric[k].name);
    CHECK(same_number(got.metric[k].sum, named[k].value.sum));
    CHECK(got.metric[k].count == named[k].value.count);
  }
}

template <class S>
prospect_pairs c_args(testing::paired_case<S>& c) {
  prospect_pairs args{};
  args.struct_size = sizeof args;
  args.dtype = dtype_of<S>();
  args.policy_chosen = in(c.policy_chosen);
  args.policy_rejected = in(c.policy_rejected);
  args.reference_chosen = in(c.reference_chosen);
  args.reference_rejected = in(c.reference_rejected);
  args.chosen_tokens = in(c.chosen_tokens);
  args.rejected_tokens = in(c.rejected_tokens);
  args.loss = out(c.loss);
  args.d_policy_chosen = out(c.d_chosen);
  args.d_policy_rejected = out(c.d_rejected);
  args.reward_chosen = out(c.reward_chosen);
  args.reward_rejected = out(c.reward_rejected);
  return args;
}

template <class S>
prospect_completions c_args(testing::unpaired_case<S>& c) {
  prospect_completions args{};
  args.struct_size = sizeof args;
  args.dtype = dtype_of<S>();
  args.z = 0.5;
  args.z_raw = 0.25;
  args.policy = in(c.policy);
  args.reference = in(c.reference);
  args.desirable = in(c.desirable);
  args.tokens = in(c.tokens);
  args.loss = out(c.loss);
  args.d_policy = out(c.d_policy);
  args.reward = out(c.reward);
  return args;
}

prospect_status run(const prospect_loss& loss, const prospect_pairs& args,
                    prospect_metrics& metrics) {
  return prospect_pairs_cpu(&loss, &args, &metrics, nullptr);
}
prospect_status run(const prospect_loss& loss, const prospect_completions& args,
                    prospect_metrics& metrics) {
  return prospect_completions_cpu(&loss, &args, &metrics, nullptr);
}

/// The headers' code around the loops that the archive has chosen, which are held against the
/// oracle in tests/kernels.
template <class S, class L>
auto run_cpp(const L& loss, testing::paired_case<S>& c, prospect::normaliser by) {
  return prospect::cpu::detail::evaluate_pairs(prospect::kernels::loops<S, L>(), loss, c.in(),
                                               c.out(), by, prospect::thread_pool::shared());
}
template <class S, class L>
auto run_cpp(const L& loss, testing::unpaired_case<S>& c, prospect::normaliser by) {
  return prospect::cpu::detail::evaluate_completions(
      prospect::kernels::loops<S, L>(), loss, c.in(),
      prospect::reference_point{.z = 0.5, .raw = 0.25}, c.out(), by,
      prospect::thread_pool::shared());
}

template <class S>
void spoil(testing::paired_case<S>& c, std::int64_t i) {
  c.policy_rejected[i] = testing::stored<S>(not_a_number);
  c.chosen_tokens[i] = c.rejected_tokens[i] = 1;
}
template <class S>
void spoil(testing::unpaired_case<S>& c, std::int64_t i) {
  c.policy[i] = testing::stored<S>(not_a_number);
  c.tokens[i] = 1;
}

/// One batch through both surfaces: every element of every output, every metric.
template <class S, class Case>
void check_both_surfaces(const auto& loss, const prospect_loss& by_name) {
  struct {
    std::int32_t kind;
    prospect::normaliser by;
  } const normalisers[] = {{PROSPECT_MEAN, prospect::normaliser::mean()},
                           {PROSPECT_SUM, prospect::normaliser::sum()},
                           {PROSPECT_OVER, prospect::normaliser::over(7)}};
  for (const auto& normaliser : normalisers) {
    for (const bool spread_out : {false, true}) {
      for (const bool spoilt : {false, true}) {
        CAPTURE(normaliser.kind, spread_out, spoilt);
        random_source seed_of_cpp{71}, seed_of_c{71};
        Case cpp{seed_of_cpp, 12, true, spread_out}, c{seed_of_c, 12, true, spread_out};
        if (spoilt) spoil(cpp, 5), spoil(c, 5);
        auto args = c_args(c);
        args.normaliser = normaliser.kind;
        args.count = normaliser.kind == PROSPECT_OVER ? 7 : 0;
        prospect_metrics metrics{};
        metrics.struct_size = sizeof metrics;
        const auto want = run_cpp(loss, cpp, normaliser.by);
        REQUIRE(run(by_name, args, metrics) == PROSPECT_OK);
        CHECK(same_bits(testing::all_outputs<S>(c), testing::all_outputs<S>(cpp)));
        for (auto* row : c.outputs()) CHECK(row->only_elements_written());
        check_metrics(metrics, want);
        CHECK(want.total != 0);
        CHECK(want.first_nonfinite == (spoilt ? 5 : -1));
      }
    }
  }
}

prospect_loss loss_named(std::string_view name) {
  prospect_loss loss;
  REQUIRE(prospect_loss_init(&loss, std::string{name}.c_str(), nullptr) == PROSPECT_OK);
  return loss;
}

// One pair, two outputs, everything valid: each hostile test spoils one thing.
struct small_pairs {
  std::vector<float> a{-1, -2, -3}, b{-2, -1, -3}, r{-1.5F, -1.5F, -1.5F}, loss{7, 7, 7};
  std::vector<std::int32_t> tokens{2, 2, 2};
  prospect_error error{};
  prospect_metrics metrics{};
  prospect_pairs args{};

  small_pairs() {
    metrics.struct_size = sizeof metrics;
    metrics.total = 42;
    args.struct_size = sizeof args;
    args.policy_chosen = in(a);
    args.policy_rejected = in(b);
    args.reference_chosen = in(r);
    args.reference_rejected = in(r);
    args.loss = out(loss);
  }
  prospect_status run(const char* name = "dpo") {
    const prospect_loss l = loss_named(name);
    return prospect_pairs_cpu(&l, &args, &metrics, &error);
  }
  void refused(prospect_status status, const std::string& word, const char* name = "dpo") {
    CAPTURE(word);
    CHECK(run(name) == status);
    CAPTURE(std::string{error.message});
    CHECK(std::string{error.message}.find(word) != std::string::npos);
    CHECK(loss == std::vector<float>{7, 7, 7});
    CHECK(metrics.total == 42);
  }
};

}  // namespace

TEMPLATE_TEST_CASE("every loss of the archive is the loss of the headers", "", float, double,
                   prospect::float16, prospect::bfloat16) {
  using S = TestType;
  prospect::for_each_loss([&]<class L>(const L& loss) {
    CAPTURE(std::string{L::name});
    if constexpr (prospect::paired_loss<L>) {
      check_both_surfaces<S, testing::paired_case<S>>(loss, loss_named(L::name));
    } else {
      check_both_surfaces<S, testing::unpaired_case<S>>(loss, loss_named(L::name));
    }
  });
}

TEST_CASE("rows of stride 2 give what contiguous rows give") {
  const std::vector<float> a{-10, -25, -3}, b{-12, -20, -4}, c{-11, -22, -3}, d{-11, -24, -3};
  const std::vector<std::int32_t> n{5, 9, 2}, m{4, 8, 3};
  // Every other element is one that would show in the results.
  const auto apart = []<class T>(const std::vector<T>& v) {
    std::vector<T> twice;
    for (const T x : v) twice.insert(twice.end(), {x, T(77)});
    return twice;
  };
  const auto results_of = [&](std::int64_t stride, const auto& a_, const auto& b_, const auto& c_,
                              const auto& d_, const auto& n_, const auto& m_) {
    std::vector<std::vector<float>> rows(5, std::vector<float>(a_.size(), 77));
    const prospect_loss ipo = loss_named("ipo");
    prospect_pairs args{};
    args.struct_size = sizeof args;
    args.policy_chosen = in(a_, stride);
    args.policy_rejected = in(b_, stride);
    args.reference_chosen = in(c_, stride);
    args.reference_rejected = in(d_, stride);
    args.chosen_tokens = in(n_, stride);
    args.rejected_tokens = in(m_, stride);
    args.loss = out(rows[0], stride);
    args.d_policy_chosen = out(rows[1], stride);
    args.d_policy_rejected = out(rows[2], stride);
    args.reward_chosen = out(rows[3], stride);
    args.reward_rejected = out(rows[4], stride);
    REQUIRE(prospect_pairs_cpu(&ipo, &args, nullptr, nullptr) == PROSPECT_OK);
    return rows;
  };
  const auto contiguous = results_of(1, a, b, c, d, n, m);
  const auto strided = results_of(2, apart(a), apart(b), apart(c), apart(d), apart(n), apart(m));
  for (std::size_t k = 0; k < contiguous.size(); ++k) {
    CAPTURE(k);
    CHECK(same_bits(strided[k], apart(contiguous[k])));
  }
}

TEST_CASE("SimpleKTO through C is cross_class through C++") {
  const std::vector<double> policy{-10, -12, -9, -20}, reference{-12, -11, -10, -18};
  const std::vector<std::uint8_t> thumbs{1, 0, 1, 0};
  std::vector<double> expected(4), d(4);
  prospect::cpu::evaluate<double>(prospect::kto{},
                                  {.policy = policy, .reference = reference, .desirable = thumbs},
                                  prospect::cross_class{}, {.d_policy = expected});
  const prospect_loss kto = loss_named("kto");
  prospect_completions args{};
  args.struct_size = sizeof args;
  args.dtype = PROSPECT_F64;
  args.reference_point = PROSPECT_CROSS_CLASS;
  args.policy = in(policy);
  args.reference = in(reference);
  args.desirable = in(thumbs);
  args.d_policy = out(d);
  REQUIRE(prospect_completions_cpu(&kto, &args, nullptr, nullptr) == PROSPECT_OK);
  CHECK(same_bits(d, expected));
  args.reference_point = 9;
  CHECK(prospect_completions_cpu(&kto, &args, nullptr, nullptr) == PROSPECT_UNSUPPORTED);
}

TEST_CASE("hyper-parameters set by name reach the loss") {
  small_pairs p;
  prospect_loss loss = loss_named("dpo");
  REQUIRE(prospect_loss_set(&loss, "label_smoothing", 0.25, nullptr) == PROSPECT_OK);
  REQUIRE(prospect_pairs_cpu(&loss, &p.args, nullptr, nullptr) == PROSPECT_OK);
  const prospect::dpo smoothed{.label_smoothing = 0.25};
  const auto expected =
      prospect::differentiate(smoothed, prospect::pair<float>{{-1, 0.5F, 1}, {-2, -0.5F, 1}});
  CHECK(p.loss[0] == expected.loss);
}

TEST_CASE("the archive knows its version and its losses") {
  CHECK(prospect_version() ==
        PROSPECT_VERSION_MAJOR * 10000 + PROSPECT_VERSION_MINOR * 100 + PROSPECT_VERSION_PATCH);
  std::int32_t i = 0;
  prospect::for_each_loss([&]<class L>(const L&) {
    CHECK(std::string{prospect_loss_name(i++)} == L::name);
    const prospect_loss loss = loss_named(L::name);
    prospect_kind kind{};
    REQUIRE(prospect_loss_kind(&loss, &kind, nullptr) == PROSPECT_OK);
    CHECK(kind == (prospect::paired_loss<L> ? PROSPECT_PAIRED_LOSS : PROSPECT_UNPAIRED_LOSS));
  });
  CHECK(prospect_loss_count() == i);
}

TEST_CASE("hostile arguments are refused with their name, and nothing is written") {
  small_pairs p;
  SECTION("a size that differs") {
    p.args.reference_chosen.size = 2;
    p.refused(PROSPECT_INVALID_ARGUMENT, "reference_chosen");
  }
  SECTION("a negative size") {
    p.args.policy_rejected.size = -1;
    p.refused(PROSPECT_INVALID_ARGUMENT, "policy_rejected");
  }
  SECTION("NULL with a size") {
    p.args.policy_rejected.data = nullptr;
    p.refused(PROSPECT_INVALID_ARGUMENT, "policy_rejected");
  }
  SECTION("a misaligned pointer") {
    p.args.policy_chosen.data = reinterpret_cast<const char*>(p.a.data()) + 1;
    p.refused(PROSPECT_INVALID_ARGUMENT, "policy_chosen");
  }
  SECTION("an output that overwrites itself") {
    p.args.loss.stride = 0;
    p.refused(PROSPECT_INVALID_ARGUMENT, "loss");
  }
  SECTION("a missing reference") {
    p.args.reference_rejected = {};
    p.refused(PROSPECT_INVALID_ARGUMENT, "reference_rejected");
  }
  SECTION("missing token counts of a loss that averages") {
    p.refused(PROSPECT_INVALID_ARGUMENT, "chosen_tokens", "ipo");
  }
  SECTION("a loss of the other kind") {
    p.refused(PROSPECT_INVALID_ARGUMENT, "kto is not a paired loss", "kto");
  }
  SECTION("an unknown dtype") {
    p.args.dtype = 77;
    p.refused(PROSPECT_UNSUPPORTED, "dtype");
  }
  SECTION("an unknown normaliser") {
    p.args.normaliser = 77;
    p.refused(PROSPECT_UNSUPPORTED, "normaliser");
  }
  SECTION("a count of 0") {
    p.args.normaliser = PROSPECT_OVER;
    p.refused(PROSPECT_INVALID_ARGUMENT, "count");
  }
  SECTION("a struct_size that was never set") {
    p.args.struct_size = 0;
    p.refused(PROSPECT_INVALID_ARGUMENT, "pairs.struct_size");
    p.args.struct_size = 0xdeadbeef;
    p.refused(PROSPECT_INVALID_ARGUMENT, "pairs.struct_size");
  }
  SECTION("a loss that was never initialised") {
    const prospect_loss blank{};
    CHECK(prospect_pairs_cpu(&blank, &p.args, nullptr, &p.error) == PROSPECT_INVALID_ARGUMENT);
    prospect_loss foreign = loss_named("dpo");
    foreign.id = 1000;
    CHECK(prospect_pairs_cpu(&foreign, &p.args, nullptr, &p.error) == PROSPECT_INVALID_ARGUMENT);
  }
  SECTION("a loss of another version, whose id would mean another loss") {
    for (const std::size_t size : {sizeof(prospect_loss) - 8, sizeof(prospect_loss) + 8}) {
      CAPTURE(size);
      struct {
        prospect_loss known;
        double unknown;
      } foreign{.known = loss_named("dpo"), .unknown = 0};
      foreign.known.struct_size = static_cast<std::uint32_t>(size);
      const double beta = foreign.known.value[0];
      CHECK(prospect_pairs_cpu(&foreign.known, &p.args, &p.metrics, &p.error) ==
            PROSPECT_INVALID_ARGUMENT);
      CHECK(says(p.error, "loss"));
      CHECK(p.loss == std::vector<float>{7, 7, 7});
      CHECK(p.metrics.total == 42);
      CHECK(prospect_loss_set(&foreign.known, "beta", 0.5, nullptr) == PROSPECT_INVALID_ARGUMENT);
      CHECK(foreign.known.value[0] == beta);
      prospect_kind kind = PROSPECT_UNPAIRED_LOSS;
      CHECK(prospect_loss_kind(&foreign.known, &kind, nullptr) == PROSPECT_INVALID_ARGUMENT);
      CHECK(kind == PROSPECT_UNPAIRED_LOSS);
    }
  }
  SECTION("a reserved field that is not 0") {
    p.args.reserved = 1;
    p.refused(PROSPECT_UNSUPPORTED, "reserved");
  }
  SECTION("a hyper-parameter spoilt behind our back") {
    prospect_loss loss = loss_named("dpo");
    loss.value[0] = -1;
    CHECK(prospect_pairs_cpu(&loss, &p.args, nullptr, &p.error) == PROSPECT_INVALID_ARGUMENT);
    CHECK(std::string{p.error.message}.find("beta") != std::string::npos);
  }
}

TEST_CASE("structs of other versions") {
  small_pairs p;
  SECTION("shorter: missing fields read as zero") {
    p.args.struct_size = static_cast<std::uint32_t>(offsetof(prospect_pairs, loss));
    REQUIRE(p.run() == PROSPECT_OK);
    CHECK(p.loss == std::vector<float>{7, 7, 7});
    CHECK(p.metrics.metric[0].count == 3);
  }
  SECTION("longer: fine while the unknown fields are zero") {
    struct {
      prospect_pairs known;
      std::array<std::int64_t, 2> unknown;
    } future{.known = p.args, .unknown = {0, 0}};
    future.known.struct_size = sizeof future;
    const prospect_loss loss = loss_named("dpo");
    CHECK(prospect_pairs_cpu(&loss, &future.known, nullptr, &p.error) == PROSPECT_OK);
    future.unknown[1] = 1;
    CHECK(prospect_pairs_cpu(&loss, &future.known, nullptr, &p.error) == PROSPECT_UNSUPPORTED);
    CHECK(std::string{p.error.message}.find("newer") != std::string::npos);
  }
  SECTION("metrics that are shorter than ours are not overrun") {
    p.metrics.struct_size = static_cast<std::uint32_t>(offsetof(prospect_metrics, metric));
    p.metrics.metric[0].sum = 42;
    REQUIRE(p.run() == PROSPECT_OK);
    CHECK(p.metrics.total != 42);
    CHECK(p.metrics.size == 0);
    CHECK(p.metrics.metric[0].sum == 42);
  }
  SECTION("metrics with room for two say that there are two") {
    p.metrics.struct_size = static_cast<std::uint32_t>(offsetof(prospect_metrics, metric) +
                                                       2 * sizeof(prospect_metric));
    p.metrics.metric[1].sum = p.metrics.metric[2].sum = 42;
    REQUIRE(p.run() == PROSPECT_OK);
    CHECK(p.metrics.size == 2);
    CHECK(std::string{p.metrics.metric[1].name} == "rewards/chosen");
    CHECK(p.metrics.metric[1].sum != 42);
    CHECK(p.metrics.metric[2].sum == 42);
  }
}

TEST_CASE("a long message is cut, not overrun") {
  prospect_loss loss;
  prospect_error error;
  const std::string name(4000, 'x');
  CHECK(prospect_loss_init(&loss, name.c_str(), &error) == PROSPECT_UNKNOWN_NAME);
  CHECK(std::strlen(error.message) == sizeof error.message - 1);
}

TEST_CASE("tokens: targets, layouts and dtypes are checked at the border") {
  std::vector<float> logits(6, 0.5F), log_prob(2);
  const std::vector<std::int32_t> target{0, 3};
  prospect_logits view{logits.data(), 2, 3, 3, PROSPECT_F32, 0};
  prospect_indices targets{in(target), PROSPECT_I32, 0};
  prospect_error error{};
  const auto run = [&] {
    return prospect_token_log_probs_cpu(&view, &targets, nullptr, out(log_prob), {}, nullptr,
                                        &error);
  };
  CHECK(run() == PROSPECT_INVALID_ARGUMENT);
  CHECK(std::string{error.message}.find("targets[1] = 3") != std::string::npos);
  targets.dtype = PROSPECT_F32;
  CHECK(run() == PROSPECT_UNSUPPORTED);
  targets.dtype = PROSPECT_I32;
  view.pitch = 2;
  CHECK(run() == PROSPECT_INVALID_ARGUMENT);
  CHECK(prospect_token_log_probs_cpu(nullptr, &targets, nullptr, {}, {}, nullptr, &error) ==
        PROSPECT_INVALID_ARGUMENT);
  prospect_layout layout{.sequences = 2, .length = 2, .offsets = {}};
  std::vector<double> sums(2);
  CHECK(prospect_sequence_sums_cpu(PROSPECT_F32, in(log_prob), &targets, &layout, out(sums), {},
                                   &error) == PROSPECT_INVALID_ARGUMENT);
  CHECK(std::string{error.message}.find("layout") != std::string::npos);
  CHECK(prospect_sequence_sums_cpu(PROSPECT_BF16, in(log_prob), &targets, &layout, out(sums), {},
                                   &error) == PROSPECT_UNSUPPORTED);
}

// ---- Tokens against the C++ functions -----------------------------------------------------------

template <class T>
double number(T x) {
  if constexpr (prospect::storage<T>) {
    return static_cast<double>(prospect::load(x));
  } else {
    return static_cast<double>(x);
  }
}
template <class T>
constexpr double last_place = sizeof(T) == 2 ? 0x1p-8 : 1e-6;

/// The archive may have chosen a wider instruction set than this test was compiled for.
template <class T>
bool close(const std::vector<T>& a, const std::vector<T>& b) {
  for (std::size_t i = 0; i < a.size(); ++i) {
    const double x = number(a[i]), y = number(b[i]);
    if (std::isnan(x) != std::isnan(y)) return false;
    if (!std::isnan(x) && x != y && !(std::abs(x - y) <= 1e-6 + last_place<T> * std::abs(y))) {
      return false;
    }
  }
  return a.size() == b.size();
}

namespace {

/// Forward, sums, spread and gradient of one batch through both surfaces, bit for bit.
template <class S, class I>
void check_tokens(const std::vector<I>& target, const prospect_layout& layout,
                  const prospect::sequence_layout& layout_of_cpp) {
  using R = prospect::compute_t<S>;
  constexpr std::int64_t rows = 6, columns = 5, pitch = 8;
  random_source random{72};
  std::vector<S> logits;
  for (std::int64_t k = 0; k < rows * pitch; ++k) {
    logits.push_back(testing::stored<S>(random.normal(3)));
  }
  const std::vector<S> before = logits;
  std::vector<S> logits_of_cpp = logits;
  const prospect::matrix_view<S> matrix{logits_of_cpp.data(), rows, columns, pitch};
  const prospect_logits view{logits.data(), rows, columns, pitch, dtype_of<S>(), 0};
  const prospect_indices targets = indices(target);

  std::vector<R> log_prob(rows, R(7)), log_prob_of_cpp(rows);
  std::vector<double> lse(rows, 7), lse_of_cpp(rows);
  prospect::cpu::token_log_probs<S>(matrix, target,
                                    {.log_prob = log_prob_of_cpp, .lse = lse_of_cpp});
  REQUIRE(prospect_token_log_probs_cpu(&view, &targets, nullptr, out(log_prob), out(lse), nullptr,
                                       nullptr) == PROSPECT_OK);
  CHECK(close(log_prob, log_prob_of_cpp));
  CHECK(close(lse, lse_of_cpp));
  CHECK(same_bits(logits, before));

  std::vector<double> sums(2, 7), sums_of_cpp(2);
  std::vector<std::int32_t> tokens(2, 7), tokens_of_cpp(2);
  prospect::cpu::sequence_sums<R>(log_prob, target, layout_of_cpp,
                                  {.log_prob = sums_of_cpp, .tokens = tokens_of_cpp});
  REQUIRE(prospect_sequence_sums_cpu(dtype_of<R>(), in(log_prob), &targets, &layout, out(sums),
                                     out(tokens), nullptr) == PROSPECT_OK);
  CHECK(same_bits(sums, sums_of_cpp));
  CHECK(tokens == tokens_of_cpp);

  const std::vector<double> d_sequence{-0.3, 0.7};
  std::vector<R> d_token(rows, R(7)), d_token_of_cpp(rows);
  prospect::cpu::spread<R>(d_sequence, target, layout_of_cpp, d_token_of_cpp);
  REQUIRE(prospect_spread_cpu(dtype_of<R>(), in(d_sequence), &targets, &layout, out(d_token),
                              nullptr) == PROSPECT_OK);
  CHECK(same_bits(d_token, d_token_of_cpp));

  prospect::cpu::logits_gradient<S>(matrix, target, log_prob, lse, d_token);
  REQUIRE(prospect_logits_gradient_cpu(&view, &targets, nullptr, in(log_prob), in(lse), in(d_token),
                                       nullptr) == PROSPECT_OK);
  CHECK(close(logits, logits_of_cpp));
  CHECK_FALSE(same_bits(logits, before));
  for (std::int64_t t = 0; t < rows; ++t) {
    for (std::int64_t j = columns; j < pitch; ++j) {
      const auto k = static_cast<std::size_t>(t * pitch + j);
      CHECK(same_bits(logits[k], before[k]));
    }
  }

  std::vector<std::int32_t> shifted(rows, 7), shifted_of_cpp(rows);
  prospect::cpu::shift_targets(target, layout_of_cpp, shifted_of_cpp);
  REQUIRE(prospect_shift_targets(&targets, &layout, out(shifted), nullptr) == PROSPECT_OK);
  CHECK(shifted == shifted_of_cpp);
}

template <class S, class I, class Offset>
void check_layouts() {
  const std::vector<I> target{2, -100, 0, 4, -100, 1};
  const std::vector<Offset> offset{0, 2, 6};
  check_tokens<S, I>(target, {.sequences = 2, .length = 3, .offsets = {}},
                     prospect::sequence_layout::padded(2, 3));
  // Nonsense in the fields that a packed layout ignores.
  check_tokens<S, I>(target, {.sequences = -5, .length = 99, .offsets = indices(offset)},
                     prospect::sequence_layout::packed(offset));
}

}  // namespace

TEMPLATE_TEST_CASE("the token functions of the archive are those of the headers", "", float, double,
                   prospect::float16, prospect::bfloat16) {
  check_layouts<TestType, std::int32_t, std::int32_t>();
  check_layouts<TestType, std::int32_t, std::int64_t>();
  check_layouts<TestType, std::int64_t, std::int32_t>();
  check_layouts<TestType, std::int64_t, std::int64_t>();
}

TEST_CASE("tokens: reserved fields and negative offsets are refused, and nothing is written") {
  std::vector<float> logits(6, 0.5F), log_prob(2, -1), d_token(2, 7), row(2, 7);
  const std::vector<float> untouched = logits;
  std::vector<double> lse(2, 1), one_sum{7};
  std::vector<std::int32_t> shifted{7, 7};
  const std::vector<double> d_sequence{1};
  const std::vector<std::int32_t> target{0, 1}, offset{0, 2};
  prospect_logits view{logits.data(), 2, 3, 3, PROSPECT_F32, 0};
  prospect_indices targets = indices(target);
  prospect_layout layout{.sequences = 1, .length = 2, .offsets = {}};
  prospect_error error{};

  const auto forward = [&] {
    return prospect_token_log_probs_cpu(&view, &targets, nullptr, out(row), {}, nullptr, &error);
  };
  const auto gradient = [&] {
    return prospect_logits_gradient_cpu(&view, &targets, nullptr, in(log_prob), in(lse),
                                        in(log_prob), &error);
  };
  const auto sum = [&] {
    return prospect_sequence_sums_cpu(PROSPECT_F32, in(log_prob), &targets, &layout, out(one_sum),
                                      {}, &error);
  };
  const auto spread = [&] {
    return prospect_spread_cpu(PROSPECT_F32, in(d_sequence), &targets, &layout, out(d_token),
                               &error);
  };
  const auto shift = [&] {
    return prospect_shift_targets(&targets, &layout, out(shifted), &error);
  };
  const auto refused = [&](const auto& call, prospect_status status, const std::string& word) {
    error = {};
    CHECK(call() == status);
    CAPTURE(std::string{error.message});
    CHECK(says(error, word));
    CHECK(same_bits(logits, untouched));
    CHECK(row == std::vector<float>{7, 7});
    CHECK(d_token == std::vector<float>{7, 7});
    CHECK(one_sum == std::vector<double>{7});
    CHECK(shifted == std::vector<std::int32_t>{7, 7});
  };

  SECTION("logits.reserved") {
    view.reserved = 1;
    refused(forward, PROSPECT_UNSUPPORTED, "reserved");
    refused(gradient, PROSPECT_UNSUPPORTED, "reserved");
  }
  SECTION("indices.reserved of targets and labels") {
    targets.reserved = 1;
    refused(forward, PROSPECT_UNSUPPORTED, "reserved");
    refused(gradient, PROSPECT_UNSUPPORTED, "reserved");
    refused(sum, PROSPECT_UNSUPPORTED, "reserved");
    refused(spread, PROSPECT_UNSUPPORTED, "reserved");
    refused(shift, PROSPECT_UNSUPPORTED, "reserved");
  }
  SECTION("indices.reserved of offsets") {
    layout.offsets = indices(offset);
    layout.offsets.reserved = 1;
    refused(sum, PROSPECT_UNSUPPORTED, "reserved");
    refused(spread, PROSPECT_UNSUPPORTED, "reserved");
    refused(shift, PROSPECT_UNSUPPORTED, "reserved");
  }
  SECTION("a negative number of offsets is not a padded layout") {
    layout.offsets = indices(offset);
    layout.offsets.row.size = -2;
    refused(sum, PROSPECT_INVALID_ARGUMENT, "layout.offsets");
    refused(spread, PROSPECT_INVALID_ARGUMENT, "layout.offsets");
    refused(shift, PROSPECT_INVALID_ARGUMENT, "layout.offsets");
  }
}

// ---- Reference point and class weights ----------------------------------------------------------

TEST_CASE("a reference point that is no number is refused, where it is read") {
  const std::vector<float> policy{-1, -2}, reference{-2, -1};
  const std::vector<std::uint8_t> thumbs{1, 0};
  std::vector<float> loss{7, 7};
  const prospect_loss kto = loss_named("kto");
  prospect_error error{};
  prospect_completions args{};
  args.struct_size = sizeof args;
  args.policy = in(policy);
  args.reference = in(reference);
  args.desirable = in(thumbs);
  args.loss = out(loss);
  for (const double bad : {not_a_number, infinity, -infinity}) {
    CAPTURE(bad);
    for (double prospect_completions::*member :
         {&prospect_completions::z, &prospect_completions::z_raw}) {
      args.z = args.z_raw = 0;
      args.*member = bad;
      args.reference_point = PROSPECT_GIVEN_POINT;
      error = {};
      loss = {7, 7};
      CHECK(prospect_completions_cpu(&kto, &args, nullptr, &error) == PROSPECT_INVALID_ARGUMENT);
      CHECK(says(error, "prospect: z"));
      CHECK(loss == std::vector<float>{7, 7});
      args.reference_point = PROSPECT_CROSS_CLASS;
      CHECK(prospect_completions_cpu(&kto, &args, nullptr, &error) == PROSPECT_OK);
    }
  }
}

TEMPLATE_TEST_CASE("the mismatched estimate skips rows without tokens", "", float, double,
                   prospect::float16, prospect::bfloat16) {
  using S = TestType;
  const std::vector<S> policy{testing::stored<S>(-3), testing::stored<S>(not_a_number),
                              testing::stored<S>(-4)};
  const std::vector<S> reference{testing::stored<S>(-5), testing::stored<S>(0),
                                 testing::stored<S>(-4.5)};
  const std::vector<std::int32_t> tokens{3, 0, 2};
  prospect_sum_count observed{7, 7};
  REQUIRE(prospect_mismatched_kl_cpu(dtype_of<S>(), in(policy), in(reference), in(tokens),
                                     &observed, nullptr) == PROSPECT_OK);
  CHECK(observed.sum == 2.5);
  CHECK(observed.count == 2);
  const prospect::sum_count expected = prospect::cpu::mismatched_kl<S>(policy, reference, tokens);
  CHECK(observed.sum == expected.sum);
  CHECK(observed.count == expected.count);
}

TEST_CASE("an observation that is no number does not spoil the moving average") {
  prospect_ema ema{.decay = 0.9, .average = 0, .weight = 0};
  REQUIRE(prospect_ema_add(&ema, {.sum = 6, .count = 3}, nullptr) == PROSPECT_OK);
  const prospect_ema before = ema;
  for (const double bad : {not_a_number, infinity, -infinity}) {
    CAPTURE(bad);
    for (const prospect_sum_count& observed :
         {prospect_sum_count{.sum = bad, .count = 3}, prospect_sum_count{.sum = 6, .count = bad}}) {
      prospect_error error{};
      CHECK(prospect_ema_add(&ema, observed, &error) == PROSPECT_INVALID_ARGUMENT);
      CHECK(says(error, "observed"));
      CHECK(same_bits(ema, before));
    }
  }
  CHECK(prospect_ema_point(&ema).z == 2);
}

TEST_CASE("class weights through C: each bound, and counts that have no quotient") {
  prospect_class_weights weights{};
  REQUIRE(prospect_propose_class_weights(1, 10, PROSPECT_FOUR_THIRDS, &weights, nullptr) ==
          PROSPECT_OK);
  CHECK_THAT(weights.desirable_low, WithinRel(10.0, 1e-15));
  CHECK(weights.undesirable_low == 1);
  CHECK_THAT(weights.desirable_high, WithinRel(40.0 / 3, 1e-15));
  CHECK(weights.undesirable_high == 1);
  REQUIRE(prospect_propose_class_weights(1, 10, PROSPECT_THREE_HALVES, &weights, nullptr) ==
          PROSPECT_OK);
  CHECK_THAT(weights.desirable_high, WithinRel(15.0, 1e-15));
  REQUIRE(prospect_propose_class_weights(10, 1, PROSPECT_FOUR_THIRDS, &weights, nullptr) ==
          PROSPECT_OK);
  CHECK(weights.desirable_low == 1);
  CHECK_THAT(weights.undesirable_low, WithinRel(10.0, 1e-15));
  CHECK(weights.desirable_high == 1);
  CHECK_THAT(weights.undesirable_high, WithinRel(7.5, 1e-15));

  const prospect_class_weights before = weights;
  const double extreme[][2] = {{1e300, 1e-300}, {1e-300, 1e300}};
  for (const auto& count : extreme) {
    CHECK(prospect_propose_class_weights(count[0], count[1], PROSPECT_THREE_HALVES, &weights,
                                         nullptr) == PROSPECT_INVALID_ARGUMENT);
    CHECK(same_bits(weights, before));
  }
}

// ------------------------------------------------------------------------------------ the device

TEST_CASE("functions on a device are there in every archive, and say what it was built without",
          "[c]") {
  prospect_error error{};
  std::size_t size = 0;
  const prospect_row none{};
  const prospect_status statuses[] = {
      prospect_pairs_cuda(nullptr, nullptr, nullptr, nullptr, &size, nullptr, &error),
      prospect_completions_cuda(nullptr, nullptr, nullptr, nullptr, &size, nullptr, &error),
      prospect_token_log_probs_cuda(nullptr, nullptr, nullptr, none, none, nullptr, nullptr, &size,
                                    nullptr, &error),
      prospect_shift_targets_cuda(nullptr, nullptr, none, nullptr, &error)};
  for (const prospect_status status : statuses) {
#if defined(PROSPECT_WITH_CUDA)
    CHECK(status == PROSPECT_INVALID_ARGUMENT);
    CHECK(std::string{error.message}.find("is NULL") != std::string::npos);
#else
    CHECK(status == PROSPECT_UNSUPPORTED);
    CHECK(std::string{error.message}.find("without CUDA") != std::string::npos);
#endif
  }
}

TEST_CASE("metrics are read from the bytes a device wrote", "[c]") {
  prospect::paired_metrics written{};
  written.loss = {.sum = 3, .count = 2};
  written.first_nonfinite = 7;
  prospect_metrics m{};
  m.struct_size = sizeof(m);
  prospect_error error{};
  REQUIRE(prospect_read_metrics(PROSPECT_PAIRED_LOSS, &written, &m, &error) == PROSPECT_OK);
  CHECK(m.first_nonfinite == 7);
  CHECK(m.metric[0].sum == 3);
  CHECK(m.metric[0].count == 2);
  CHECK(prospect_read_metrics(PROSPECT_PAIRED_LOSS, nullptr, &m, &error) ==
        PROSPECT_INVALID_ARGUMENT);
  CHECK(prospect_read_metrics(PROSPECT_PAIRED_LOSS, &written, nullptr, &error) ==
        PROSPECT_INVALID_ARGUMENT);
}

TEST_CASE("points that were observed, and counts that lie elsewhere, on the host as well", "[c]") {
  const std::vector<float> policy{-1, -2, -3}, reference{-2, -2, -5};
  const std::vector<std::uint8_t> desirable{1, 0, 1};
  const std::vector<std::int32_t> tokens{1, 0, 2};
  const prospect_sum_count seen{.sum = 3, .count = 2};  // of the rows that have tokens
  const double count = 4;
  prospect_loss loss{};
  prospect_error error{};
  REQUIRE(prospect_loss_init(&loss, "kto", &error) == PROSPECT_OK);
  const auto row = [](const auto& v) {
    return prospect_const_row{v.data(), static_cast<std::int64_t>(v.size()), 1};
  };
  const auto evaluated = [&](prospect_reference point, prospect_normaliser normaliser) {
    std::vector<float> d(3);
    prospect_completions c{};
    c.struct_size = sizeof(c);
    c.normaliser = normaliser;
    c.count = 4;
    c.count_at = &count;
    c.reference_point = point;
    c.z = c.z_raw = 1.5;
    c.observed = &seen;
    c.policy = c.mismatched_policy = row(policy);
    c.reference = c.mismatched_reference = row(reference);
    c.mismatched_tokens = row(tokens);
    c.desirable = row(desirable);
    c.d_policy = {d.data(), 3, 1};
    CAPTURE(error.message);
    REQUIRE(prospect_completions_cpu(&loss, &c, nullptr, &error) == PROSPECT_OK);
    return d;
  };
  const auto want = evaluated(PROSPECT_GIVEN_POINT, PROSPECT_OVER);
  CHECK(evaluated(PROSPECT_OBSERVED, PROSPECT_OVER) == want);
  CHECK(evaluated(PROSPECT_BATCH_MEAN, PROSPECT_OVER) == want);
  CHECK(evaluated(PROSPECT_OBSERVED, PROSPECT_OVER_AT) == want);
  CHECK(evaluated(PROSPECT_OBSERVED, PROSPECT_MEAN) != want);
}
