// A Llama-family decoder as libtorch modules: RMSNorm before each part, rotated queries and keys,
// fewer heads for keys than for queries, SwiGLU. It knows nothing of preferences, and hands out
// hidden states: what becomes of them is the caller's affair.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

struct llama_shape {
  std::int64_t vocabulary, width, layers, heads, key_heads, inner;
};

/// Root mean square norm (Zhang and Sennrich 2019).
class rms_norm : public torch::nn::Module {
 public:
  explicit rms_norm(std::int64_t width) : gain_{register_parameter("gain", torch::ones({width}))} {}

  at::Tensor forward(const at::Tensor& x) const {
    return x * at::rsqrt(x.square().mean(-1, /*keepdim=*/true) + 1e-5) * gain_;
  }

 private:
  at::Tensor gain_;
};

inline torch::nn::Linear plain_linear(std::int64_t from, std::int64_t to) {
  return torch::nn::Linear{torch::nn::LinearOptions(from, to).bias(false)};
}

/// Rotary positions (Su et al. 2021) of [..., tokens, even size]: halves are turned together.
inline at::Tensor rotated(const at::Tensor& x) {
  const std::int64_t half = x.size(-1) / 2;
  const at::Tensor frequency =
      at::pow(10000.0, -at::arange(half, x.options().requires_grad(false)) / half);
  const at::Tensor position = at::arange(x.size(-2), x.options().requires_grad(false));
  const at::Tensor angle = position.unsqueeze(-1) * frequency;
  const at::Tensor a = x.narrow(-1, 0, half), b = x.narrow(-1, half, half);
  const at::Tensor c = angle.cos(), s = angle.sin();
  return at::cat({a * c - b * s, b * c + a * s}, -1);
}

class attention : public torch::nn::Module {
 public:
  explicit attention(const llama_shape& shape)
      : heads_{shape.heads},
        key_heads_{shape.key_heads},
        size_{shape.width / shape.heads},
        query_{register_module("query", plain_linear(shape.width, heads_ * size_))},
        key_{register_module("key", plain_linear(shape.width, key_heads_ * size_))},
        value_{register_module("value", plain_linear(shape.width, key_heads_ * size_))},
        output_{register_module("output", plain_linear(heads_ * size_, shape.width))} {}

  at::Tensor forward(const at::Tensor& x) {
    const std::int64_t rows = x.size(0), tokens = x.size(1);
    const auto split = [&](const at::Tensor& y, std::int64_t heads) {
      return y.view({rows, tokens, heads, size_}).transpose(1, 2);
    };
    const auto shared = [&](const at::Tensor& y) {
      return y.repeat_interleave(heads_ / key_heads_, 1);
    };
    const at::Tensor q = rotated(split(query_(x), heads_));
    const at::Tensor k = shared(rotated(split(key_(x), key_heads_)));
    const at::Tensor v = shared(split(value_(x), key_heads_));
    const at::Tensor score =
        at::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(size_));
    const at::Tensor later = at::ones({tokens, tokens}, at::kBool).triu(1);
    const at::Tensor weight = at::softmax(score.masked_fill(later, -1e30), -1);
    return output_(at::matmul(weight, v).transpose(1, 2).reshape({rows, tokens, -1}));
  }

 private:
  std::int64_t heads_, key_heads_, size_;
  torch::nn::Linear query_, key_, value_, output_;
};

class block : public torch::nn::Module {
 public:
  explicit block(const llama_shape& shape)
      : attention_norm_{register_module("attention_norm", std::make_shared<rms_norm>(shape.width))},
        inner_norm_{register_module("inner_norm", std::make_shared<rms_norm>(shape.width))},
        attention_{register_module("attention", std::make_shared<attention>(shape))},
        gate_{register_module("gate", plain_linear(shape.width, shape.inner))},
        up_{register_module("up", plain_linear(shape.width, shape.inner))},
        down_{register_module("down", plain_linear(shape.inner, shape.width))} {}

  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor y = x + attention_->forward(attention_norm_->forward(x));
    const at::Tensor z = inner_norm_->forward(y);
    return y + down_(at::silu(gate_(z)) * up_(z));
  }

 private:
  std::shared_ptr<rms_norm> attention_norm_, inner_norm_;
  std::shared_ptr<attention> attention_;
  torch::nn::Linear gate_, up_, down_;
};

class llama : public torch::nn::Module {
 public:
  explicit llama(const llama_shape& shape)
      : embedding_{register_module("embedding",
                                   torch::nn::Embedding{shape.vocabulary, shape.width})},
        norm_{register_module("norm", std::make_shared<rms_norm>(shape.width))},
        head_{register_module("head", plain_linear(shape.width, shape.vocabulary))} {
    for (std::int64_t i = 0; i < shape.layers; ++i) {
      blocks_.push_back(
          register_module("block" + std::to_string(i), std::make_shared<block>(shape)));
    }
  }

  /// Tokens [rows, length] to what the head is multiplied by, [rows, length, width].
  at::Tensor hidden(const at::Tensor& tokens) {
    at::Tensor x = embedding_(tokens);
    for (const auto& part : blocks_) x = part->forward(x);
    return norm_->forward(x);
  }
  const at::Tensor& head() const { return head_->weight; }  ///< [vocabulary, width]

 private:
  torch::nn::Embedding embedding_;
  std::vector<std::shared_ptr<block>> blocks_;
  std::shared_ptr<rms_norm> norm_;
  torch::nn::Linear head_;
};
