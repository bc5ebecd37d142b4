// prospect._core: the C API for Python, as thin as it goes. What users see is written in Python, in
// prospect/__init__.py and prospect/torch.py.
#include "losses.hpp"

NB_MODULE(_core, m) {
  nanobind::set_leak_warnings(
      false);  // PyTorch keeps operators, and what they hold, until the process ends
  m.doc() =
      "The C API of Prospect for arrays of other libraries. Use `prospect` and `prospect.torch`.";
  prospect::python::add_losses(m);
  prospect::python::add_sequences(m);
  prospect::python::add_tokens(m);
  prospect::python::add_head(m);
}
