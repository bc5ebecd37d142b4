// One call of the C API: on the host without the interpreter's lock, or put on a device's stream;
// its status becomes an exception.
#pragma once

#include "arrays.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <optional>

namespace prospect::python {

/// Throws for anything but PROSPECT_OK: ValueError for what the caller can mend, else RuntimeError.
void check(prospect_status status, const prospect_error& error);

/// Where device work goes: a cudaStream_t as a number, and who allocates scratch memory there,
/// allocate(bytes) -> array. Without meaning on the host.
struct placement {
  std::uintptr_t stream = 0;
  nb::object allocate = nb::none();
  /// For calls to which more is of use than they need: what is given is the caller's to limit, and
  /// too little is refused by the call, which says what is enough.
  std::size_t scratch_at_most = std::numeric_limits<std::size_t>::max();
};

/// Refuses device memory where the package has no device code.
void check_device(const arrays& held);

/// Calls host(context, error) or device(context, error), whichever the arrays ask for. On a device
/// it is asked first how much scratch memory it takes.
template <class Host, class Device>
void call(const arrays& held, const placement& where, const Host& host, const Device& device) {
  prospect_error error{};
  if (!held.on_device()) {
    prospect_status status = PROSPECT_OK;
    {
      const nb::gil_scoped_release unlocked;
      status = host(static_cast<const prospect_context*>(nullptr), &error);
    }
    return check(status, error);
  }
  check_device(held);
  prospect_context context{};
  PROSPECT_INIT(context);
  context.stream = reinterpret_cast<CUstream_st*>(where.stream);
  std::size_t bytes = 0;
  context.query = &bytes;
  check(device(&context, &error), error);
  context.query = nullptr;
  bytes = std::min(bytes, where.scratch_at_most);
  std::optional<nb::ndarray<>> scratch;
  if (bytes > 0) {
    if (where.allocate.is_none()) refuse("allocate", "must be given for arrays on a device");
    scratch = nb::cast<nb::ndarray<>>(where.allocate(bytes));
    context.scratch = scratch->data();
    context.scratch_size = bytes;
  }
  check(device(&context, &error), error);
}

}  // namespace prospect::python
