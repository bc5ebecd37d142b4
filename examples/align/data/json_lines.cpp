// See json_lines.hpp.
#include "data/json_lines.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <stdexcept>
#include <utility>

#include "data/left_out.hpp"
#include "data/lines.hpp"

namespace align {
namespace fs = std::filesystem;
using json = nlohmann::json;
namespace {

constexpr std::size_t transcript_vocabulary_limit = 3000;
constexpr int deepest = 32;  // nothing that is read here lies deeper than 3

class line_error {
 public:
  line_error(const fs::path& path, std::size_t number)
      : where_(path.string() + ", line " + std::to_string(number) + ": ") {}

  [[noreturn]] void operator()(const std::string& what) const {
    throw std::runtime_error(where_ + what);
  }

 private:
  std::string where_;
};

std::string quoted(std::string_view key) { return '"' + std::string(key) + '"'; }

// ------------------------------------------------------------------------------------ values ---

json parse_object(std::string_view line, const line_error& fail) {
  std::set<std::string> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > deepest)
      fail("the values lie deeper in each other than " + std::to_string(deepest));
    if (depth == 1 && event == json::parse_event_t::key &&
        !keys.insert(parsed.get<std::string>()).second) {
      fail("a key comes twice: " + parsed.dump(-1, ' ', true).substr(0, 40));
    }
    return true;
  };
  json object;
  try {
    object = json::parse(line, watch);
  } catch (const json::parse_error& e) {
    fail("not valid JSON at column " + std::to_string(e.byte));
  } catch (const json::exception&) {
    fail("a number is out of range");
  }
  if (!object.is_object()) fail("a JSON object is expected");
  return object;
}

const json& member(const json& object, std::string_view key, const line_error& fail) {
  const auto found = object.find(key);
  if (found == object.end()) fail("the key " + quoted(key) + " is missing");
  return *found;
}

// A value as it is written, for a sentence about it: never long, never deep.
std::string shown(const json& value) {
  constexpr std::size_t longest = 40;
  if (value.is_array()) return "a list";
  if (value.is_object()) return "an object";
  std::string text = value.dump(-1, ' ', true);
  return text.size() > longest ? text.substr(0, longest) + "..." : text;
}

bool label_of(const json& object, const line_error& fail) {
  const json& label = member(object, "label", fail);
  if (label.is_boolean()) return label.get<bool>();
  // Tables write whole numbers as 1.0 too.
  if (label.is_number() && (label == 0 || label == 1)) return label == 1;
  fail("\"label\" must be true, false, 1 or 0, not " + shown(label));
}

std::vector<message> messages_of(const json& list, std::string_view key, const line_error& fail) {
  std::vector<message> out;
  for (const json& one : list) {
    const auto text = [&](const char* part) {
      if (!one.is_object() || !one.contains(part) || !one[part].is_string()) {
        fail("every message of " + quoted(key) +
             " must have a \"role\" and a \"content\", both texts");
      }
      return one[part].get<std::string>();
    };
    out.push_back({text("role"), text("content")});
    const std::string& role = out.back().role;
    if (role != "system" && role != "user" && role != "assistant") {
      fail("a role must be system, user or assistant, not " + shown(one["role"]));
    }
  }
  return out;
}

// A text is one turn of the user; no text is none.
std::vector<message> prompt_of(const json& object, const line_error& fail) {
  const json& value = member(object, "prompt", fail);
  if (value.is_array()) return messages_of(value, "prompt", fail);
  if (!value.is_string()) fail("\"prompt\" must be a text or a list of messages");
  if (value.get_ref<const std::string&>().empty()) return {};
  return {{"user", value.get<std::string>()}};
}

// An answer and all that was said before it.
struct exchange {
  std::vector<message> prompt;
  std::string answer;
};

exchange exchange_of(const json& list, std::string_view key, std::vector<message> prompt,
                     const line_error& fail) {
  std::vector<message> said = messages_of(list, key, fail);
  if (said.empty() || said.back().role != "assistant") {
    fail(quoted(key) + " must end with a message of the assistant");
  }
  const bool repeats =
      said.size() > prompt.size() && std::equal(prompt.begin(), prompt.end(), said.begin());
  if (repeats) prompt.clear();
  prompt.insert(prompt.end(), said.begin(), said.end() - 1);
  return {std::move(prompt), std::move(said.back().content)};
}

exchange answer_of(const json& object, std::string_view key, std::vector<message> prompt,
                   const line_error& fail) {
  const json& value = member(object, key, fail);
  if (value.is_array()) return exchange_of(value, key, std::move(prompt), fail);
  if (!value.is_string()) fail(quoted(key) + " must be a text or a list of messages");
  return {std::move(prompt), value.get<std::string>()};
}

// The turns of a transcript; what the assistant said last is the answer. Blanks around a turn
// belong to the transcript, not to what was said.
exchange transcript_of(const std::string& text, std::string_view key, const line_error& fail) {
  constexpr std::string_view human = "\n\nHuman:", assistant = "\n\nAssistant:";
  const std::size_t last = text.rfind(assistant);
  if (last == std::string::npos) fail(quoted(key) + " has no assistant turn");
  exchange out{{}, trimmed(std::string_view(text).substr(last + assistant.size()))};
  std::string_view rest = std::string_view(text).substr(0, last);
  std::string role = "system";  // of what stands before the first turn
  while (true) {
    const std::size_t at = std::min(rest.find(human), rest.find(assistant));
    std::string said = trimmed(rest.substr(0, at));
    if (role != "system" || !said.empty()) out.prompt.push_back({role, std::move(said)});
    if (at == std::string_view::npos) return out;
    const bool by_human = rest.substr(at).starts_with(human);
    role = by_human ? "user" : "assistant";
    rest.remove_prefix(at + (by_human ? human : assistant).size());
  }
}

exchange conversation_of(const json& object, std::string_view key, const line_error& fail) {
  const json& value = member(object, key, fail);
  if (value.is_array()) return exchange_of(value, key, {}, fail);
  if (!value.is_string()) fail(quoted(key) + " must be a transcript or a list of messages");
  return transcript_of(value.get_ref<const std::string&>(), key, fail);
}

// ------------------------------------------------------------------------------------- kinds ---

// Collects what one file holds; one function per kind of line.
class collector {
 public:
  void thumb(const json& object, std::size_t line, const line_error& fail) {
    exchange said = answer_of(object, "completion", prompt_of(object, fail), fail);
    add(std::move(said), label_of(object, fail), line);
  }

  void rated_conversation(const json& object, std::size_t line, const line_error& fail) {
    const json& list = member(object, "messages", fail);
    if (!list.is_array()) fail("\"messages\" must be a list of messages");
    exchange said = exchange_of(list, "messages", {}, fail);
    add(std::move(said), label_of(object, fail), line);
  }

  void choice(const json& object, std::size_t line, const line_error& fail) {
    const std::vector<message> prompt = prompt_of(object, fail);
    exchange chosen = answer_of(object, "chosen", prompt, fail);
    add(std::move(chosen), answer_of(object, "rejected", prompt, fail), line);
  }

  void conversations(const json& object, std::size_t line, const line_error& fail) {
    exchange chosen = conversation_of(object, "chosen", fail);
    add(std::move(chosen), conversation_of(object, "rejected", fail), line);
    // Red-team dialogues are published in this form: offensive on purpose.
    if (object["chosen"].is_string()) {
      out_.quotable = false;
      out_.vocabulary_limit = transcript_vocabulary_limit;
    }
  }

  text_feedback finish() {
    for (const left_out* some : {&different_, &empty_, &same_}) some->note(out_.notes);
    return std::move(out_);
  }

 private:
  void add(exchange e, bool desirable, std::size_t line) {
    if (trimmed(e.answer).empty()) return empty_.lines.push_back(line);
    out_.rows.push_back({std::move(e.prompt), std::move(e.answer), desirable, line});
  }

  void add(exchange chosen, exchange rejected, std::size_t line) {
    if (chosen.prompt != rejected.prompt) return different_.lines.push_back(line);
    if (trimmed(chosen.answer).empty() || trimmed(rejected.answer).empty()) {
      return empty_.lines.push_back(line);
    }
    if (chosen.answer == rejected.answer) return same_.lines.push_back(line);
    out_.duels.push_back(
        {std::move(chosen.prompt), std::move(chosen.answer), std::move(rejected.answer), line});
  }

  text_feedback out_;
  left_out different_{"rows whose two conversations differ before the last turn"};
  left_out empty_{"rows with an empty completion"};
  left_out same_{"rows whose chosen and rejected completion are the same"};
};

struct line_kind {
  std::vector<std::string_view> keys;
  void (collector::*read)(const json&, std::size_t line, const line_error&);

  std::string listed() const {
    std::string list;
    for (const std::string_view key : keys) list += (list.empty() ? "" : ", ") + std::string(key);
    return list;
  }
};

// In the order in which they are looked for: the last is a part of the one before.
const line_kind kinds[] = {{{"prompt", "completion", "label"}, &collector::thumb},
                           {{"messages", "label"}, &collector::rated_conversation},
                           {{"prompt", "chosen", "rejected"}, &collector::choice},
                           {{"chosen", "rejected"}, &collector::conversations}};

const line_kind* recognise(const json& object) {
  const auto found = std::ranges::find_if(kinds, [&](const line_kind& kind) {
    return std::ranges::all_of(kind.keys, [&](auto key) { return object.contains(key); });
  });
  return found == std::end(kinds) ? nullptr : found;
}

}  // namespace

text_feedback parse_json_lines(std::string_view text, const fs::path& path) {
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (text.starts_with(byte_order_mark)) text.remove_prefix(byte_order_mark.size());
  collector all;
  const line_kind* kind = nullptr;
  for_each_line(text, [&](std::string_view line, std::size_t number) {
    const line_error fail(path, number);
    const json object = parse_object(line, fail);
    const line_kind* const own = recognise(object);
    if (kind == nullptr && own == nullptr) {
      fail("the keys must be " + kinds[0].listed() + " or " + kinds[1].listed() + " (thumbs), or " +
           kinds[2].listed() + " or " + kinds[3].listed() + " (choices)");
    }
    if (kind == nullptr) kind = own;
    if (own != nullptr && own != kind) {
      fail("this line holds " + own->listed() + ", but those before it " + kind->listed() +
           ": a file has lines of one kind");
    }
    (all.*kind->read)(object, number, fail);
  });
  if (kind == nullptr) throw std::runtime_error(path.string() + " is empty");
  text_feedback out = all.finish();
  out.name = path.filename().string();
  return out;
}

}  // namespace align
