// The C surface against the C++ one, loss by loss and dtype by dtype, and against hostile callers:
// other struct versions, bad pointers, sizes, dtypes, kinds. Nothing may be written on failure.
#include "catch.hpp"

#include <prospect/c/prospect.h>
#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace {

template <class S>
constexpr std::int32_t dtype_of() {
  if constexpr (std::same_as<S, float>) return PROSPECT_F32;
  if constexpr (std::same_as<S, double>) return PROSPECT_F64;
  if constexpr (std::same_as<S, prospect::float16>) return PROSPECT_F16;
  return PROSPECT_BF16;
}

template <class T>
prospect_const_row in(const std::vector<T>& v) {
  return {v.data(), static_cast<std::int64_t>(v.size()), 1};
}
template <class T>
prospect_row out(std::vector<T>& v) {
  return {v.data(), static_cast<std::int64_t>(v.size()), 1};
}

template <class S>
std::vector<S> row(std::initializer_list<double> values) {
  std::vector<S> r;
  for (const double v : values) {
    r.push_back(prospect::store<S>(static_cast<prospect::compute_t<S>>(v)));
  }
  return r;
}

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
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
  const auto a = row<S>({-10, -25, -3}), b = row<S>({-12, -20, -4});
  const auto c = row<S>({-11, -22, -3}), d = row<S>({-11, -24, -3});
  const std::vector<std::int32_t> n{5, 9, 2}, m{4, 8, 3};
  const std::vector<std::uint8_t> thumbs{1, 0, 1};

  prospect::for_each_loss([&]<class L>(const L& loss) {
    const prospect_loss by_name = loss_named(L::name);
    std::vector<S> expected_loss(3), expected_d(3), loss_row(3), d_row(3);
    prospect_metrics metrics{};
    metrics.struct_size = sizeof metrics;
    prospect_error error{};
    double total = 0;
    if constexpr (prospect::paired_loss<L>) {
      total = prospect::cpu::evaluate<S>(loss,
                                         {.policy_chosen = a,
                                          .policy_rejected = b,
                                          .reference_chosen = c,
                                          .reference_rejected = d,
                                          .chosen_tokens = n,
                                          .rejected_tokens = m},
                                         {.loss = expected_loss, .d_policy_rejected = expected_d})
                  .total;
      prospect_pairs args{};
      args.struct_size = sizeof args;
      args.dtype = dtype_of<S>();
      args.policy_chosen = in(a);
      args.policy_rejected = in(b);
      args.reference_chosen = in(c);
      args.reference_rejected = in(d);
      args.chosen_tokens = in(n);
      args.rejected_tokens = in(m);
      args.loss = out(loss_row);
      args.d_policy_rejected = out(d_row);
      REQUIRE(prospect_pairs_cpu(&by_name, &args, &metrics, &error) == PROSPECT_OK);
    } else {
      total = prospect::cpu::evaluate<S>(
                  loss, {.policy = a, .reference = c, .desirable = thumbs, .tokens = n},
                  prospect::constant_point(0.5), {.loss = expected_loss, .d_policy = expected_d})
                  .total;
      prospect_completions args{};
      args.struct_size = sizeof args;
      args.dtype = dtype_of<S>();
      args.z = 0.5;
      args.policy = in(a);
      args.reference = in(c);
      args.desirable = in(thumbs);
      args.tokens = in(n);
      args.loss = out(loss_row);
      args.d_policy = out(d_row);
      REQUIRE(prospect_completions_cpu(&by_name, &args, &metrics, &error) == PROSPECT_OK);
    }
    CAPTURE(std::string{L::name});
    CHECK(same_bits(loss_row, expected_loss));
    CHECK(same_bits(d_row, expected_d));
    CHECK(metrics.total == total);
    CHECK(total != 0);
  });
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
    CHECK(p.metrics.metric[0].sum == 42);
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
    return prospect_token_log_probs_cpu(&view, &targets, out(log_prob), {}, &error);
  };
  CHECK(run() == PROSPECT_INVALID_ARGUMENT);
  CHECK(std::string{error.message}.find("targets[1] = 3") != std::string::npos);
  targets.dtype = PROSPECT_F32;
  CHECK(run() == PROSPECT_UNSUPPORTED);
  targets.dtype = PROSPECT_I32;
  view.pitch = 2;
  CHECK(run() == PROSPECT_INVALID_ARGUMENT);
  CHECK(prospect_token_log_probs_cpu(nullptr, &targets, {}, {}, &error) ==
        PROSPECT_INVALID_ARGUMENT);
  prospect_layout layout{.sequences = 2, .length = 2, .offsets = {}};
  std::vector<double> sums(2);
  CHECK(prospect_sequence_sums_cpu(PROSPECT_F32, in(log_prob), &targets, &layout, out(sums), {},
                                   &error) == PROSPECT_INVALID_ARGUMENT);
  CHECK(std::string{error.message}.find("layout") != std::string::npos);
  CHECK(prospect_sequence_sums_cpu(PROSPECT_BF16, in(log_prob), &targets, &layout, out(sums), {},
                                   &error) == PROSPECT_UNSUPPORTED);
}
