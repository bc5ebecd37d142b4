// See sources.hpp.
#include "data/sources.hpp"

#include <algorithm>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "data/json_lines.hpp"
#include "data/left_out.hpp"
#include "data/lines.hpp"
#include "files.hpp"

namespace align {
namespace fs = std::filesystem;
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

constexpr std::size_t polarity_prompt_words = 2;
constexpr std::size_t polarity_shortest_snippet = 7;

text_feedback read_polarity(const fs::path& folder) {
  const fs::path positive = folder / polarity_positive, negative = folder / polarity_negative;
  const std::string liked = read_file(positive), disliked = read_file(negative);
  require_sha256(liked, sha256_polarity_positive, positive);
  require_sha256(disliked, sha256_polarity_negative, negative);
  return parse_polarity(liked, disliked);
}

text_feedback read_json_lines(const fs::path& path) {
  std::string bytes = read_file(path);
  const bool packed = path.filename() == harmless_packed;
  const bool published = packed || path.filename() == harmless_unpacked;
  if (published) {
    require_sha256(bytes, packed ? sha256_harmless_packed : sha256_harmless_unpacked, path);
  }
  text_feedback out = parse_json_lines(unpack(std::move(bytes), path), path);
  if (published) {
    out.name = "HH: choices between two answers of an assistant";
    out.notes.push_back("Data: Anthropic HH transcripts, MIT licence, (c) 2022 Anthropic.");
  }
  return out;
}

text_feedback read_folder(const fs::path& folder) {
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

// Where the first `count` words of a text end, and how many it has at all.
struct word_count {
  std::size_t words = 0, prompt_end = 0;
};

word_count count_words(std::string_view text, std::size_t count) {
  word_count found;
  for (std::size_t at = 0; (at = text.find_first_not_of(blanks, at)) != std::string_view::npos;) {
    const std::size_t end = std::min(text.find_first_of(blanks, at), text.size());
    if (++found.words == count) found.prompt_end = end;
    at = end;
  }
  return found;
}

}  // namespace

text_feedback read_feedback(const fs::path& path) {
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

text_feedback parse_polarity(std::string_view positive, std::string_view negative) {
  text_feedback out;
  out.name = "rt-polarity: film reviews with the critics' own votes";
  out.notes.push_back("Data: Pang and Lee (ACL 2005), sentence polarity, CC BY 4.0.");
  const auto add = [&](std::string_view snippets, std::string_view file, bool desirable) {
    left_out too_short{"snippets of " + std::string(file) + " shorter than " +
                       std::to_string(polarity_shortest_snippet) + " words"};
    for_each_line(snippets, [&](std::string_view line, std::size_t number) {
      const word_count found = count_words(line, polarity_prompt_words);
      if (found.words < polarity_shortest_snippet) return too_short.lines.push_back(number);
      out.rows.push_back({{{"user", trimmed(line.substr(0, found.prompt_end))}},
                          trimmed(line.substr(found.prompt_end)),
                          desirable,
                          number});
    });
    too_short.note(out.notes);
  };
  add(positive, polarity_positive, true);
  add(negative, polarity_negative, false);
  return out;
}

}  // namespace align
