#include "losses.hpp"

#include <string>
#include <vector>

namespace prospect::python {

namespace {

loss make(const std::string& name, nb::dict parameters, const std::string& score, double alpha,
          const std::string& averaging) {
  loss made;
  prospect_error error{};
  check(prospect_loss_init(&made.value, name.c_str(), &error), error);
  check(prospect_loss_kind(&made.value, &made.kind, &error), error);
  for (const auto [key, value] : parameters) {
    const auto parameter = nb::cast<std::string>(key);
    double number = 0;
    if (!nb::try_cast(value, number)) refuse(parameter, "must be a number");
    check(prospect_loss_set(&made.value, parameter.c_str(), number, &error), error);
  }
  if (!score.empty()) {
    check(prospect_loss_set_score(&made.value, score.c_str(), alpha, &error), error);
  }
  if (!averaging.empty()) {
    const bool tokens = averaging == "tokens";
    const bool means = averaging == "sequence_means";
    if (!tokens && !means && averaging != "sequence_sums") {
      refuse("averaging", R"(must be "tokens", "sequence_means" or "sequence_sums")");
    }
    const prospect_averaging how = tokens  ? PROSPECT_TOKENS
                                   : means ? PROSPECT_SEQUENCE_MEANS
                                           : PROSPECT_SEQUENCE_SUMS;
    check(prospect_loss_set_averaging(&made.value, how, &error), error);
  }
  return made;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (std::int32_t i = 0; i < prospect_loss_count(); ++i) all.emplace_back(prospect_loss_name(i));
  return all;
}

const char* kind_of(const loss& l) {
  switch (l.kind) {
    case PROSPECT_PAIRED_LOSS:
      return "paired";
    case PROSPECT_UNPAIRED_LOSS:
      return "unpaired";
    default:
      return "token";
  }
}

nb::dict parameters_of(const loss& l) {
  nb::dict all;
  prospect_error error{};
  for (std::int32_t i = 0;; ++i) {
    const char* const name = prospect_loss_parameter(&l.value, i);
    if (name == nullptr) return all;
    double value = 0;
    check(prospect_loss_get(&l.value, name, &value, &error), error);
    all[name] = value;
  }
}

std::string version() {
  const std::uint32_t v = prospect_version();
  return std::to_string(v / 10000) + "." + std::to_string(v / 100 % 100) + "." +
         std::to_string(v % 100);
}

}  // namespace

void add_losses(nb::module_& m) {
  nb::class_<loss>(m, "Loss", "A built-in loss with its hyper-parameters.")
      .def(
          "__init__",
          [](loss* self, const std::string& name, nb::dict parameters, const std::string& score,
             double alpha, const std::string& averaging) {
            new (self) loss{make(name, parameters, score, alpha, averaging)};
          },
          nb::arg("name"), nb::arg("parameters") = nb::dict(), nb::arg("score") = "",
          nb::arg("alpha") = 0.0, nb::arg("averaging") = "",
          "ValueError names a loss, parameter or value that is not possible.")
      .def_prop_ro("kind", &kind_of, "'paired', 'unpaired' or 'token'")
      .def_prop_ro("parameters", &parameters_of, "Names and values, in the order of the loss.");
  m.def("loss_names", &names, "The built-in losses.");
  m.def("version", &version, "MAJOR.MINOR.PATCH of the library.");
  m.def(
      "has_cuda",
      [] {
#ifdef PROSPECT_PYTHON_CUDA
        return true;
#else
        return false;
#endif
      },
      "Whether the package was built with device code.");
  m.def("shutdown", &prospect_shutdown, "Ends the library's threads, after the work they are at.");
}

}  // namespace prospect::python
