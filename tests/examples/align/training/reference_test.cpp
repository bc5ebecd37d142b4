// The reference's log-probabilities: what is computed, and that no file is believed but the right
// one.
#include "training/reference.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include "../scratch.hpp"
#include "../small_job.hpp"
#include "catch.hpp"
#include "sha256.hpp"

using namespace align;

namespace {

const schedule few_steps{.steps = 3, .batch = 8, .seed = 4};

std::vector<prompt_completion> wanted_by(const small_job& job) {
  return measured_by(job.data, few_steps, preference_objective({.loss = "kto"}));
}

double direct_log_prob(const language_model& model, const row& prompt, const row& completion) {
  workers on{1};
  packed_batch batch;
  batch.append(prompt.prompt, completion.completion);
  scoring_pass pass(model.storage());
  return pass.score(model, batch, purpose::evaluation, on, false)[0];
}

// A file of the job's reference, and what becomes of others of its name.
struct saved_reference {
  scratch files = {};
  small_job job = make_small_job(false);
  language_model model = job.model();
  std::filesystem::path path = {};
  std::vector<double> log_probs = {};

  saved_reference() {
    workers on{2};
    reference_scores scores(model, job.data.rows, wanted_by(job));
    scores.compute(on, go_on);
    path = files.folder() / scores.file_name();
    scores.save(path);
    for (const prompt_completion& one : wanted_by(job)) log_probs.push_back(scores.log_prob(one));
  }

  std::string bytes() const { return scratch::read(path); }

  // Of a file of these bytes, by its name in the sentence; "" when it is taken.
  std::string refusal(const std::string& content) const {
    const auto other = files.write("other.logprobs", content);
    workers on{2};
    reference_scores scores(model, job.data.rows, wanted_by(job));
    const std::string sentence = complaint([&] { scores.load(other, on); });
    if (!sentence.empty()) CHECK(contains(sentence, other.string()));
    return sentence;
  }
};

// The same with a digest that fits.
std::string signed_again(const std::string& bytes) {
  const std::string content = bytes.substr(0, bytes.size() - 64);
  return content + sha256(content);
}

}  // namespace

TEST_CASE("what is computed is what the model gives each alone") {
  const model_kind kind = GENERATE(full_f32, lora_f32, full_bf16);
  const small_job job = make_small_job(false);
  language_model model = job.model(kind);
  // Moved adapters: the reference is the model without them.
  if (kind.lora.rank > 0) std::ranges::fill(model.trained(), 0.1F);
  model.renew();
  workers on{2};
  reference_scores scores(model, job.data.rows, wanted_by(job));
  std::size_t last = 0;
  CHECK(scores.compute(on, [&](std::size_t done, std::size_t tokens) {
    CHECK(done > last);
    CHECK(tokens >= done);
    last = done;
    return true;
  }));
  CHECK(last == scores.size());
  REQUIRE(scores.size() == wanted_by(job).size());
  const double tolerance = kind.storage == storage_type::bf16 ? 1e-3 : 1e-5;
  for (const prompt_completion& one : wanted_by(job)) {
    const double expected =
        direct_log_prob(model, job.data.rows[one.prompt], job.data.rows[one.completion]);
    REQUIRE_THAT(scores.log_prob(one), WithinRel(expected, tolerance));
  }
}

TEST_CASE("log-probabilities of rows do not depend on their company") {
  const small_job job = make_small_job(false);
  const language_model model = job.model();
  std::vector<prompt_completion> wanted;
  for (std::size_t i = 0; i < 200; ++i) wanted.push_back({i, i});  // more than one batch
  workers on{3};
  std::size_t told = 0;
  const auto all = score_completions(model, job.data.rows, wanted, on,
                                     [&](std::size_t, std::size_t) { return ++told > 0; });
  CHECK(told > 1);
  REQUIRE(all.has_value());
  REQUIRE(all->offsets.size() == 201);
  for (const std::size_t i : {0U, 1U, 75U, 199U}) {
    const row& r = job.data.rows[i];
    CHECK(all->offsets[i + 1] - all->offsets[i] == r.completion.size());
    CHECK_THAT(all->sum(i), WithinRel(direct_log_prob(model, r, r), 1e-5));
  }
  const auto none = score_completions(model, job.data.rows, {}, on, go_on);
  CHECK(none->offsets.size() == 1);
  CHECK_FALSE(score_completions(model, job.data.rows, wanted, on, [](std::size_t, std::size_t) {
                return false;
              }).has_value());
}

TEST_CASE("what was saved is loaded bit for bit, in place of being computed") {
  const saved_reference saved;
  workers on{2};
  reference_scores scores(saved.model, saved.job.data.rows, wanted_by(saved.job));
  CHECK(scores.file_name() == saved.path.filename().string());
  scores.load(saved.path, on);
  std::vector<double> loaded;
  for (const prompt_completion& one : wanted_by(saved.job)) loaded.push_back(scores.log_prob(one));
  CHECK(loaded == saved.log_probs);
}

TEST_CASE("adapters have the file of the model that they stand beside") {
  const saved_reference saved;
  language_model model = saved.job.model(lora_f32);
  std::ranges::fill(model.trained(), 0.1F);
  workers on{2};
  reference_scores scores(model, saved.job.data.rows, wanted_by(saved.job));
  CHECK(scores.file_name() == saved.path.filename().string());
  CHECK_NOTHROW(scores.load(saved.path, on));
}

TEST_CASE("a file of another model, of other rows or of another storage is refused") {
  saved_reference saved;
  workers on{2};
  const auto refusal = [&](const language_model& model, const std::vector<row>& rows,
                           std::vector<prompt_completion> wanted) {
    reference_scores scores(model, rows, std::move(wanted));
    CHECK(scores.file_name() != saved.path.filename().string());
    const std::string sentence = complaint([&] { scores.load(saved.path, on); });
    CHECK(contains(sentence, saved.path.string()));
    return contains(sentence, "are of another model or of other rows");
  };
  const std::vector<prompt_completion> wanted = wanted_by(saved.job);
  small_job other = saved.job;
  other.start[17] += 0.25F;
  CHECK(refusal(other.model(), saved.job.data.rows, wanted));
  CHECK(refusal(saved.job.model(full_bf16), saved.job.data.rows, wanted));
  std::vector<row> rows = saved.job.data.rows;
  rows[wanted[0].prompt].prompt.back() ^= 1;
  CHECK(refusal(saved.model, rows, wanted));
  rows = saved.job.data.rows;
  rows[wanted.back().completion].completion.front() ^= 1;
  CHECK(refusal(saved.model, rows, wanted));
  CHECK(refusal(saved.model, saved.job.data.rows, {wanted.begin(), wanted.end() - 1}));
}

TEST_CASE("a token that moves from a prompt to its completion makes another file") {
  const small_job job = make_small_job(false);
  const language_model model = job.model();
  std::vector<row> moved_border = job.data.rows;
  row& first = moved_border[0];
  first.completion.insert(first.completion.begin(), first.prompt.back());
  first.prompt.pop_back();
  const auto file_name = [&](const std::vector<row>& rows) {
    return reference_scores(model, rows, {{0, 0}}).file_name();
  };
  CHECK(file_name(moved_border) != file_name(job.data.rows));
}

TEST_CASE("a damaged file is refused") {
  const saved_reference saved;
  const std::string whole = saved.bytes();
  CHECK(saved.refusal(whole).empty());
  CHECK(contains(saved.refusal(""), "are no such file"));
  CHECK(contains(saved.refusal("GIF89a"), "are no such file"));
  const std::size_t head = whole.find('\n') + 1;
  for (std::size_t size = head; size < whole.size(); size += 97) {
    REQUIRE(contains(saved.refusal(whole.substr(0, size)), "are damaged or cut off"));
  }
  REQUIRE(contains(saved.refusal(whole.substr(0, whole.size() - 1)), "are damaged or cut off"));
  REQUIRE(contains(saved.refusal(whole + "0"), "are damaged or cut off"));
  for (std::size_t at = head; at < whole.size(); at += 101) {
    std::string flipped = whole;
    flipped[at] = static_cast<char>(flipped[at] ^ 1);
    REQUIRE(contains(saved.refusal(flipped), "are damaged or cut off"));
  }
  // With a digest that fits, sizes are believed no more than before.
  std::string longer = whole;
  longer.insert(whole.size() - 64, 4, '\0');
  CHECK(contains(saved.refusal(signed_again(longer)), "are damaged or cut off"));
  std::string shorter = whole;
  shorter.erase(whole.size() - 68, 4);
  CHECK(contains(saved.refusal(signed_again(shorter)), "are damaged or cut off"));
  CHECK(contains(saved.refusal(signed_again(whole.substr(0, head + 64))), "are damaged"));
}

TEST_CASE("numbers that the model does not give are refused") {
  const saved_reference saved;
  const std::string whole = saved.bytes();
  const std::size_t numbers = whole.find('\n') + 1 + 64 + 1;
  const auto with_first = [&](float value) {
    std::string changed = whole;
    std::memcpy(changed.data() + numbers, &value, sizeof value);
    return saved.refusal(signed_again(changed));
  };
  float first = 0;
  std::memcpy(&first, whole.data() + numbers, sizeof first);
  CHECK(with_first(first).empty());
  CHECK(with_first(first * 1.001F).empty());  // as another processor may round
  CHECK(contains(with_first(first - 0.5F), "are not what the model gives now"));
  CHECK(contains(with_first(std::numeric_limits<float>::quiet_NaN()), "gives now"));
  CHECK(contains(with_first(-std::numeric_limits<float>::infinity()), "gives now"));
}

TEST_CASE("a file that is refused leaves what was there") {
  saved_reference saved;
  workers on{2};
  reference_scores scores(saved.model, saved.job.data.rows, wanted_by(saved.job));
  scores.load(saved.path, on);
  const prompt_completion one = wanted_by(saved.job)[0];
  const double before = scores.log_prob(one);
  std::string changed = saved.bytes();
  const std::size_t numbers = changed.find('\n') + 1 + 64 + 1;
  const float wrong = -100;
  std::memcpy(changed.data() + numbers, &wrong, sizeof wrong);
  const auto path = saved.files.write("wrong.logprobs", signed_again(changed));
  CHECK_FALSE(complaint([&] { scores.load(path, on); }).empty());
  CHECK(scores.log_prob(one) == before);
  CHECK(contains(complaint([&] { scores.load(saved.files.folder() / "none", on); }), "none"));
}

TEST_CASE("a computation that is ended gives nothing") {
  const small_job job = make_small_job(false);
  const language_model model = job.model();
  workers on{2};
  reference_scores scores(model, job.data.rows, wanted_by(job));
  CHECK_FALSE(scores.compute(on, [](std::size_t, std::size_t) { return false; }));
}
