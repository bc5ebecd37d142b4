// What fuzz_json_lines starts from: fuzz_json_lines_seeds FOLDER makes FOLDER anew, with a file of
// each kind.
#include <filesystem>
#include <fstream>
#include <string_view>

int main(int argc, char* argv[]) {
  if (argc != 2) return 1;
  const std::filesystem::path folder = argv[1];
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto write = [&](const char* name, std::string_view lines) {
    std::ofstream out(folder / name, std::ios::binary);
    return static_cast<bool>(out << lines);
  };
  const bool written[] = {
      write("thumbs.jsonl",
            "{\"prompt\": \"Say hello.\", \"completion\": \"Hello!\", \"label\": true}\n"
            "{\"prompt\": \"\", \"completion\": \"\\u00e9\\ud83d\\ude00\", \"label\": 0}\n"),
      write("rated.jsonl",
            "{\"messages\": [{\"role\": \"system\", \"content\": \"Be brief.\"},"
            " {\"role\": \"user\", \"content\": \"2 + 2?\"},"
            " {\"role\": \"assistant\", \"content\": \"4\"}], \"label\": 1.0}\n"),
      write("choices.jsonl",
            "\xef\xbb\xbf{\"prompt\": [{\"role\": \"user\", \"content\": \"2 + 2?\"}],"
            " \"chosen\": \"4\", \"rejected\": [{\"role\": \"assistant\", \"content\": \"5\"}],"
            " \"margin\": 1e3}\r\n\r\n"),
      write("transcripts.jsonl",
            "{\"chosen\": \"\\n\\nHuman: Hi\\n\\nAssistant: Hello\","
            " \"rejected\": \"\\n\\nHuman: Hi\\n\\nAssistant: What?\"}\n")};
  for (const bool done : written) {
    if (!done) return 1;
  }
  return 0;
}
