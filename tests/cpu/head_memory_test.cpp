// The head path's memory is the workspace's: what it takes beside it is a few numbers per token.
// Phase 2 takes none. Counted where it comes from, in operator new of this program; the address
// sanitizer brings its own, so that there is nothing to count under it.

#if defined(__SANITIZE_ADDRESS__)
#define PROSPECT_TEST_OWN_NEW 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define PROSPECT_TEST_OWN_NEW 0
#endif
#endif
#if !defined(PROSPECT_TEST_OWN_NEW)

#include <prospect/cpu/head.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/losses.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "catch.hpp"
#include "cpu/head_cases.hpp"
#include "random.hpp"

namespace {

// Each block starts with its size, so that what is freed can be subtracted.
std::atomic<std::int64_t> in_use{0}, highest_use{0};
constexpr std::size_t front = 64;

void* counted_new(std::size_t bytes, std::size_t alignment) {
  const std::size_t offset = alignment > front ? alignment : front;
  const std::size_t whole = (bytes + offset + offset - 1) / offset * offset;
  auto* block = static_cast<std::byte*>(std::aligned_alloc(offset, whole));
  if (block == nullptr) throw std::bad_alloc{};
  *reinterpret_cast<std::int64_t*>(block) = static_cast<std::int64_t>(bytes);
  const std::int64_t now = in_use += static_cast<std::int64_t>(bytes);
  for (std::int64_t seen = highest_use; now > seen;) {
    if (highest_use.compare_exchange_weak(seen, now)) break;
  }
  return block + offset;
}

void counted_delete(void* p, std::size_t alignment) noexcept {
  if (p == nullptr) return;
  auto* block = static_cast<std::byte*>(p) - (alignment > front ? alignment : front);
  in_use -= *reinterpret_cast<std::int64_t*>(block);
  std::free(block);
}

/// The most that `call` had in use at once, beyond what was there before.
template <class Call>
std::int64_t peak(const Call& call) {
  const std::int64_t before = in_use;
  highest_use = before;
  call();
  return highest_use - before;
}

}  // namespace

void* operator new(std::size_t bytes) { return counted_new(bytes, 1); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted_new(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* p) noexcept { counted_delete(p, 1); }
void operator delete(void* p, std::size_t) noexcept { counted_delete(p, 1); }
void operator delete(void* p, std::align_val_t alignment) noexcept {
  counted_delete(p, static_cast<std::size_t>(alignment));
}
void operator delete(void* p, std::size_t, std::align_val_t alignment) noexcept {
  counted_delete(p, static_cast<std::size_t>(alignment));
}

TEST_CASE("losses and coefficients take no memory, however long the batch", "[sequences][memory]") {
  using prospect::cpu::evaluate;
  constexpr std::int32_t n = 3 << 16;
  const std::vector<float> policy(n, -3);
  const std::vector<double> reference(n, -4);
  const std::vector<std::uint8_t> up(n, 1);
  const std::vector<std::int32_t> tokens(n, 5);
  std::vector<std::int32_t> chosen, rejected;
  for (std::int32_t i = 0; i < n; i += 2) {
    chosen.push_back(i);
    rejected.push_back(i + 1);
  }
  std::vector<prospect::float16> d(n);
  prospect::thread_pool two{2};
  CHECK(peak([&] {
          evaluate(prospect::dpo{},
                   {.policy_chosen = policy,
                    .policy_rejected = policy,
                    .reference_chosen = reference,
                    .reference_rejected = reference,
                    .chosen_tokens = tokens},
                   {.d_policy_chosen = d}, prospect::normaliser::mean(), two);
        }) == 0);
  CHECK(peak([&] {
          evaluate(prospect::dpo{},
                   {.policy = policy,
                    .reference = policy,
                    .tokens = tokens,
                    .chosen = chosen,
                    .rejected = rejected},
                   {.d_policy = d}, prospect::normaliser::mean(), two);
        }) == 0);
  CHECK(peak([&] {
          evaluate(prospect::kto{}, {.policy = policy, .reference = reference, .desirable = up},
                   prospect::cross_class{}, {.d_policy = d}, prospect::normaliser::mean(), two);
          prospect::cpu::mismatched_kl(policy, reference, tokens, two);
        }) == 0);
}

TEMPLATE_TEST_CASE("the head path stays inside its workspace", "[head][memory]", float,
                   prospect::bfloat16) {
  using namespace prospect::cpu;
  using R = prospect::compute_t<TestType>;
  testing::random_source random{801};
  CAPTURE(random.seed());
  const std::int64_t rank = GENERATE(0, 7);
  CAPTURE(rank);
  testing::head_case<TestType> c{random, {256, 24, 5000, rank}, true};
  prospect::serial_executor on;
  // Logits alone would be 5 MB. Beside the workspace: scores and a partial per token of a chunk.
  constexpr std::int64_t beside = 256 * 128 + 4096;
  for (const std::int64_t bytes :
       {std::int64_t{2} << 20, std::int64_t{3} << 20, std::int64_t{12} << 20}) {
    for (const bool keep : {false, true}) {
      CAPTURE(bytes, keep);
      testing::head_results<TestType> r{c.shape};
      head_workspace<R> workspace{bytes};
      const auto step = [&] {
        const head_ticket ticket = head_log_probs(c.hidden.view(), c.head(), c.targets, r.scores(),
                                                  workspace, keep, c.options, {}, on);
        head_gradient(c.hidden.view(), c.head(), c.targets, r.log_prob, r.lse, c.d_token,
                      r.gradients(), ticket, workspace, c.options, {}, on);
      };
      CHECK(peak(step) <= bytes + beside);
      // And it is there the next time.
      CHECK(peak(step) <= beside);
    }
  }
}

#endif
