// AOT through C, on the device as on the host: one tile and many, ties, masked rows and such as are
// no numbers, and what comes out of the loss behind it.
#include <cmath>
#include <cstdint>
#include <vector>

#include "cuda/c_surface.hpp"
#include "random.hpp"

namespace {

using testing::c_row;
using testing::device_array;
using testing::sized;

/// Sequences 0 to n - 1 are chosen, the others rejected.
struct c_aot_case {
  std::int64_t n;
  std::vector<float> policy, reference;
  std::vector<std::int32_t> tokens, chosen, rejected;
  device_array<float> device_policy, device_reference;
  device_array<std::int32_t> device_tokens, device_chosen, device_rejected;

  explicit c_aot_case(std::int64_t pairs)
      : n{pairs},
        tokens(2 * static_cast<std::size_t>(pairs), 3),
        device_policy(tokens.size()),
        device_reference(tokens.size()),
        device_tokens(tokens.size()),
        device_chosen(tokens.size() / 2),
        device_rejected(tokens.size() / 2) {
    testing::random_source random{803};
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      policy.push_back(static_cast<float>(random.integer(-40, -1)));  // many are equal
      reference.push_back(static_cast<float>(random.integer(-40, -1)));
      (i < tokens.size() / 2 ? chosen : rejected).push_back(static_cast<std::int32_t>(i));
    }
    if (n > 4) {
      policy[3] = NAN;
      reference[1] = -INFINITY;
      tokens[0] = 0;
    }
    device_policy.set(policy), device_reference.set(reference), device_tokens.set(tokens);
    device_chosen.set(chosen), device_rejected.set(rejected);
  }

  prospect_pairs indexed(bool device) {
    auto p = sized<prospect_pairs>();
    p.policy = device ? c_row(device_policy) : c_row(policy);
    p.reference = device ? c_row(device_reference) : c_row(reference);
    p.tokens = device ? c_row(device_tokens) : c_row(tokens);
    p.chosen = device ? c_row(device_chosen) : c_row(chosen);
    p.rejected = device ? c_row(device_rejected) : c_row(rejected);
    return p;
  }
  prospect_pairs sides(bool device) {
    const prospect_pairs all = indexed(device);
    auto p = sized<prospect_pairs>();
    p.policy_chosen = prospect_row_slice(all.policy, 0, n);
    p.policy_rejected = prospect_row_slice(all.policy, n, n);
    p.reference_chosen = prospect_row_slice(all.reference, 0, n);
    p.reference_rejected = prospect_row_slice(all.reference, n, n);
    p.chosen_tokens = prospect_row_slice(all.tokens, 0, n);
    p.rejected_tokens = prospect_row_slice(all.tokens, n, n);
    return p;
  }
};

}  // namespace

TEST_CASE("AOT through C, on the device as on the host") {
  const prospect_loss dpo = testing::c_loss("dpo");
  for (const std::int64_t n : {0, 1, 2, 700, 5000}) {
    CAPTURE(n);
    const auto size = static_cast<std::size_t>(n);
    c_aot_case c{n};
    prospect_error error{};
    std::vector<double> margin(size, 7);
    const device_array<double> device_margin(size);
    const prospect_pairs host = c.sides(false), device = c.sides(true);
    testing::require_ok(prospect_aot_margins_cpu(&dpo, &host, c_row(margin), nullptr, &error),
                        error);
    testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_aot_margins_cuda(&dpo, &device, c_row(device_margin), on, e);
    });
    CHECK(device_margin.host() == margin);

    const prospect_pairs among = c.indexed(false), device_among = c.indexed(true);
    std::vector<std::int32_t> chosen(size), rejected(size);
    const device_array<std::int64_t> device_chosen(size), device_rejected(size);
    testing::require_ok(
        prospect_aot_pairs_cpu(&among, c_row(chosen), c_row(rejected), nullptr, &error), error);
    testing::run_on_device([&](const prospect_context* on, prospect_error* e) {
      return prospect_aot_pairs_cuda(&device_among, c_row(device_chosen), c_row(device_rejected),
                                     on, e);
    });
    const std::vector<std::int64_t> up = device_chosen.host(), down = device_rejected.host();
    CHECK(std::vector<std::int32_t>(up.begin(), up.end()) == chosen);
    CHECK(std::vector<std::int32_t>(down.begin(), down.end()) == rejected);
  }
}

TEST_CASE("AOT on the device refuses what it is not for") {
  c_aot_case c{5};
  const device_array<double> margin(5);
  prospect_error error{};
  const prospect_pairs sides = c.sides(true), among = c.indexed(true);
  const auto refused = [&](const char* name, const prospect_pairs& pairs, const char* words) {
    const prospect_loss loss = testing::c_loss(name);
    CHECK(testing::refused(prospect_aot_margins_cuda(&loss, &pairs, c_row(margin), nullptr, &error),
                           PROSPECT_INVALID_ARGUMENT, error, words));
  };
  refused("ipo", sides, "loss is none of the margin");
  refused("kto", sides, "kto is not a paired loss");
  refused("dpo", among, "AOT takes a row for each side");
  CHECK(testing::refused(prospect_aot_pairs_cuda(&sides, c_row(c.device_chosen),
                                                 c_row(c.device_rejected), nullptr, &error),
                         PROSPECT_INVALID_ARGUMENT, error, "pairs.chosen"));
}
