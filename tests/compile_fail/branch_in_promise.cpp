// message: prospect: this loss promises to be branch_free, but its formula has an if
// A loss that promises to be free of branches is held to it.
#include <prospect/prospect.hpp>

struct loss {
  static constexpr bool branch_free = true;
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    const T margin = p.log_ratio_margin();
#if defined(DEFECT)
    if (margin < 0) return -margin;
    return T(0);
#else
    return select(margin < 0, -margin, T(0));
#endif
  }
};

double total(const prospect::paired_batch<float>& batch) {
  return prospect::cpu::evaluate(loss{}, batch, {}).total;
}
