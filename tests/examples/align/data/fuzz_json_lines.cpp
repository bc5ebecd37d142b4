// Fuzzes what reads a user's JSON lines: a file is refused with the line that is wrong, or gives
// feedback that teaches something, and what it gives comes back when it is written down.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

#include "data/json_lines.hpp"
#include "text/utf8.hpp"

namespace {

using json = nlohmann::json;

void require(bool holds) {
  if (!holds) std::abort();
}

bool teaches(const std::string& answer) {
  return answer.find_first_not_of(" \t\r\n") != std::string::npos &&
         align::well_formed_size(answer) == answer.size();
}

json written(const std::vector<align::message>& prompt) {
  json list = json::array();
  for (const align::message& m : prompt) list.push_back({{"role", m.role}, {"content", m.content}});
  return list;
}

std::string written(const align::text_feedback& feedback) {
  std::string lines;
  for (const align::text_row& row : feedback.rows) {
    lines += json{{"prompt", written(row.prompt)},
                  {"completion", row.completion},
                  {"label", row.desirable}}
                 .dump() +
             "\n";
  }
  for (const align::text_duel& duel : feedback.duels) {
    lines +=
        json{{"prompt", written(duel.prompt)}, {"chosen", duel.chosen}, {"rejected", duel.rejected}}
            .dump() +
        "\n";
  }
  return lines;
}

void check(const align::text_feedback& feedback) {
  require(feedback.rows.empty() || feedback.duels.empty());
  for (const align::text_row& row : feedback.rows) require(row.line > 0 && teaches(row.completion));
  for (const align::text_duel& duel : feedback.duels) {
    require(duel.line > 0 && teaches(duel.chosen) && teaches(duel.rejected));
    require(duel.chosen != duel.rejected);
  }
  const std::string lines = written(feedback);
  if (lines.empty()) return;  // of what there was, nothing teaches
  const align::text_feedback again = align::parse_json_lines(lines, "again.jsonl");
  require(again.notes.empty());
  require(written(again) == lines);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(data, data + size);
  try {
    check(align::parse_json_lines(text, "lines.jsonl"));
  } catch (const std::runtime_error& refused) {
    require(std::string(refused.what()).starts_with("lines.jsonl"));
  }
  return 0;
}
