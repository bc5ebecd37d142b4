// See sources.hpp.
#include "sources.hpp"

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <utility>

#include "files.hpp"

namespace align {
namespace fs = std::filesystem;
using json = nlohmann::json;
namespace {

constexpr std::string_view sha256_polarity_positive =
    "4134882974a28d0c7b5151256f0e33a6169984ee7372c279e673f1114f475d58";
constexpr std::string_view sha256_polarity_negative =
    "2d11cfbc790f1cd96d78339f41ce53ced1efa83cd22d37d6788fa3fe3d17e2fd";
constexpr std::string_view sha256_harmless_packed =
    "ebfaaed21162a4de120ae85366075b34425e2a6303fac59b99555002f7016f03";
constexpr std::string_view sha256_harmless_unpacked =
    "14d765196c9f18d84f9bb3a78bac608c8f2915110ebcbd74ec95db7b7198b008";

constexpr std::string_view polarity_positive = "rt-polarity.pos";
constexpr std::string_view polarity_negative = "rt-polarity.neg";
constexpr std::string_view harmless_packed = "harmless-base-test.jsonl.gz";
constexpr std::string_view harmless_unpacked = "harmless-base-test.jsonl";

constexpr std::size_t polarity_prompt_tokens = 2;
constexpr std::size_t polarity_shortest_snippet = 7;
constexpr std::size_t transcript_vocabulary_limit = 3000;

// Calls `use(line, number)` for every line that is not blank; numbers count from 1.
template <class Use>
void for_each_line(std::string_view text, Use use) {
  for (std::size_t number = 1; !text.empty(); ++number) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) use(line, number);
  }
}

// ------------------------------------------------------------------------------- rt-polarity ---

worded_feedback read_polarity(const fs::path& folder) {
  const fs::path positive = folder / polarity_positive, negative = folder / polarity_negative;
  const std::string liked = read_file(positive), disliked = read_file(negative);
  require_sha256(liked, sha256_polarity_positive, positive);
  require_sha256(disliked, sha256_polarity_negative, negative);
  return parse_polarity(liked, disliked);
}

// -------------------------------------------------------------------------------- JSON lines ---

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

json parse_object(std::string_view line, const line_error& fail) {
  json object;
  try {
    object = json::parse(line);
  } catch (const json::parse_error& e) {
    fail("not valid JSON at column " + std::to_string(e.byte));
  } catch (const json::exception&) {
    fail("a number is out of range");
  }
  if (!object.is_object()) fail("a JSON object is expected");
  return object;
}

const std::string& text_member(const json& object, const char* key, const line_error& fail) {
  const auto found = object.find(key);
  if (found == object.end()) fail("the key \"" + std::string(key) + "\" is missing");
  if (!found->is_string()) fail("\"" + std::string(key) + "\" must be a text");
  return found->get_ref<const std::string&>();
}

bool thumb_member(const json& object, const line_error& fail) {
  const auto found = object.find("label");
  if (found == object.end()) fail("the key \"label\" is missing");
  if (found->is_boolean()) return found->get<bool>();
  if (*found == 0 || *found == 1) return *found == 1;
  fail("\"label\" must be true or false");
}

// A transcript up to and with the last "Assistant:", and what the assistant then said.
std::pair<std::string_view, std::string_view> split_transcript(std::string_view text,
                                                               const char* key,
                                                               const line_error& fail) {
  constexpr std::string_view turn = "\n\nAssistant:";
  const std::size_t at = text.rfind(turn);
  if (at == std::string_view::npos) fail("\"" + std::string(key) + "\" has no assistant turn");
  return {text.substr(0, at + turn.size()), text.substr(at + turn.size())};
}

// Collects what one file holds; one function per format.
class json_lines_reader {
 public:
  void thumb(const json& object, const line_error& fail) {
    worded_row r{tokenise(text_member(object, "prompt", fail)),
                 tokenise(text_member(object, "completion", fail)), thumb_member(object, fail)};
    if (r.completion.empty()) return void(++empty_);
    out.rows.push_back(std::move(r));
  }

  void choice(const json& object, const line_error& fail) {
    add_duel(tokenise(text_member(object, "prompt", fail)),
             tokenise(text_member(object, "chosen", fail)),
             tokenise(text_member(object, "rejected", fail)));
  }

  void transcripts(const json& object, const line_error& fail) {
    const auto [prompt, chosen] =
        split_transcript(text_member(object, "chosen", fail), "chosen", fail);
    const auto [other_prompt, rejected] =
        split_transcript(text_member(object, "rejected", fail), "rejected", fail);
    if (prompt != other_prompt) return void(++different_prompts_);
    add_duel(tokenise(prompt), tokenise(chosen), tokenise(rejected));
  }

  worded_feedback finish() {
    note(different_prompts_, "whose two transcripts differ before the last turn");
    note(empty_, "with an empty completion");
    return std::move(out);
  }

  worded_feedback out;

 private:
  void add_duel(words prompt, words chosen, words rejected) {
    if (chosen.empty() || rejected.empty()) return void(++empty_);
    out.duels.push_back({std::move(prompt), std::move(chosen), std::move(rejected)});
  }

  void note(int count, const std::string& what) {
    if (count > 0) out.notes.push_back("Left out " + std::to_string(count) + " rows " + what + ".");
  }

  int different_prompts_ = 0, empty_ = 0;
};

using line_format = void (json_lines_reader::*)(const json&, const line_error&);

line_format recognise(const json& first, const line_error& fail) {
  const auto has = [&](std::initializer_list<const char*> keys) {
    for (const char* key : keys) {
      if (!first.contains(key)) return false;
    }
    return true;
  };
  if (has({"prompt", "completion", "label"})) return &json_lines_reader::thumb;
  if (has({"prompt", "chosen", "rejected"})) return &json_lines_reader::choice;
  if (has({"chosen", "rejected"})) return &json_lines_reader::transcripts;
  fail(
      "the keys must be prompt, completion, label (thumbs) or prompt, chosen, rejected "
      "(choices) or chosen, rejected (transcripts)");
}

worded_feedback read_json_lines(const fs::path& path) {
  std::string bytes = read_file(path);
  if (path.filename() == harmless_packed) require_sha256(bytes, sha256_harmless_packed, path);
  if (path.filename() == harmless_unpacked) require_sha256(bytes, sha256_harmless_unpacked, path);
  return parse_json_lines(unpack(std::move(bytes), path), path);
}

worded_feedback read_folder(const fs::path& folder) {
  if (fs::exists(folder / polarity_positive) || fs::exists(folder / polarity_negative)) {
    return read_polarity(folder);
  }
  for (const std::string_view name : {harmless_packed, harmless_unpacked}) {
    if (fs::exists(folder / name)) return read_json_lines(folder / name);
  }
  throw std::runtime_error(
      "the folder " + folder.string() + " holds neither rt-polarity.pos and rt-polarity.neg nor " +
      std::string(harmless_packed) + "; feedback of your own is given as a .jsonl file");
}

}  // namespace

worded_feedback read_feedback(const fs::path& path) {
  std::error_code unreadable;
  if (!fs::exists(path, unreadable)) {
    throw std::runtime_error("there is no file or folder " + path.string());
  }
  if (fs::is_directory(path)) return read_folder(path);
  if (path.filename() == polarity_positive || path.filename() == polarity_negative) {
    return read_polarity(path.parent_path());
  }
  return read_json_lines(path);
}

worded_feedback parse_polarity(std::string_view positive, std::string_view negative) {
  worded_feedback out;
  out.name = "rt-polarity: film reviews with the critics' own votes";
  out.notes.push_back("Data: Pang and Lee (ACL 2005), sentence polarity, CC BY 4.0.");
  int too_short = 0;
  const auto add = [&](std::string_view snippets, bool desirable) {
    for_each_line(snippets, [&](std::string_view line, std::size_t) {
      words text = tokenise(line);
      if (text.size() < polarity_shortest_snippet) return void(++too_short);
      const auto rest = text.begin() + polarity_prompt_tokens;
      out.rows.push_back({words(text.begin(), rest), words(rest, text.end()), desirable});
    });
  };
  add(positive, true);
  add(negative, false);
  if (too_short > 0) {
    out.notes.push_back("Left out " + std::to_string(too_short) + " snippets shorter than " +
                        std::to_string(polarity_shortest_snippet) + " tokens.");
  }
  return out;
}

worded_feedback parse_json_lines(std::string_view text, const fs::path& path) {
  json_lines_reader reader;
  line_format format = nullptr;
  for_each_line(text, [&](std::string_view line, std::size_t number) {
    const line_error fail(path, number);
    const json object = parse_object(line, fail);
    if (format == nullptr) format = recognise(object, fail);
    (reader.*format)(object, fail);
  });
  if (format == nullptr) throw std::runtime_error(path.string() + " is empty");

  worded_feedback out = reader.finish();
  const bool transcripts = format == &json_lines_reader::transcripts;
  if (transcripts) {
    // Red-team dialogues: offensive on purpose.
    out.quotable = false;
    out.vocabulary_limit = transcript_vocabulary_limit;
    out.notes.push_back("Data: Anthropic HH transcripts, MIT licence, (c) 2022 Anthropic.");
  }
  out.name =
      transcripts ? "HH: choices between two answers of an assistant" : path.filename().string();
  return out;
}

}  // namespace align
