// Where losses were before they had wings of their own: these paths go with 0.4.
#include <prospect/losses/dpo.hpp>
#include <prospect/losses/hinge.hpp>
#include <prospect/losses/ipo.hpp>
#include <prospect/losses/ipo_sum.hpp>
#include <prospect/losses/kto.hpp>
#include <prospect/losses/kto_zero.hpp>
#include <prospect/losses/robust_dpo.hpp>

#include "catch.hpp"

TEST_CASE("the old paths of losses lead to them", "[losses]") {
  STATIC_REQUIRE(prospect::paired_loss<prospect::dpo>);
  STATIC_REQUIRE(prospect::paired_loss<prospect::hinge>);
  STATIC_REQUIRE(prospect::paired_loss<prospect::ipo>);
  STATIC_REQUIRE(prospect::paired_loss<prospect::ipo_sum>);
  STATIC_REQUIRE(prospect::paired_loss<prospect::robust_dpo>);
  STATIC_REQUIRE(prospect::unpaired_loss<prospect::kto>);
  STATIC_REQUIRE(prospect::unpaired_loss<prospect::kto_zero>);
}
