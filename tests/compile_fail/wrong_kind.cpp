// message: static.assert.*an unpaired batch needs an unpaired loss: a trivially copyable type with
// A paired loss does not take unpaired feedback.
#include <prospect/prospect.hpp>

#if defined(DEFECT)
using loss = prospect::dpo;
#else
using loss = prospect::kto;
#endif

double total(const prospect::unpaired_batch<float>& batch) {
  return prospect::cpu::evaluate(loss{}, batch, prospect::reference_point{}, {}).total;
}
