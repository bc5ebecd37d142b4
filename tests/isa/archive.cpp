// A program that calls the archive alone; linked with a unit for a newer processor that uses the
// headers and is called only where there is an argument.
#include <prospect/c/prospect.h>

#include <cmath>
#include <cstddef>
#include <cstdint>

bool newer_unit();

namespace {

/// DPO from logits to their gradient, on the pair and with the numbers of use.hpp; and a refusal,
/// whose message is made of the standard library's strings.
bool archive_is_right() {
  float logits[] = {1, 2, 3, 4, 1, 2, 3, 4};
  const std::int64_t targets[] = {2, 1};
  const double reference[] = {-2, -2};
  prospect_error error{};
  prospect_loss loss{};
  if (prospect_loss_init(&loss, "no such loss", &error) != PROSPECT_UNKNOWN_NAME) return false;
  if (prospect_loss_init(&loss, "dpo", &error) != PROSPECT_OK) return false;
  if (prospect_loss_set(&loss, "beta", 1, &error) != PROSPECT_OK) return false;

  prospect_layout layout{};
  layout.struct_size = sizeof layout;
  layout.sequences = 2;
  layout.length = 1;
  prospect_tokens tokens{};
  tokens.struct_size = sizeof tokens;
  tokens.targets = PROSPECT_ROW(targets, 2);
  tokens.layout = &layout;
  prospect_pairs pairs{};
  pairs.struct_size = sizeof pairs;
  pairs.reference = PROSPECT_ROW(reference, 2);
  prospect_step step{};
  step.struct_size = sizeof step;
  step.logits = PROSPECT_MATRIX(logits, 2, 4);
  step.tokens = &tokens;
  step.loss = &loss;
  step.pairs = &pairs;
  prospect_metrics metrics{};
  metrics.struct_size = sizeof metrics;

  std::size_t bytes = 0;
  prospect_context context{};
  context.struct_size = sizeof context;
  context.query = &bytes;
  if (prospect_step_cpu(&step, &metrics, &context, &error) != PROSPECT_OK) return false;
  alignas(64) static unsigned char scratch[4096];
  if (bytes > sizeof scratch) return false;
  context.query = nullptr;
  context.scratch = scratch;
  context.scratch_size = sizeof scratch;
  if (prospect_step_cpu(&step, &metrics, &context, &error) != PROSPECT_OK) return false;
  return std::abs(metrics.total - 0.313262) < 1e-5 &&
         std::abs(logits[2] + 0.268941 * (1 - 0.236883)) < 1e-5;
}

}  // namespace

int main(int count, char**) { return (count > 1 ? newer_unit() : archive_is_right()) ? 0 : 1; }
