#include "call.hpp"

#include <stdexcept>

namespace prospect::python {

void check(prospect_status status, const prospect_error& error) {
  switch (status) {
    case PROSPECT_OK:
      return;
    case PROSPECT_INVALID_ARGUMENT:
    case PROSPECT_UNKNOWN_NAME:
    case PROSPECT_UNSUPPORTED:
      throw nb::value_error(error.message);
    default:
      throw std::runtime_error(error.message);
  }
}

void check_device(const arrays&) {
#ifndef PROSPECT_PYTHON_CUDA
  throw nb::value_error(
      "prospect: the arrays lie on a CUDA device, and this package was built without device "
      "code: install it where nvcc is, with pip install -C cmake.define.PROSPECT_CUDA=ON");
#endif
}

}  // namespace prospect::python
