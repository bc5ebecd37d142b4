// Laying sequences out in a packed batch.
#include "model/batch.hpp"

#include <stdexcept>

namespace align {
namespace {

std::int32_t size_of(const auto& items) { return static_cast<std::int32_t>(items.size()); }

void add_prompt(std::span<const token> prompt, std::vector<token>& inputs) {
  if (prompt.empty()) throw std::invalid_argument("a prompt must hold at least one token");
  inputs.insert(inputs.end(), prompt.begin(), prompt.end());
}

}  // namespace

void packed_batch::append(std::span<const token> prompt, std::span<const token> completion) {
  add_prompt(prompt, inputs);
  for (const token next : completion) {
    scored.push_back(size_of(inputs) - 1);
    targets.push_back(next);
    inputs.push_back(next);
  }
  inputs.pop_back();
  offsets.push_back(size_of(inputs));
  scored_offsets.push_back(size_of(scored));
}

void packed_batch::append_open(std::span<const token> prompt, std::span<const token> completion) {
  add_prompt(prompt, inputs);
  inputs.insert(inputs.end(), completion.begin(), completion.end());
  scored.push_back(size_of(inputs) - 1);
  targets.push_back(0);
  offsets.push_back(size_of(inputs));
  scored_offsets.push_back(size_of(scored));
}

void packed_batch::clear() {
  inputs.clear();
  offsets.assign(1, 0);
  scored.clear();
  targets.clear();
  scored_offsets.assign(1, 0);
}

}  // namespace align
