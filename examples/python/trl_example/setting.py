"""A small Llama with random weights, a tokeniser of words and a made-up data set: what TRL's trainers need to
start, and nothing to download."""

from __future__ import annotations

import copy
import random
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import DPOConfig, KTOConfig


def tokeniser(words: int) -> PreTrainedTokenizerFast:
    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, words)}}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def language_models(words: int, width: int, layers: int, dtype=torch.float32, seed: int = 0):
    """A policy and its reference, a little apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(vocab_size=words, hidden_size=width, intermediate_size=2 * width, num_hidden_layers=layers,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=2048,
                         pad_token_id=0, eos_token_id=1, bos_token_id=None, tie_word_embeddings=False)
    reference = LlamaForCausalLM(config).to(dtype)
    policy = copy.deepcopy(reference)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return policy, reference


def texts(kind: str, n: int, words: int, prompt: int, completion: int, seed: int = 0) -> Dataset:
    """Prompts and completions of random words, of random lengths up to the given ones."""
    draw = random.Random(seed)

    def text(longest):
        return " " + " ".join(f"w{draw.randrange(3, words)}" for _ in range(draw.randint(longest // 2 + 1, longest)))

    rows = []
    for i in range(n):
        row = {"prompt": text(prompt)}
        if kind == "kto":
            rows.append({**row, "completion": text(completion), "label": i % 3 != 0})
        else:
            rows.append({**row, "chosen": text(completion), "rejected": text(completion)})
    return Dataset.from_list(rows)


def config(kind: str, batch: int, **more):
    of = KTOConfig if kind == "kto" else DPOConfig
    return of(output_dir=tempfile.mkdtemp(), per_device_train_batch_size=batch, report_to=[], use_cpu=True, bf16=False,
              gradient_checkpointing=False, max_length=None, disable_tqdm=True, **more)


def trainer(of, kind: str, policy, reference, words: int, data: Dataset, batch: int, **more):
    """A trainer of this class; models are copied, so that two trainers do not meet."""
    return of(model=copy.deepcopy(policy), ref_model=copy.deepcopy(reference), args=config(kind, batch, **more),
              train_dataset=data, processing_class=tokeniser(words))
