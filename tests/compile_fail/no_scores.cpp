// message: static.assert.*scores are for a loss that is a function of one difference of log-ratios
// SimPO knows no log-ratio that a score could stand for.
#include <prospect/losses/any.hpp>

#if defined(DEFECT)
using loss = prospect::simpo;
#else
using loss = prospect::dpo;
#endif

double value(const prospect::pair<double>& p) {
  return prospect::scored<loss>{.score = prospect::forward_kl}(p);
}
