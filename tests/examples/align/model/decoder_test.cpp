// What the decoder writes, which remembers what it read, against a model that reads every prefix
// again.
#include "model/decoder.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

#include "catch.hpp"
#include "rough_model.hpp"

using namespace align;

namespace {

const lora_settings rank_of_two{.rank = 2, .alpha = 2};
const lora_settings two_and_head{.rank = 2, .alpha = 2, .head = true};
const std::vector<std::vector<token>> some_prompts{
    {1, 4, 2}, {9}, {1, 8, 4, 5, 2}, {3, 3}, {10, 7}};
constexpr token no_end = -1;  // of a completion: none is ever written

// The logits of what follows a prefix, from all of it.
std::vector<double> next_logits(const language_model& model, const std::vector<token>& prompt,
                                std::span<const token> completion) {
  workers on{1};
  packed_batch batch;
  batch.append_open(prompt, completion);
  return model.visit([&]<class W>(const model_view<W>& view) {
    activations<W> memory;
    forward<W>(view, batch, leave::nothing, memory, on);
    const head_weights<const W> head = head_of(view);
    const auto product = [](const W* a, const W* b, std::int64_t n) {
      double sum = 0;
      for (std::int64_t j = 0; j < n; ++j) {
        sum += double{static_cast<float>(a[j])} * double{static_cast<float>(b[j])};
      }
      return sum;
    };
    const W* const hidden = memory.hidden.view().row(0);
    std::vector<double> logits;
    for (std::int64_t v = 0; v < head.weight.rows; ++v) {
      double logit = product(hidden, head.weight.row(v), head.weight.columns);
      for (std::int64_t r = 0; r < head.down.rows && head.down.data != nullptr; ++r) {
        logit += head.scale * double{static_cast<float>(head.up.row(v)[r])} *
                 product(hidden, head.down.row(r), head.down.columns);
      }
      logits.push_back(logit);
    }
    return logits;
  });
}

std::vector<sample> written(const language_model& model, const sampling& how, int threads = 2,
                            std::span<const std::vector<token>> prompts = some_prompts) {
  workers on{threads};
  return write_completions(model, prompts, how, on);
}

bool same_texts(std::span<const sample> a, std::span<const sample> b) {
  return std::ranges::equal(a, b, {}, &sample::completion, &sample::completion);
}

}  // namespace

TEST_CASE("greedy texts are those of a loop that reads every prefix again") {
  const lora_settings lora = GENERATE(lora_settings{}, rank_of_two, two_and_head);
  const language_model model = rough_model(rough_shape(), storage_type::f32, lora);
  const auto texts = written(model, {.temperature = 0, .longest = 7, .end = no_end});
  REQUIRE(texts.size() == some_prompts.size());
  for (std::size_t i = 0; i < texts.size(); ++i) {
    std::vector<token> expected;
    while (expected.size() < 7) {
      const std::vector<double> logits = next_logits(model, some_prompts[i], expected);
      expected.push_back(static_cast<token>(std::ranges::max_element(logits) - logits.begin()));
    }
    CHECK(texts[i].completion == expected);
    CHECK_FALSE(texts[i].ended);
  }
}

TEST_CASE("greedy texts of a bf16 model are the most probable ones but for rounding") {
  const lora_settings lora = GENERATE(lora_settings{}, rank_of_two, two_and_head);
  const language_model model = rough_model(rough_shape(), storage_type::bf16, lora);
  const auto texts = written(model, {.temperature = 0, .longest = 7, .end = no_end});
  for (std::size_t i = 0; i < texts.size(); ++i) {
    REQUIRE(texts[i].completion.size() == 7);
    for (std::size_t n = 0; n < 7; ++n) {
      const std::span before = std::span{texts[i].completion}.first(n);
      const std::vector<double> logits = next_logits(model, some_prompts[i], before);
      const auto [least, most] = std::ranges::minmax(logits);
      const auto chosen = static_cast<std::size_t>(texts[i].completion[n]);
      CHECK(logits[chosen] >= most - 0.03 * (most - least));
    }
  }
}

TEST_CASE("a text depends on its place and the seed, not on its company or the threads") {
  const storage_type storage = GENERATE(storage_type::f32, storage_type::bf16);
  const language_model model = rough_model(rough_shape(), storage);
  const sampling how{.longest = 9, .end = 3, .seed = 7};
  const std::vector<std::vector<token>> twins(12, some_prompts[0]);
  const auto all = written(model, how, 1, twins);
  CHECK(same_texts(written(model, how, 3, twins), all));
  sampling other = how;
  for (const std::size_t together : {1U, 5U, 12U}) {
    other.together = together;
    CHECK(same_texts(written(model, other, 2, twins), all));
  }
  CHECK(same_texts(written(model, how, 1, std::span{twins}.first(3)), std::span{all}.first(3)));
  other.seed = 8;
  CHECK_FALSE(same_texts(written(model, other, 1, twins), all));
  // The same prompt in two places gives two texts.
  CHECK(
      std::ranges::any_of(all, [&](const sample& s) { return s.completion != all[0].completion; }));
  // Nor does another prompt beside it change a text.
  std::vector<std::vector<token>> mixed = twins;
  mixed[4] = some_prompts[2];
  const auto beside = written(model, how, 1, mixed);
  for (const std::size_t i : {0U, 3U, 5U, 11U}) CHECK(beside[i].completion == all[i].completion);
}

TEST_CASE("a text ends with its end token, at the limit, or where the context does") {
  const language_model model = rough_model(rough_shape(), storage_type::f32);
  const std::vector<std::vector<token>> twins(200, some_prompts[0]);
  std::size_t ended = 0, cut = 0;
  for (const sample& s : written(model, {.longest = 4, .end = 3}, 2, twins)) {
    REQUIRE_FALSE(s.completion.empty());
    const auto ends = std::ranges::count(s.completion, 3);
    CHECK(ends == (s.ended ? 1 : 0));
    if (s.ended) CHECK(s.completion.back() == 3);
    if (!s.ended) CHECK(s.completion.size() == 4);
    (s.ended ? ended : cut) += 1;
  }
  CHECK(ended > 20);
  CHECK(cut > 20);

  // The last token is never read, so there may be one more than the context has room for.
  const auto context = static_cast<std::size_t>(model.shape().context);
  std::vector<std::vector<token>> long_ones;
  for (std::size_t size = 1; size <= context + 2; ++size) long_ones.emplace_back(size, 4);
  const auto texts = written(model, {.longest = 1000, .end = no_end}, 2, long_ones);
  for (std::size_t i = 0; i < texts.size(); ++i) {
    const std::size_t read = long_ones[i].size();
    CHECK(texts[i].completion.size() == (read <= context ? context + 1 - read : 0));
    CHECK_FALSE(texts[i].ended);
  }
}

TEST_CASE("no text is asked for, or none of any length") {
  const language_model model = rough_model(rough_shape(), storage_type::f32);
  CHECK(written(model, {}, 2, {}).empty());
  for (const sample& s : written(model, {.longest = 0})) {
    CHECK(s.completion.empty());
    CHECK_FALSE(s.ended);
  }
}

TEST_CASE("writing tells how many texts are done, and stops where it is told to") {
  const language_model model = rough_model(rough_shape(), storage_type::f32);
  workers on{2};
  const sampling how{.longest = 3, .end = no_end, .together = 2};
  std::vector<std::size_t> told, tokens;
  const auto until = [&](std::size_t last) {
    told.clear();
    tokens.clear();
    return write_completions(model, some_prompts, how, on, [&](std::size_t done, std::size_t read) {
      told.push_back(done);
      tokens.push_back(read);
      return done < last;
    });
  };
  const auto all = until(100);
  CHECK(told == std::vector<std::size_t>{2, 4, 5});
  std::size_t read = 0;
  for (std::size_t i = 0; i < 5; ++i) read += some_prompts[i].size() + all[i].completion.size();
  CHECK(tokens.back() == read);
  const auto some = until(4);
  CHECK(told == std::vector<std::size_t>{2, 4});
  REQUIRE(some.size() == 5);
  CHECK(same_texts(std::span{some}.first(4), std::span{all}.first(4)));
  CHECK(some[4].completion.empty());
}

TEST_CASE("tokens are as frequent as the softmax of their logits over the temperature says") {
  const double temperature = GENERATE(0.5, 1.0, 2.0);
  CAPTURE(temperature);
  const language_model model = rough_model(rough_shape(), storage_type::f32);
  constexpr std::size_t count = 4000;
  const std::vector<std::vector<token>> twins(count, some_prompts[2]);
  const sampling how{.temperature = temperature, .longest = 1, .end = no_end, .together = count};
  std::vector<double> seen(11);
  for (const sample& s : written(model, how, 2, twins)) {
    ++seen.at(static_cast<std::size_t>(s.completion.at(0)));
  }
  std::vector<double> expected = next_logits(model, some_prompts[2], {});
  double sum = 0;
  for (double& x : expected) sum += x = std::exp(x / temperature);
  double chi_squared = 0;
  for (std::size_t v = 0; v < 11; ++v) {
    const double mean = count * expected[v] / sum;
    chi_squared += (seen[v] - mean) * (seen[v] - mean) / mean;
  }
  CHECK(chi_squared < 29.6);  // of ten degrees of freedom, in all but a thousandth of cases
}
