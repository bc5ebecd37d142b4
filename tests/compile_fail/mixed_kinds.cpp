// message: static.assert.*a mixture is made of losses of one kind
// A mixture is of one kind of feedback.
#include <prospect/prospect.hpp>

#if defined(DEFECT)
using other = prospect::kto;
#else
using other = prospect::bco_pair;
#endif

double total(const prospect::paired_batch<float>& batch) {
  return prospect::cpu::evaluate(0.8 * prospect::dpo{} + 0.2 * other{}, batch, {}).total;
}
