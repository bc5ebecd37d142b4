// The C surface on losses of tokens, on the device as on the host: every loss by name, batches of
// few and of more sequences, and what is refused.
#include <prospect/losses/losses.hpp>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "c/token_batches.hpp"
#include "cpu/token_loss_checks.hpp"
#include "cuda/c_surface.hpp"
#include "cuda/token_loss_cases.hpp"

namespace {

using testing::c_layout;
using testing::c_loss;
using testing::c_metrics;
using testing::device_array;
using testing::on_device_tokens;
using testing::random_source;
using testing::token_loss_case;

}  // namespace

TEST_CASE("every loss of tokens through C, on the device as on the host") {
  random_source random{601};
  const device_array<prospect_device_metrics> metrics(1);
  // A block; then, where there is time or the loss is one that shows all there is, more sequences
  // than one takes, more than a cluster's, and a grid.
  const std::vector<std::vector<std::int64_t>> shapes{
      {9, 0, 40}, {5, 4, 3, 2, 1}, std::vector<std::int64_t>(66, 3), {9000}};
  prospect::for_each_loss([&]<class L>(const L&) {
    if constexpr (prospect::token_loss<L>) {
      CAPTURE(std::string{L::name});
      const prospect_loss loss = c_loss(L::name);
      const bool all = testing::full_size() || L::name == "gspo";
      for (std::size_t round = 0; round < 2 * (all ? shapes.size() : 1); ++round) {
        CAPTURE(round);
        token_loss_case want = testing::random_tokens(random, round % 2 == 0, shapes[round / 2]);
        if (!want.reference.given()) want.reference = want.policy;
        token_loss_case got = want;
        const on_device_tokens d{got};
        const prospect_layout host_layout = c_layout(want), layout = c_layout(d);
        const prospect_token_batch host = testing::c_token_batch(want, host_layout),
                                   device = testing::c_token_batch(d, layout);
        c_metrics want_metrics;
        prospect_error error{};
        testing::require_ok(prospect_token_losses_cpu(&loss, &host, &want_metrics, nullptr, &error),
                            error);
        testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
          return prospect_token_losses_cuda(&loss, &device, metrics.data(), on, e);
        });
        d.fetch();
        testing::check_close_metrics(testing::read_metrics(loss, metrics), want_metrics);
        const auto close = [&](const testing::run_time_row& a, const testing::run_time_row& b) {
          // A result may lie between two that a row can hold.
          const double rounding = testing::rounding_of(a.type());
          for (std::int64_t t = 0; t < got.rows; ++t) {
            if (!testing::near(a[t], b[t], rounding + 4e-6, 1e-7)) return false;
          }
          return true;
        };
        CHECK(close(got.loss, want.loss));
        CHECK(close(got.d_policy, want.d_policy));
        CHECK(close(got.d_entropy, want.d_entropy));
      }
    }
  });
}

TEST_CASE("averaging by name on the device: grpo over tokens is bnpo") {
  random_source random{603};
  token_loss_case c = testing::random_tokens(random, false, {9, 0, 40});
  const on_device_tokens d{c};
  const prospect_layout layout = c_layout(d);
  const prospect_token_batch batch = testing::c_token_batch(d, layout);
  const auto coefficients = [&](const prospect_loss& loss) {
    testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_token_losses_cuda(&loss, &batch, nullptr, on, e);
    });
    d.fetch();
    std::vector<double> all;
    for (std::int64_t t = 0; t < c.rows; ++t) all.push_back(c.d_policy[t]);
    return all;
  };
  prospect_loss grpo = c_loss("grpo");
  const std::vector<double> own = coefficients(grpo), bnpo = coefficients(c_loss("bnpo"));
  REQUIRE(prospect_loss_set_averaging(&grpo, PROSPECT_TOKENS, nullptr) == PROSPECT_OK);
  CHECK(coefficients(grpo) == bnpo);
  CHECK(own != bnpo);
}

TEST_CASE("what the C surface refuses of a batch of tokens on the device") {
  random_source random{602};
  token_loss_case c = testing::random_tokens(random, false, {4, 3});
  const on_device_tokens d{c};
  const prospect_layout layout = c_layout(d);
  const prospect_loss sft = c_loss("sft"), dpo = c_loss("dpo");
  prospect_error error{};
  const auto refused = [&](const std::string& words, const auto& change,
                           prospect_status expected = PROSPECT_INVALID_ARGUMENT) {
    prospect_token_batch b = testing::c_token_batch(d, layout);
    change(b);
    testing::refused(prospect_token_losses_cuda(&sft, &b, nullptr, nullptr, &error), expected,
                     error, words);
  };
  refused("struct_size", [](auto& b) { b.struct_size = 64; });
  refused(
      "batch.reserved", [](auto& b) { b.reserved = 1; }, PROSPECT_UNSUPPORTED);
  refused("count must be positive", [](auto& b) { b.normaliser = PROSPECT_OVER; });
  refused("count_at", [](auto& b) { b.normaliser = PROSPECT_OVER_AT; });
  refused("layout is NULL", [](auto& b) { b.layout = nullptr; });
  refused("weight must have", [](auto& b) {
    b.weight = b.policy;
    b.weight.size -= 1;
  });
  const prospect_token_batch b = testing::c_token_batch(d, layout);
  testing::refused(prospect_token_losses_cuda(&dpo, &b, nullptr, nullptr, &error),
                   PROSPECT_INVALID_ARGUMENT, error, "dpo is not a token loss");
  testing::refused(prospect_token_losses_cuda(&sft, nullptr, nullptr, nullptr, &error),
                   PROSPECT_INVALID_ARGUMENT, error, "batch is NULL");
}
