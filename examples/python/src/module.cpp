// prospect._core: the C API for Python, as thin as it goes. What users see is written in Python, in
// prospect/__init__.py and prospect/torch.py.
#include "losses.hpp"

NB_MODULE(_core, m) {
  // PyTorch keeps operators, and the losses they were called with, until the process ends.
  nanobind::set_leak_warnings(false);
  m.doc() =
      "The C API of Prospect for arrays of other libraries. Use `prospect` and `prospect.torch`.";
  prospect::python::add_losses(m);
  prospect::python::add_sequences(m);
  prospect::python::add_tokens(m);
  prospect::python::add_head(m);
}
