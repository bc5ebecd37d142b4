// See reference.hpp. The file: a line that names the format, one with the key, the
// log-probabilities as the machine keeps floats, and the SHA-256 of all that.
#include "training/reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <stdexcept>

#include "formats/mapped_file.hpp"
#include "formats/stored_tensor.hpp"
#include "sha256.hpp"

namespace align {
namespace {

// Enough to fill the machine, little enough to be told often how far it is.
constexpr std::size_t tokens_at_once = 2048;

constexpr std::string_view format = "prospect example reference log-probabilities 1\n";
constexpr std::size_t digest_size = 64;

// Of the same number computed twice by the same program there is no difference; another BLAS or
// processor may round otherwise.
constexpr double tolerance_per_token = 0.02;
constexpr std::size_t verified = 8;

std::string_view as_text(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string key_of(const language_model& model, std::span<const row> rows,
                   std::span<const prompt_completion> wanted) {
  sha256_stream key;
  key.add(model.fingerprint());
  key.add(model.storage() == storage_type::f32 ? "f32\n" : "bf16\n");
  const auto add = [&](const std::vector<token>& tokens) {
    const std::size_t size = tokens.size();
    key.add(as_text(std::as_bytes(std::span{&size, 1})));
    key.add(as_text(std::as_bytes(std::span{tokens})));
  };
  for (const prompt_completion& one : wanted) {
    add(rows[one.prompt].prompt);
    add(rows[one.completion].completion);
  }
  return key.digits();
}

}  // namespace

double scored_tokens::sum(std::size_t i) const {
  return std::accumulate(log_probs.begin() + static_cast<std::ptrdiff_t>(offsets.at(i)),
                         log_probs.begin() + static_cast<std::ptrdiff_t>(offsets.at(i + 1)), 0.0);
}

std::optional<scored_tokens> score_completions(const language_model& model,
                                               std::span<const row> rows,
                                               std::span<const prompt_completion> wanted,
                                               workers& on, const scoring_progress& done,
                                               bool adapted) {
  scored_tokens all;
  scoring_pass pass(model.storage());
  packed_batch batch;
  std::size_t tokens = 0;
  for (std::size_t i = 0; i < wanted.size();) {
    batch.clear();
    do {
      batch.append(rows[wanted[i].prompt].prompt, rows[wanted[i].completion].completion);
      all.offsets.push_back(all.offsets.back() + rows[wanted[i].completion].completion.size());
    } while (++i < wanted.size() && batch.inputs.size() < tokens_at_once);
    pass.score(model, batch, purpose::evaluation, on, adapted);
    const std::span<const float> scored = pass.tokens();
    all.log_probs.insert(all.log_probs.end(), scored.begin(), scored.end());
    tokens += batch.inputs.size();
    if (!done(i, tokens)) return {};
  }
  return all;
}

std::size_t scoring_bytes(const language_model& model, std::span<const row> rows) {
  std::size_t prompt = 0, completion = 0;
  for (const row& r : rows) {
    prompt = std::max(prompt, r.prompt.size());
    completion = std::max(completion, r.completion.size());
  }
  const std::size_t longest = sequence_length(prompt, completion);
  const std::size_t tokens = std::min(rows.size() * longest, tokens_at_once + longest);
  return scoring_pass::bytes(model, tokens, tokens, purpose::evaluation) +
         scoring_pass::head_bytes();
}

reference_scores::reference_scores(const language_model& model, std::span<const row> rows,
                                   std::vector<prompt_completion> wanted)
    : model_(model), rows_(rows), wanted_(std::move(wanted)), key_(key_of(model, rows, wanted_)) {
  for (std::size_t i = 0; i < wanted_.size(); ++i) places_.emplace(wanted_[i], i);
}

bool reference_scores::compute(workers& on, const scoring_progress& done) {
  auto scored = score_completions(model_, rows_, wanted_, on, done, false);
  if (!scored) return false;
  scored_ = std::move(*scored);
  return true;
}

std::string reference_scores::file_name() const {
  return "reference-" + key_.substr(0, 16) + ".logprobs";
}

void reference_scores::load(const std::filesystem::path& path, workers& on) {
  const auto fail = [&](const std::string& why) {
    throw std::runtime_error("the reference log-probabilities in " + path.string() + " " + why);
  };
  const mapped_file file(path);
  const std::string_view bytes = as_text(file.bytes());
  if (!bytes.starts_with(format)) fail("are no such file");
  const std::size_t head = format.size() + digest_size + 1;
  if (bytes.size() < head + digest_size || sha256(bytes.substr(0, bytes.size() - digest_size)) !=
                                               bytes.substr(bytes.size() - digest_size)) {
    fail("are damaged or cut off");
  }
  if (bytes.substr(format.size(), digest_size) != key_) {
    fail("are of another model or of other rows");
  }
  scored_tokens read;
  for (const prompt_completion& one : wanted_) {
    read.offsets.push_back(read.offsets.back() + rows_[one.completion].completion.size());
  }
  const std::string_view numbers = bytes.substr(head, bytes.size() - head - digest_size);
  if (numbers.size() != read.offsets.back() * sizeof(float)) fail("are damaged or cut off");
  read.log_probs.resize(read.offsets.back());
  std::memcpy(read.log_probs.data(), numbers.data(), numbers.size());

  const std::span<const prompt_completion> first{wanted_.data(),
                                                 std::min(verified, wanted_.size())};
  const auto again = score_completions(
      model_, rows_, first, on, [](std::size_t, std::size_t) { return true; }, false);
  for (std::size_t i = 0; i < again->log_probs.size(); ++i) {
    const double difference = again->log_probs[i] - read.log_probs[i];
    // The negation also refuses NaN.
    if (!(std::abs(difference) <= tolerance_per_token * (1 + std::abs(again->log_probs[i])))) {
      fail("are not what the model gives now");
    }
  }
  scored_ = std::move(read);
}

void reference_scores::save(const std::filesystem::path& path) const {
  output_file file(path);
  sha256_stream digest;
  const auto write = [&](std::string_view bytes) {
    file.write(bytes);
    digest.add(bytes);
  };
  write(format);
  write(key_ + "\n");
  write(as_text(std::as_bytes(std::span{scored_.log_probs})));
  file.write(digest.digits());
  file.commit();
}

}  // namespace align
