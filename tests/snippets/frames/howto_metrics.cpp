// frame of docs/howto/ranks.md, with prospect::named_metric metric
#include <prospect/prospect.hpp>

#include <string>
#include <string_view>

#include "frame.hpp"

int main() {
  const auto all_reduce_sum = [](double x) { return 2 * x; };
  std::string logged;
  const auto log = [&](std::string_view name, double value) {
    REQUIRE(name == "loss" && value == 3);
    logged += name;
  };
  prospect::paired_metrics metrics;
  metrics.loss = {.sum = 6, .count = 2};
  // here
  REQUIRE(logged == "loss");
}
