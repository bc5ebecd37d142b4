// Runs on a model from a file: what they save, what they keep of the reference, how they go on.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "catch.hpp"
#include "evaluation/evaluate.hpp"
#include "job.hpp"
#include "runs.hpp"
#include "text/chat_codec.hpp"
#include "text/gguf_tokeniser.hpp"
#include "text/small_vocabulary.hpp"
#include "training/checkpoint.hpp"

using namespace align;

namespace {

// Twenty pairs of answers to one question.
std::string few_pairs() {
  std::string out;
  for (int i = 0; i < 20; ++i) {
    const std::string word{static_cast<char>('a' + i % 7), static_cast<char>('a' + i % 5)};
    out += "{\"prompt\": \"hello " + std::to_string(i) + "\", \"chosen\": \"is " + word +
           "\", \"rejected\": \"no world " + word + "\"}\n";
  }
  return out;
}

gguf_metadata chatml_tokeniser() {
  bpe_description description = small_description("qwen2");
  description.chat_template =
      "{% for m in messages %}{{'<|im_start|>' + m['role'] + '\\n' + m['content'] + "
      "'<|im_end|>\\n'}}{% endfor %}{% if add_generation_prompt %}{{ "
      "'<|im_start|>assistant\\n' }}{% endif %}";
  const gguf_tokeniser from = to_gguf(description);
  gguf_metadata metadata;
  metadata.append("general.name", std::string("tiny"));
  metadata.append("tokenizer.ggml.model", from.model);
  metadata.append("tokenizer.ggml.pre", from.pre);
  metadata.append("tokenizer.ggml.tokens", gguf_array(from.tokens));
  metadata.append("tokenizer.ggml.token_type", gguf_array(from.token_type));
  metadata.append("tokenizer.ggml.merges", gguf_array(from.merges));
  metadata.append("tokenizer.ggml.eos_token_id", static_cast<std::uint32_t>(*from.eos_token_id));
  metadata.append("tokenizer.ggml.eot_token_id", static_cast<std::uint32_t>(*from.eot_token_id));
  metadata.append("tokenizer.chat_template", from.chat_template);
  return metadata;
}

// A folder with a model, feedback, and the options of a run of some steps.
struct given_run {
  scratch here = {};
  options given = {};

  explicit given_run(int context = 80) {
    const auto path = here.folder() / "tiny.gguf";
    const model_shape shape{.vocabulary = static_cast<int>(small_description().tokens.size()),
                            .context = context,
                            .width = 16,
                            .layers = 1,
                            .heads = 2,
                            .key_value_heads = 1,
                            .head_width = 8,
                            .feed_forward = 24};
    language_model model(shape, storage_type::f32);
    initialise(model, 1);
    save_model(path, shape, model.trained(), element_type::f32,
               {.metadata = chatml_tokeniser(), .config = ""});
    given.model = path.string();
    given.data = here.write("pairs.jsonl", few_pairs()).string();
    given.out = here.folder() / "out";
    given.save = here.folder() / "aligned.gguf";
    given.loss = "dpo";
    given.batch = 4;
    given.steps = 5;
    given.learning_rate = 0.02;
    given.samples = 4;
    given.sample_tokens = 12;
    given.threads = 2;
  }

  std::filesystem::path cache() const {
    for (const auto& entry : std::filesystem::directory_iterator(given.out)) {
      if (entry.path().extension() == ".logprobs") return entry.path();
    }
    FAIL("there is no cache");
    return {};
  }
};

language_model model_in(const std::filesystem::path& path, const options& given) {
  const loaded_model file = open_model(path);
  model_shape shape = file.shape;
  if (given.lora_head) shape.tied_head = false;
  language_model model(shape, storage_of(given), lora_of(given));
  model.load([&](const weight_place& place, std::span<float> values) { file.read(place, values); });
  initialise_adapters(model, given.seed);
  return model;
}

std::vector<float> weights_in(const std::filesystem::path& path) {
  const loaded_model file = open_model(path);
  std::vector<float> weights(parameter_count(file.shape));
  for (const weight_place& place : weights_of(file.shape)) {
    file.read(place, std::span{weights}.subspan(place.offset, place.size()));
  }
  return weights;
}

// The model as the checkpoint of the finished run has it.
language_model trained_by(const options& given) {
  const auto file = open_given_model(given);
  const job from = prepare(given, &*file, given.seed);
  const schedule plan = alignment_plan(given, from, given.seed);
  language_model model = model_in(given.model, given);
  const std::string settings =
      settings_of(model) + settings_of(from.train, plan) + settings_of(from.choice);
  load_checkpoint(given.out / checkpoint_name("align", settings), settings, model.trained());
  model.renew();
  return model;
}

std::vector<float> merged_weights(const language_model& model) {
  std::vector<float> weights(parameter_count(model.shape()));
  for (const weight_place& place : weights_of(model.shape())) {
    model.read(place, 0, std::span{weights}.subspan(place.offset, place.size()));
  }
  return weights;
}

}  // namespace

TEST_CASE("a run on a file's model saves what it made, its tokeniser with it") {
  given_run run;
  run.given.lora = GENERATE(0, 2);
  run.given.lora_head = run.given.lora > 0 && GENERATE(false, true);
  CAPTURE(run.given.lora, run.given.lora_head);
  const stopped_run made = run_whole(run.given);
  REQUIRE(made.sentence.empty());
  CHECK(contains(made.log, "seed 1: needs "));
  CHECK(contains(made.log, "the aligned model is in " + run.given.save.string()));

  const std::vector<float> saved = weights_in(run.given.save);
  CHECK(saved == merged_weights(trained_by(run.given)));
  const std::vector<float> loaded = weights_in(run.given.model);
  CHECK(saved != loaded);
  const loaded_model before = open_model(run.given.model), after = open_model(run.given.save);
  model_shape shape = before.shape;
  CHECK(shape.tied_head);
  if (run.given.lora_head) {  // its head is its own, and the table of words what it was
    shape.tied_head = false;
    const std::size_t words = weights_of(shape)[0].size();
    CHECK(std::equal(loaded.begin(), loaded.begin() + static_cast<std::ptrdiff_t>(words),
                     saved.begin()));
    CHECK_FALSE(std::equal(loaded.begin(), loaded.begin() + static_cast<std::ptrdiff_t>(words),
                           saved.end() - static_cast<std::ptrdiff_t>(words)));
  }
  CHECK(after.shape == shape);
  const gguf_metadata& metadata = after.origin.metadata;
  const gguf_metadata tokeniser = chatml_tokeniser();
  for (const auto& [key, value] : tokeniser.entries()) {
    CAPTURE(key);
    const gguf_value* const found = metadata.find(key);
    REQUIRE(found != nullptr);
    CHECK((*found == value));
  }
  options again = run.given;  // and so a run may begin where this one ended
  again.model = run.given.save.string();
  again.save.clear();
  again.steps = 1;
  CHECK(run_whole(again).sentence.empty());
}

TEST_CASE("the saved model is of the type that was asked for") {
  given_run run;
  run.given.save_type = "bf16";
  REQUIRE(run_whole(run.given).sentence.empty());
  std::vector<float> expected = merged_weights(trained_by(run.given));
  const std::vector<float> saved = weights_in(run.given.save);
  for (const weight_place& place : weights_of(open_model(run.given.save).shape)) {
    for (std::size_t i = place.offset; i < place.offset + place.size(); ++i) {
      const bool gain = place.rows == 1;
      REQUIRE(saved[i] == (gain ? expected[i] : static_cast<float>(bfloat16(expected[i]))));
    }
  }
}

TEST_CASE("the figures of a run are those of the models before it and behind it") {
  given_run run;
  const stopped_run made = run_whole(run.given);
  REQUIRE(made.sentence.empty());
  const language_model before = model_in(run.given.model, run.given);
  const language_model after = model_in(run.given.save, run.given);
  const auto file = open_given_model(run.given);
  const job from = prepare(run.given, &*file, 1);
  workers on{1};
  const auto never = [](std::string_view, std::size_t, std::size_t, std::size_t) { return true; };
  const evaluation_plan plan{.samples = 4, .longest_sample = 12};
  const measured_model was = *measure(before, from.data, from.held_out, plan, on, never);
  const measured_model is = *measure(after, from.data, from.held_out, plan, on, never);
  const seed_outcome expected = compare(was, is, from.data, from.held_out, plan).outcome;
  const seed_outcome& found = made.report.seeds.at(0);
  CHECK(found.nll_reference == expected.nll_reference);
  CHECK(found.nll_aligned == expected.nll_aligned);
  CHECK(found.auc_aligned == expected.auc_aligned);
  CHECK(found.length_aligned == expected.length_aligned);
  CHECK_FALSE(found.nll_aligned == found.nll_reference);

  double difference = 0;
  for (std::size_t i = 0; i < 4; ++i) {
    packed_batch batch;
    batch.append(is.prompts[i], is.samples[i].completion);
    scoring_pass pass(storage_type::f32);
    difference += pass.score(after, batch, purpose::evaluation, on)[0];
    difference -= pass.score(before, batch, purpose::evaluation, on)[0];
  }
  CHECK(std::abs(found.kl_aligned) > 1e-3);
  CHECK_THAT(found.kl_aligned, WithinAbs(difference / 4, 1e-4));
}

TEST_CASE("a second run takes what the first one computed of the reference") {
  given_run run;
  run.given.steps = 2;
  const stopped_run first = run_whole(run.given);
  REQUIRE(first.sentence.empty());
  CHECK_FALSE(contains(first.log, "reference log-probabilities from"));
  options other = run.given;  // another loss parameter, other weights trained: the same reference
  other.parameters = {{"beta", "0.5"}};
  other.lora = 2;
  const stopped_run second = run_whole(other);
  REQUIRE(second.sentence.empty());
  CHECK(contains(second.log, "reference log-probabilities from " + run.cache().string()));
  // Computed or read, it is the same run.
  other.out = run.here.folder() / "elsewhere";
  const stopped_run third = run_whole(other);
  CHECK_FALSE(contains(third.log, "reference log-probabilities from"));
  REQUIRE(third.report.seeds.at(0).steps.size() == 2);
  CHECK(third.report.seeds[0].steps[1].loss == second.report.seeds.at(0).steps[1].loss);
}

TEST_CASE("the reference is kept where the options say, or nowhere") {
  given_run run;
  run.given.steps = 1;
  run.given.reference_cache = "off";
  REQUIRE(run_whole(run.given).sentence.empty());
  CHECK(files_in(run.given.out, ".logprobs") == 0);
  run.given.reference_cache = (run.here.folder() / "mine").string();
  REQUIRE(run_whole(run.given).sentence.empty());
  CHECK(files_in(run.given.reference_cache, ".logprobs") == 1);
  CHECK(contains(run_whole(run.given).log, "from " + run.given.reference_cache));
  run.given.batch = 3;  // other rows, which have a file of their own
  CHECK(run_whole(run.given).sentence.empty());
  CHECK(files_in(run.given.reference_cache, ".logprobs") == 2);
}

TEST_CASE("a damaged file of the reference ends the run in one sentence") {
  given_run run;
  run.given.steps = 1;
  REQUIRE(run_whole(run.given).sentence.empty());
  std::string bytes = scratch::read(run.cache());
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  const auto path = run.cache();
  std::ofstream(path, std::ios::binary) << bytes;
  const std::string sentence = run_whole(run.given).sentence;
  CHECK(contains(sentence, path.string() + " are damaged or cut off"));
}

TEST_CASE("a run on a file's model that was stopped goes on to the same model") {
  given_run run;
  run.given.lora = GENERATE(0, 2);
  run.given.lora_head = run.given.lora > 0;
  run.given.type = GENERATE("f32", "bf16");
  REQUIRE(run_whole(run.given).sentence.empty());
  const std::vector<float> expected = weights_in(run.given.save);

  options stopped = run.given;
  stopped.out = run.here.folder() / "stopped";
  stopped.save = run.here.folder() / "stopped.gguf";
  const auto loaded = static_cast<int>(weights_of(open_model(run.given.model).shape).size()) +
                      (run.given.lora_head ? 1 : 0);
  const stopped_run first = run_for(stopped, loaded + asked_between + 2);
  CHECK(contains(first.sentence, "stopped at step 2 of 5 of seed 1 dpo; saved in "));
  CHECK_FALSE(std::filesystem::exists(stopped.save));
  stopped.resume = true;
  const stopped_run second = run_whole(stopped);
  REQUIRE(second.sentence.empty());
  CHECK(contains(second.log, "seed 1 dpo: step 2 of 5 from "));
  CHECK(contains(second.log, "reference log-probabilities from "));
  CHECK(weights_in(stopped.save) == expected);
  CHECK(second.report.seeds.at(0).steps.size() == 5);
}

TEST_CASE("each seed of a run starts from the file's model") {
  given_run run;
  run.given.steps = 2;
  run.given.seeds = 2;
  const stopped_run made = run_whole(run.given);
  REQUIRE(made.report.seeds.size() == 2);
  for (const seed_outcome& found : made.report.seeds) {
    CHECK_THAT(found.steps.at(0).loss, WithinAbs(std::log(2.0), 1e-5));
  }
  CHECK(made.report.seeds[0].nll_reference == made.report.seeds[1].nll_reference);
  CHECK(made.report.seeds[0].nll_aligned != made.report.seeds[1].nll_aligned);
}

TEST_CASE("a tokeniser comes along into the other format, and back") {
  given_run run;
  run.given.steps = 1;
  run.given.save = run.here.folder() / "saved";
  run.given.lora = 2;
  run.given.lora_head = true;  // its configuration has to say that nothing is tied any longer
  REQUIRE(run_whole(run.given).sentence.empty());
  CHECK_FALSE(open_model(run.given.save).shape.tied_head);
  given_run again;
  again.given.model = run.given.save.string();
  again.given.steps = 1;
  again.given.save = again.here.folder() / "back.gguf";
  REQUIRE(run_whole(again.given).sentence.empty());
  const std::vector<message> asked{{"user", "a b c"}};
  const std::vector<token> expected =
      chat_codec(open_model(run.given.model).origin, "").prompt(asked);
  CHECK(chat_codec(open_model(run.given.save).origin, "").prompt(asked) == expected);
  CHECK(chat_codec(open_model(again.given.save).origin, "").prompt(asked) == expected);
}

TEST_CASE("options that would do nothing or harm are refused before any work") {
  given_run run;
  const auto sentence = [&](const auto& change) {
    options given = run.given;
    change(given);
    return run_whole(given).sentence;
  };
  CHECK(contains(sentence([](options& o) { o.save = o.model; }), "--save would replace the model"));
  CHECK(contains(sentence([](options& o) { o.lora_alpha = 2; }), "--lora-alpha needs --lora"));
  CHECK(contains(sentence([](options& o) { o.lora_head = true; }), "--lora-head needs --lora"));
  CHECK(contains(sentence([](options& o) {
                   o.save.clear();
                   o.save_type = "f16";
                 }),
                 "--save-type needs --save"));
  CHECK(contains(sentence([](options& o) {
                   o.model.clear();
                   o.chat_template = "chatml";
                 }),
                 "--chat-template is for a model"));
  CHECK(contains(sentence([](options& o) { o.sft_epochs = 1; }), "are for the tiny model"));
  CHECK(
      contains(sentence([](options& o) { o.sft_learning_rate = 1e-3; }), "are for the tiny model"));
  CHECK(contains(sentence([](options& o) {
                   o.data.clear();
                   o.max_completion = 5;
                 }),
                 "cut the texts of --data"));
}

TEST_CASE("a type that a folder cannot hold is refused before any work") {
  given_run run;
  run.given.save = run.here.folder() / "saved";
  run.given.save_type = "q8_0";
  CHECK(contains(run_whole(run.given).sentence, "--save-type q8_0 is for a .gguf file"));
  CHECK_FALSE(std::filesystem::exists(run.given.out));
}

TEST_CASE("rows fit into the context of the model, or the options are refused") {
  given_run run(16);
  run.given.steps = 1;
  CHECK(run_whole(run.given).sentence.empty());
  run.given.max_prompt = 12;
  run.given.max_completion = 6;
  CHECK(contains(run_whole(run.given).sentence,
                 "--max-prompt 12 and --max-completion 6 together exceed the context of the model, "
                 "16"));
  run.given.max_completion = 5;
  CHECK(run_whole(run.given).sentence.empty());
}

TEST_CASE("a file that has no tokeniser, or is no model, is refused before any work") {
  given_run run;
  const auto bare = run.here.folder() / "bare.gguf";
  const loaded_model file = open_model(run.given.model);
  save_model(bare, file.shape, weights_in(run.given.model), element_type::f32, {});
  run.given.model = bare.string();
  CHECK_FALSE(run_whole(run.given).sentence.empty());
  run.given.model = run.given.data;
  CHECK_FALSE(run_whole(run.given).sentence.empty());
  CHECK_FALSE(std::filesystem::exists(run.given.out));
}
