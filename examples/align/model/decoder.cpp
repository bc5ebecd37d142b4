// See decoder.hpp.
#include "model/decoder.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "model/transformer_passes.hpp"
#include "random_source.hpp"

namespace align {
namespace {

token drawn(std::span<const float> logits, double temperature, random_source& random) {
  const auto highest = std::ranges::max_element(logits);
  if (temperature == 0) return static_cast<token>(highest - logits.begin());
  const auto weights =
      ((array_of(logits.data(), std::ssize(logits)) - *highest) / static_cast<float>(temperature))
          .exp()
          .cast<double>()
          .eval();
  double left = random.uniform() * weights.sum();
  Eigen::Index word = 0;
  while (word + 1 < weights.size() && (left -= weights[word]) >= 0) ++word;
  return static_cast<token>(word);
}

// Some sequences, of which every token is read once.
template <class W>
class decoder {
  using T = arithmetic<W>;

 public:
  decoder(const model_view<W>& model, std::size_t sequences, std::int64_t capacity, workers& on)
      : model_(model),
        weights_(carve(model.shape, model.parameters, model.lora, model.adapters)),
        at_(model.shape),
        on_(on),
        capacity_(capacity),
        lengths_(sequences) {
    keys_values_.resize(static_cast<std::size_t>(model.shape.layers));
    for (auto& layer : keys_values_) {
      layer.reshape(static_cast<std::int64_t>(sequences) * capacity,
                    std::int64_t{2} * at_.key_value_heads * at_.head_width);
    }
  }

  // Reads the next tokens of the sequences named, and gives the logits of what follows, a row each.
  // All of them begin, or all of them go on by one token.
  matrix<const T> read(const packed_batch& batch, std::span<const std::size_t> which) {
    const model_shape& s = model_.shape;
    detail::lay_out(s, batch, leave::nothing, a_);
    const bool begins = lengths_[which[0]] == 0;
    const std::int64_t rows = detail::padded_rows(a_);
    for (std::size_t q = 0; q < which.size(); ++q) {
      for (std::int32_t t = batch.offsets[q]; t < batch.offsets[q + 1]; ++t) {
        a_.positions[static_cast<std::size_t>(t)] += static_cast<std::int32_t>(lengths_[which[q]]);
      }
    }
    a_.turns.reach(s, capacity_);
    detail::lay_out_adapters(model_, rows, a_);
    detail::embed(s, weights_.words, batch, a_);
    for (std::size_t i = 0; i < weights_.blocks.size(); ++i) {
      detail::block_pass<W> block(s, model_.lora.scale(), weights_.blocks[i], a_, i);
      detail::on_pieces(rows, on_, [&](std::int64_t, std::int64_t first, std::int64_t count) {
        block.attention_inputs(first, count);
      });
      remember(batch, which, keys_values_[i].view());
      detail::on_groups(s, batch, on_, [&](std::int64_t first, std::int64_t length, int group) {
        if (begins) return block.attention(first, length, group);
        const auto q = static_cast<std::size_t>(first);  // one row for each sequence
        attend(first, which[q], group, keys_values_[i].view());
      });
      detail::on_pieces(rows, on_, [&](std::int64_t, std::int64_t first, std::int64_t count) {
        block.feed_forward_inputs(first, count);
        block.feed_forward(first, count);
      });
    }
    for (std::size_t q = 0; q < which.size(); ++q) {
      lengths_[which[q]] += batch.offsets[q + 1] - batch.offsets[q];
    }
    detail::read_out(s, weights_, batch, a_);
    return logits();
  }

 private:
  void remember(const packed_batch& batch, std::span<const std::size_t> which, matrix<T> cache) {
    const matrix<const T> qkv = a_.blocks[0].query_key_value.view();
    for (std::size_t q = 0; q < which.size(); ++q) {
      std::int64_t to = static_cast<std::int64_t>(which[q]) * capacity_ + lengths_[which[q]];
      for (std::int32_t t = batch.offsets[q]; t < batch.offsets[q + 1]; ++t, ++to) {
        std::copy_n(qkv.row(t) + at_.key(0), cache.columns, cache.row(to));
      }
    }
  }

  // Attention of one new token to all before it and itself.
  void attend(std::int64_t row, std::size_t sequence, int group, matrix<T> cache) {
    const std::int64_t seen = lengths_[sequence] + 1;
    const std::int64_t first = static_cast<std::int64_t>(sequence) * capacity_;
    const int width = at_.head_width;
    const auto k = detail::block_of(cache, first, std::int64_t{group} * width, seen, width);
    const auto v = detail::block_of(cache, first, std::int64_t{at_.key_value_heads + group} * width,
                                    seen, width);
    auto& block = a_.blocks[0];
    for (int head = group * at_.shared(); head < (group + 1) * at_.shared(); ++head) {
      const auto q = detail::block_of(block.query_key_value.view(), row, at_.query(head), 1, width);
      detail::dense<T> p = q * k.transpose() / std::sqrt(T(width));
      p.array() = (p.array() - p.maxCoeff()).exp();
      p /= p.sum();
      const detail::dense<T> out = p * v;
      W* const to = block.mixed.view().row(row) + at_.query(head);
      for (int j = 0; j < width; ++j) to[j] = W(out(0, j));
    }
  }

  matrix<const T> logits() {
    const matrix<const W> hidden = a_.hidden.view();
    const head_weights<const W>& head = weights_.head;
    const matrix<T> out = logits_.reshape(hidden.rows, head.weight.rows);
    const matrix<W> low = low_.reshape(hidden.rows, head.down.rows);
    low_rank_forward<W>(head.down, head.scale, hidden, low,
                        wide_low_.reshape(hidden.rows, head.down.rows));
    constexpr std::int64_t columns = 2048;
    on_(static_cast<std::size_t>((out.columns + columns - 1) / columns), [&](std::size_t i) {
      const std::int64_t first = static_cast<std::int64_t>(i) * columns;
      const std::int64_t count = std::min(columns, out.columns - first);
      const matrix<T> to = columns_of(out, first, count);
      multiply<W>(plain<W>(hidden), transposed<W>(rows_of(head.weight, first, count)), to);
      if (head.up.data == nullptr) return;
      multiply<W>(plain<W>(low), transposed<W>(rows_of(head.up, first, count)), to,
                  onto::what_is_there);
    });
    return logits_.view();
  }

  const model_view<W>& model_;
  model_weights<const W> weights_;
  attention_layout at_;
  workers& on_;
  std::int64_t capacity_;
  std::vector<std::int64_t> lengths_;
  std::vector<tensor<T>> keys_values_;
  activations<W> a_;
  tensor<W> low_;  // of the head's adapter
  tensor<T> wide_low_, logits_;
};

template <class W>
void write_together(const model_view<W>& model, std::span<const std::vector<token>> prompts,
                    const sampling& how, std::uint64_t first_seed, std::span<sample> samples,
                    workers& on) {
  const auto context = static_cast<std::size_t>(model.shape.context);
  std::size_t longest = 0;
  for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
  const std::size_t capacity = std::min(longest + how.longest, context);
  decoder<W> decode(model, prompts.size(), static_cast<std::int64_t>(capacity), on);

  std::vector<random_source> random;
  std::vector<std::size_t> open;
  for (std::size_t i = 0; i < prompts.size(); ++i) {
    random.emplace_back(first_seed + i);
    if (prompts[i].size() <= context) open.push_back(i);
  }
  packed_batch batch;
  for (bool begins = true; !open.empty() && how.longest > 0; begins = false) {
    batch.clear();
    for (const std::size_t i : open) {
      begins ? batch.append_open(prompts[i], {})
             : batch.append_open(std::span{samples[i].completion}.last(1), {});
    }
    const matrix<const arithmetic<W>> logits = decode.read(batch, open);
    on(open.size(), [&](std::size_t k) {
      sample& s = samples[open[k]];
      const token next = drawn(
          {logits.row(static_cast<std::int64_t>(k)), static_cast<std::size_t>(logits.columns)},
          how.temperature, random[open[k]]);
      s.completion.push_back(next);
      s.ended = next == how.end;
    });
    std::erase_if(open, [&](std::size_t i) {
      const sample& s = samples[i];
      return s.ended || s.completion.size() >= how.longest ||
             sequence_length(prompts[i].size(), s.completion.size()) >= context;
    });
  }
}

}  // namespace

std::size_t writing_bytes(const language_model& model, std::size_t longest_prompt,
                          std::size_t longest_completion, std::size_t together) {
  return model.visit([&]<class W>(const model_view<W>& view) {
    const model_shape& s = view.shape;
    const auto size = [](int n) { return static_cast<std::size_t>(n); };
    const std::size_t read =
        std::min(longest_prompt + longest_completion, static_cast<std::size_t>(s.context));
    const std::size_t keys_values =
        size(s.layers) * read * 2 * size(s.key_value_heads) * size(s.head_width);
    return sizeof(arithmetic<W>) * together * (keys_values + size(s.vocabulary)) +
           activation_bytes<W>(s, view.lora, together * longest_prompt, together, leave::nothing);
  });
}

std::vector<sample> write_completions(
    const language_model& model, std::span<const std::vector<token>> prompts, const sampling& how,
    workers& on, const std::function<bool(std::size_t, std::size_t)>& written) {
  std::vector<sample> samples(prompts.size());
  std::size_t tokens = 0;
  const std::uint64_t first_seed = random_source{how.seed}.next();
  for (std::size_t first = 0; first < prompts.size(); first += how.together) {
    const std::size_t count = std::min(how.together, prompts.size() - first);
    model.visit([&]<class W>(const model_view<W>& view) {
      write_together<W>(view, prompts.subspan(first, count), how, first_seed + first,
                        std::span{samples}.subspan(first, count), on);
    });
    for (std::size_t i = first; i < first + count; ++i) {
      tokens += prompts[i].size() + samples[i].completion.size();
    }
    if (!written(first + count, tokens)) break;
  }
  return samples;
}

}  // namespace align
