// Losses of tokens by name through C: the loops of the archive on the same batch, and each argument
// that is refused by its name.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "c/token_batches.hpp"
#include "catch.hpp"
#include "cpu/token_loss_cases.hpp"
#include "kernels/loops.hpp"
#include "random.hpp"

namespace {

using testing::c_layout;
using testing::c_loss;
using testing::c_metrics;
using testing::c_token_batch;
using testing::random_source;
using testing::sized;
using testing::token_loss_case;

template <std::floating_point R>
prospect::token_metrics evaluate(const prospect::any_token& loss, token_loss_case& c,
                                 const prospect::normaliser& by) {
  prospect::serial_executor on;
  return prospect::cpu::detail::evaluate_tokens(prospect::kernels::loops<R, prospect::any_token>(),
                                                loss, c.in(), c.out(), by, on);
}

bool same_rows(const token_loss_case& a, const token_loss_case& b) {
  const auto same = [](double x, double y) { return x == y || (std::isnan(x) && std::isnan(y)); };
  for (std::int64_t t = 0; t < a.rows; ++t) {
    if (!same(a.loss[t], b.loss[t]) || !same(a.d_policy[t], b.d_policy[t]) ||
        !same(a.d_entropy[t], b.d_entropy[t])) {
      return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("every loss of tokens by name: the bits of the library, and its metrics") {
  random_source random{401};
  CAPTURE(random.seed());
  prospect::for_each_loss([&]<class L>(const L& loss) {
    if constexpr (prospect::token_loss<L>) {
      CAPTURE(std::string{L::name});
      const prospect_loss by_name = c_loss(L::name);
      for (int round = 0; round < 6; ++round) {
        CAPTURE(round);
        token_loss_case cpp = testing::random_tokens(random, round % 2 == 0, {40, 0, 1, 300, 7});
        if (!cpp.reference.given()) cpp.reference = cpp.policy;
        token_loss_case c = cpp;
        const double count = 11.5;
        const auto [kind, by] = std::vector<std::pair<std::int32_t, prospect::normaliser>>{
            {PROSPECT_MEAN, prospect::normaliser::mean()},
            {PROSPECT_SUM, prospect::normaliser::sum()},
            {PROSPECT_OVER, prospect::normaliser::over(count)},
            {PROSPECT_OVER_AT,
             prospect::normaliser::over(count)}}[static_cast<std::size_t>(round % 4)];
        const auto want =
            cpp.in_fp64() ? evaluate<double>(loss, cpp, by) : evaluate<float>(loss, cpp, by);
        const prospect_layout layout = c_layout(c);
        prospect_token_batch b = c_token_batch(c, layout);
        b.normaliser = kind;
        if (kind == PROSPECT_OVER) b.count = count;
        if (kind == PROSPECT_OVER_AT) b.count_at = &count;
        c_metrics metrics;
        prospect_error error{};
        const prospect_status status =
            prospect_token_losses_cpu(&by_name, &b, &metrics, nullptr, &error);
        CAPTURE(std::string{error.message});
        REQUIRE(status == PROSPECT_OK);
        CHECK(same_rows(c, cpp));
        const auto named = want.named();
        REQUIRE(metrics.metrics.size == static_cast<std::int32_t>(named.size()));
        for (std::size_t i = 0; i < named.size(); ++i) {
          CHECK(metrics.room[i].name == named[i].name);
          CHECK(testing::same_bits(metrics.room[i].sum, named[i].value.sum));
          CHECK(metrics.room[i].count == named[i].value.count);
        }
        CHECK(testing::same_bits(metrics.metrics.total, want.total));
        CHECK(metrics.metrics.first_nonfinite == want.first_nonfinite);
      }
    }
  });
}

TEST_CASE("averaging by name: grpo over tokens is bnpo, and only losses of tokens have one") {
  random_source random{403};
  token_loss_case c = testing::random_tokens(random, false, {40, 0, 1, 300, 7});
  const prospect_layout layout = c_layout(c);
  const auto coefficients = [&](const prospect_loss& loss) {
    const prospect_token_batch b = c_token_batch(c, layout);
    REQUIRE(prospect_token_losses_cpu(&loss, &b, nullptr, nullptr, nullptr) == PROSPECT_OK);
    std::vector<double> all;
    for (std::int64_t t = 0; t < c.rows; ++t) all.push_back(c.d_policy[t]);
    return all;
  };
  const auto as = [&](const char* name, prospect_averaging averaging) {
    prospect_loss loss = c_loss(name);
    REQUIRE(prospect_loss_set_averaging(&loss, averaging, nullptr) == PROSPECT_OK);
    return coefficients(loss);
  };
  const auto own = [&](const char* name) { return coefficients(c_loss(name)); };
  CHECK(as("grpo", PROSPECT_TOKENS) == own("bnpo"));
  CHECK(as("bnpo", PROSPECT_SEQUENCE_MEANS) == own("grpo"));
  CHECK(as("grpo", PROSPECT_SEQUENCE_MEANS) == own("grpo"));
  CHECK(as("gspo", PROSPECT_TOKENS) != own("gspo"));
  CHECK(as("gspo", PROSPECT_SEQUENCE_SUMS) == own("luspo"));

  prospect_error error{};
  prospect_loss grpo = c_loss("grpo");
  const prospect_loss before = grpo;
  for (const prospect_averaging none : {-1, 3}) {
    testing::refused(prospect_loss_set_averaging(&grpo, none, &error), PROSPECT_INVALID_ARGUMENT,
                     error, "averaging is " + std::to_string(none));
  }
  CHECK(std::memcmp(&grpo, &before, sizeof grpo) == 0);
  prospect_loss dpo = c_loss("dpo");
  testing::refused(prospect_loss_set_averaging(&dpo, PROSPECT_TOKENS, &error), PROSPECT_UNSUPPORTED,
                   error, "dpo is no loss of tokens");
}

TEST_CASE("what the C surface refuses of a batch of tokens") {
  random_source random{402};
  const auto refused = [&](const std::string& words, prospect_status expected,
                           const std::function<void(prospect_token_batch&)>& change,
                           const char* name = "sft") {
    token_loss_case c = testing::random_tokens(random, false, {4, 3});
    c.loss.put(0, 5);
    const prospect_layout layout = c_layout(c);
    prospect_token_batch b = c_token_batch(c, layout);
    change(b);
    prospect_error error{};
    const prospect_loss loss = c_loss(name);
    testing::refused(prospect_token_losses_cpu(&loss, &b, nullptr, nullptr, &error), expected,
                     error, words);
    CHECK(c.loss[0] == 5);
  };
  constexpr auto invalid = PROSPECT_INVALID_ARGUMENT, unsupported = PROSPECT_UNSUPPORTED;
  refused(
      "dpo is not a token loss", invalid, [](auto&) {}, "dpo");
  refused("struct_size", invalid, [](auto& b) { b.struct_size = 64; });
  refused("batch.reserved", unsupported, [](auto& b) { b.reserved = 1; });
  refused("normaliser", unsupported, [](auto& b) { b.normaliser = 9; });
  refused("count must be positive", invalid, [](auto& b) { b.normaliser = PROSPECT_OVER; });
  refused("count_at", invalid, [](auto& b) { b.normaliser = PROSPECT_OVER_AT; });
  refused("layout is NULL", invalid, [](auto& b) { b.layout = nullptr; });
  refused("old_policy.dtype", unsupported, [](auto& b) {
    b.old_policy = b.policy;
    b.old_policy.dtype = PROSPECT_I32;
  });
  refused("targets.dtype", unsupported, [](auto& b) {
    b.targets = b.policy;
    b.targets.dtype = PROSPECT_F32;
  });
  refused("weight", invalid, [](auto& b) {
    b.weight = b.policy;
    b.weight.size -= 1;
  });
  refused("entropy_coef", invalid,
          [](auto& b) { b.entropy_coef = std::numeric_limits<double>::infinity(); });

  const prospect_loss sft = c_loss("sft");
  prospect_error error{};
  testing::refused(prospect_token_losses_cpu(&sft, nullptr, nullptr, nullptr, &error), invalid,
                   error, "batch is NULL");
  auto pairs = sized<prospect_pairs>();
  testing::refused(prospect_pairs_cpu(&sft, &pairs, nullptr, nullptr, &error), invalid, error,
                   "sft is not a paired loss");
  auto completions = sized<prospect_completions>();
  testing::refused(prospect_completions_cpu(&sft, &completions, nullptr, nullptr, &error), invalid,
                   error, "sft is not an unpaired loss");
  std::size_t bytes = 77;
  auto context = sized<prospect_context>();
  context.query = &bytes;
  token_loss_case c = testing::random_tokens(random, false, {4});
  const prospect_layout layout = c_layout(c);
  const prospect_token_batch b = c_token_batch(c, layout);
  CHECK(prospect_token_losses_cpu(&sft, &b, nullptr, &context, nullptr) == PROSPECT_OK);
  CHECK(bytes == 77);  // it takes none
}
