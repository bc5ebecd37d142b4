// What fuzz_tokeniser starts from: fuzz_tokeniser_seeds FOLDER makes FOLDER anew, with a
// tokenizer.json of each cut and a text for each.
#include <filesystem>
#include <fstream>
#include <string>

#include "small_vocabulary.hpp"
#include "text/tokenizer_json.hpp"

int main(int argc, char* argv[]) {
  if (argc != 2) return 1;
  const std::filesystem::path folder = argv[1];
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  const auto write = [&](const std::string& name, const std::string& bytes) {
    std::ofstream out(folder / name, std::ios::binary);
    return static_cast<bool>(out.write(bytes.data(), static_cast<std::streamsize>(bytes.size())));
  };
  bool written = true;
  char which = 0;
  for (const std::string cut : {"gpt-2", "smollm", "llama-bpe", "qwen2"}) {
    const align::tokenizer_files files = to_tokenizer_files(align::small_description(cut));
    written &= write(cut + ".json", files.tokenizer);
    written &= write(cut + ".txt", std::string(1, which++) +
                                       "It's hello world 123!\n\n \xc3\xa9 \xf0\x9f\x98\x80"
                                       "<|im_start|>");
  }
  return written ? 0 : 1;
}
