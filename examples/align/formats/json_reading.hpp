// JSON that somebody else wrote: duplicate keys and depth are refused, and what is missing or of
// another type is said in one sentence that begins with the file's name.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace align {

// An object, nested not too deeply.
inline nlohmann::json parse_json_object(std::string_view text, const std::string& name) {
  using json = nlohmann::json;
  constexpr int deepest = 32;
  std::vector<std::set<std::string>> keys;
  const auto fail = [&](const std::string& what) { throw std::runtime_error(name + ": " + what); };
  const auto check = [&](int depth, json::parse_event_t event, json& parsed) {
    if (depth > deepest) fail("the JSON is nested too deeply");
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key &&
        !keys.back().insert(parsed.get<std::string>()).second) {
      fail("the JSON has the key " + parsed.get<std::string>() + " twice");
    }
    return true;
  };
  json object;
  try {
    object = json::parse(text, check);
  } catch (const json::parse_error& e) {
    fail("not valid JSON at byte " + std::to_string(e.byte));
  } catch (const json::exception&) {
    fail("a number is out of range");
  }
  if (!object.is_object()) fail("a JSON object is expected");
  return object;
}

// Looks keys up in an object. A key whose value is null counts as missing.
class json_lookup {
 public:
  json_lookup(const nlohmann::json& object, std::string name)
      : object_(object), name_(std::move(name)) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw std::runtime_error(name_ + ": " + what);
  }

  // Null where it is missing.
  const nlohmann::json* find(const char* key) const {
    const auto found = object_.find(key);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }

  const nlohmann::json& at(const char* key) const {
    const auto* found = find(key);
    if (found == nullptr) fail("\"" + std::string(key) + "\" is missing");
    return *found;
  }

  std::uint64_t whole(const char* key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_number_unsigned()) fail("\"" + std::string(key) + "\" must be a whole number");
    return value.get<std::uint64_t>();
  }

  double real(const char* key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_number()) fail("\"" + std::string(key) + "\" must be a number");
    return value.get<double>();
  }

  bool flag(const char* key, bool otherwise) const {
    const nlohmann::json* value = find(key);
    if (value == nullptr) return otherwise;
    if (!value->is_boolean()) fail("\"" + std::string(key) + "\" must be true or false");
    return value->get<bool>();
  }

  std::string text(const char* key) const {
    const nlohmann::json& value = at(key);
    if (!value.is_string()) fail("\"" + std::string(key) + "\" must be a text");
    return value.get<std::string>();
  }

 private:
  const nlohmann::json& object_;
  std::string name_;
};

}  // namespace align
