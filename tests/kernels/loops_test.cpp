// The archive's loops over sequences in every instruction set this machine has: a loss of each
// way through them and every storage type against its oracle, in blocks that are full and blocks
// that are not.

#include <kernels/loops.hpp>
#include <prospect/cpu/sequences.hpp>
#include <prospect/losses/any.hpp>

#include <cstdint>

#include "catch.hpp"
#include "cpu/cases.hpp"
#include "cpu/sequence_checks.hpp"
#include "kernels/sets.hpp"
#include "losses/some.hpp"
#include "random.hpp"

namespace {

namespace pk = prospect::kernels;
using prospect::bfloat16;
using prospect::float16;
using prospect::detail::any_rows;
using testing::paired_case;
using testing::unpaired_case;

/// The back end under test.
struct on_set {
  pk::isa set;

  template <class S, class L>
  prospect::paired_metrics operator()(const L& loss, paired_case<S>& c) const {
    return prospect::cpu::detail::evaluate_pairs(
        pk::loops_for<prospect::compute_t<S>, prospect::any_paired>(set),
        prospect::any_paired{loss}, any_rows(c.in()), any_rows(c.out()),
        prospect::normaliser::mean(), prospect::thread_pool::shared());
  }
  template <class S, class L, class Point>
  prospect::unpaired_metrics operator()(const L& loss, unpaired_case<S>& c,
                                        const Point& point) const {
    return prospect::cpu::detail::evaluate_completions(
        pk::loops_for<prospect::compute_t<S>, prospect::any_unpaired>(set),
        prospect::any_unpaired{loss}, any_rows(c.in()), point, any_rows(c.out()),
        prospect::normaliser::mean(), prospect::thread_pool::shared());
  }
};

}  // namespace

TEMPLATE_TEST_CASE("every instruction set evaluates every kind of loss", "[loops]", float, double,
                   bfloat16, float16) {
  testing::random_source random{302};
  CAPTURE(random.seed());
  for (const pk::isa set : testing::sets_of_this_machine()) {
    CAPTURE(static_cast<int>(set));
    testing::for_some_losses([&]<class L>(const L& loss) {
      for (const std::int64_t n : {1, 64, 150}) {
        for (const bool spread_out : {false, true}) {
          if constexpr (prospect::paired_loss<L>) {
            paired_case<TestType> c{random, n, spread_out, spread_out};
            testing::check_paired(on_set{set}, loss, c);
          } else {
            unpaired_case<TestType> c{random, n, spread_out, spread_out};
            testing::check_unpaired(on_set{set}, loss, c, 0.75);
          }
        }
      }
    });
  }
}

TEMPLATE_TEST_CASE("every instruction set finds the other class", "[loops]", float, double,
                   bfloat16, float16) {
  testing::random_source random{303};
  CAPTURE(random.seed());
  const prospect::kto loss;
  unpaired_case<TestType> want{random, 150, true};
  const auto metrics =
      prospect::cpu::evaluate(loss, want.in(), prospect::cross_class{}, want.out());
  for (const pk::isa set : testing::sets_of_this_machine()) {
    CAPTURE(static_cast<int>(set));
    unpaired_case<TestType> got = want;
    for (auto* row : got.outputs()) {
      for (std::int64_t i = 0; i < row->size(); ++i) (*row)[i] = testing::poison<TestType>();
    }
    const auto its = on_set{set}(loss, got, prospect::cross_class{});
    CHECK(testing::near(its.kl.sum, metrics.kl.sum, 1e-12L));
    CHECK(testing::near(its.total, metrics.total, 1e-6L));
    for (std::int64_t i = 0; i < 150; ++i) {
      CAPTURE(i);
      const double d = prospect::load(want.d_policy[i]);
      CHECK(testing::near(prospect::load(got.d_policy[i]), d, sizeof(TestType) == 2 ? 1e-2L : 1e-6L,
                          1e-7L));
    }
  }
}
