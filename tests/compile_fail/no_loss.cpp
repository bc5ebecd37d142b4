// message: static.assert.*a paired batch needs a paired loss: a trivially copyable type with
// A type that is no loss is refused in one sentence.
#include <prospect/cpu/sequences.hpp>

struct my_loss {
#if defined(DEFECT)
  double operator()(double margin) const { return margin; }
#else
  template <class T>
  T operator()(const prospect::pair<T>& p) const {
    return prospect::softplus(-p.log_ratio_margin());
  }
#endif
};

double total(const prospect::paired_batch<float>& batch) {
  return prospect::cpu::evaluate(my_loss{}, batch, {}).total;
}
