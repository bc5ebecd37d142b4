#!/usr/bin/env python3
"""The trainer's model beside Hugging Face's: logits, and the gradient of a KTO loss by autograd.

usage: against_transformers.py ALIGN_PASSES MODEL.gguf

ALIGN_PASSES is the program that the tests build. Weights are what the Python package `gguf` makes of
the file's blocks, put into LlamaForCausalLM in fp32. Needs torch, transformers, gguf and numpy.
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy
import torch
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve()
BLOCK = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
ORDER = list(BLOCK)  # as they lie in the trainer's row of parameters
LORA = [("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",)]


def halves(rows, heads):
    """Rows of queries or keys from GGUF's order, pairs side by side, to Hugging Face's halves."""
    width = rows.shape[0] // heads
    return rows.reshape(heads, width // 2, 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def pairs(rows, heads):
    width = rows.shape[0] // heads
    return rows.reshape(heads, 2, width // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


class Reference:
    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        field = lambda key: reader.fields["llama." + key].contents()
        self.layers, self.heads = field("block_count"), field("attention.head_count")
        self.key_heads = field("attention.head_count_kv")
        weights = {t.name: gguf.quants.dequantize(t.data, t.tensor_type) for t in reader.tensors}
        config = LlamaConfig(
            vocab_size=weights["token_embd.weight"].shape[0], hidden_size=field("embedding_length"),
            intermediate_size=field("feed_forward_length"), num_hidden_layers=self.layers,
            num_attention_heads=self.heads, num_key_value_heads=self.key_heads,
            max_position_embeddings=field("context_length"), rope_theta=field("rope.freq_base"),
            rms_norm_eps=field("attention.layer_norm_rms_epsilon"),
            tie_word_embeddings="output.weight" not in weights)
        self.model = LlamaForCausalLM(config).eval()
        state = {"model.embed_tokens.weight": weights["token_embd.weight"],
                 "model.norm.weight": weights["output_norm.weight"]}
        if "output.weight" in weights:
            state["lm_head.weight"] = weights["output.weight"]
        for i in range(self.layers):
            for ours, theirs in BLOCK.items():
                value = weights[f"blk.{i}.{ours}.weight"]
                if ours in ("attn_q", "attn_k"):
                    value = halves(value, self.heads_of(ours))
                state[f"model.layers.{i}.{theirs}.weight"] = value
        missing = self.model.load_state_dict(
            {k: torch.from_numpy(numpy.array(v, dtype=numpy.float32)) for k, v in state.items()}, strict=False)
        assert not missing.unexpected_keys and set(missing.missing_keys) <= {"lm_head.weight"}, missing

    def heads_of(self, name):
        return self.heads if name == "attn_q" else self.key_heads

    def in_our_order(self, name, value):
        return pairs(value, self.heads_of(name)) if name in ("attn_q", "attn_k") else value

    def gradient(self):
        """(name, gradient) of every weight, in our order."""
        yield "token_embd", self.model.model.embed_tokens.weight.grad.numpy()
        for i, layer in enumerate(self.model.model.layers):
            for name in ORDER:
                value = layer.get_submodule(BLOCK[name]).weight.grad.numpy()
                yield f"blk.{i}.{name}", self.in_our_order(name, value)
        yield "output_norm", self.model.model.norm.weight.grad.numpy()

    def log_probs(self, rows):
        sums = []
        for row in rows:
            ids = torch.tensor([row["prompt"] + row["completion"]])
            log_probs = torch.log_softmax(self.model(ids).logits[0].double(), -1)
            first = len(row["prompt"])
            picked = log_probs[range(first - 1, ids.shape[1] - 1), ids[0, first:]]
            sums.append(picked.sum())
        return torch.stack(sums)


def kto(policy, rows, z, beta=0.1):
    ratio = policy - torch.tensor([r["reference"] for r in rows], dtype=torch.float64)
    up = torch.tensor([r["desirable"] for r in rows])
    return torch.where(up, 1 - torch.sigmoid(beta * (ratio - z)), 1 - torch.sigmoid(beta * (z - ratio))).mean()


def ours(program, job, folder):
    out = os.path.join(folder, "out.f32")
    done = subprocess.run([program, out], input=json.dumps(job), text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{program}: {done.stderr}")
    return json.loads(done.stdout), numpy.fromfile(out, dtype=numpy.float32), out


def relative(a, b):
    return float(numpy.linalg.norm(a.ravel() - b.ravel()) / numpy.linalg.norm(b))


def logits(program, path, reference, folder):
    text = (HERE.parents[4] / "README.md").read_text()
    texts = [text[i:i + 900] for i in range(0, 6300, 900)]
    ids, values, _ = ours(program, {"model": path, "texts": texts}, folder)
    worst, same, count, at = 0.0, 0, 0, 0
    for one in ids:
        with torch.no_grad():
            expected = reference.model(torch.tensor([one])).logits[0, :-1].numpy()
        got = values[at:at + expected.size].reshape(expected.shape)
        at += expected.size
        worst = max(worst, float(abs(got - expected).max()))
        same += int((got.argmax(-1) == expected.argmax(-1)).sum())
        count += expected.shape[0]
    print(f"logits of {count} tokens: largest difference {worst:.2e}, the same argmax for {same}")
    return worst <= 1e-3 and same == count and count >= 1000, ids


def gradients(program, path, reference, ids, folder, lora=0, recompute=False, head=False):
    rows = [{"prompt": one[:20 + 9 * i], "completion": one[20 + 9 * i:60 + 11 * i], "desirable": i % 2 == 0}
            for i, one in enumerate(ids[:4])]
    z = 0.25
    model = reference.model
    model.zero_grad()
    with torch.no_grad():
        for row, log_prob in zip(rows, reference.log_probs(rows)):
            row["reference"] = float(log_prob) + (0.7 if row["desirable"] else -1.3)
    job = {"model": path, "rows": rows, "z": z, "lora": lora, "lora_head": head, "recompute": recompute}
    said, gradient, out = ours(program, job, folder)
    adapters = {}
    if lora:
        values, at = numpy.fromfile(out + ".adapters", dtype=numpy.float32), 0
        for i, layer in enumerate(model.model.layers):
            for group in LORA:
                for part in "ab":
                    for name in group:
                        module = layer.get_submodule(BLOCK[name])
                        shape = (lora, module.in_features) if part == "a" else (module.out_features, lora)
                        value = values[at:at + shape[0] * shape[1]].reshape(shape)
                        at += value.size
                        adapters[i, name, part] = torch.tensor(value.copy(), requires_grad=True)
        if head:
            vocabulary, width = model.lm_head.weight.shape
            for part, shape in (("a", (lora, width)), ("b", (vocabulary, lora))):
                value = values[at:at + shape[0] * shape[1]].reshape(shape)
                at += value.size
                adapters["output", part] = torch.tensor(value.copy(), requires_grad=True)
        assert at == values.size
        hooks = []
        for i, layer in enumerate(model.model.layers):
            for name in ORDER:
                if (i, name, "a") not in adapters:
                    continue

                def adapted(_, inputs, output, i=i, name=name):
                    low = inputs[0] @ adapters[i, name, "a"].T @ adapters[i, name, "b"].T * 2
                    if name in ("attn_q", "attn_k"):
                        width = low.shape[-1]
                        order = halves(numpy.arange(width), self_heads(name))
                        low = low[..., torch.from_numpy(order.copy())]
                    return output + low

                self_heads = reference.heads_of
                hooks.append(layer.get_submodule(BLOCK[name]).register_forward_hook(adapted))
        if head:
            hooks.append(model.lm_head.register_forward_hook(
                lambda _, inputs, output: output + inputs[0] @ adapters["output", "a"].T @ adapters["output", "b"].T * 2))
    loss = kto(reference.log_probs(rows), rows, z)
    loss.backward()
    if lora:
        for hook in hooks:
            hook.remove()
        expected = [(f"blk.{i}.{name}.lora_{part}", adapters[i, name, part].grad.numpy())
                    for i in range(reference.layers) for group in LORA for part in "ab" for name in group]
        if head:
            expected += [("output.lora_" + part, adapters["output", part].grad.numpy()) for part in "ab"]
    else:
        expected = list(reference.gradient())
    worst, where, at = 0.0, "", 0
    for name, value in expected:
        error = relative(gradient[at:at + value.size].reshape(value.shape), value)
        at += value.size
        if error > worst:
            worst, where = error, name
    assert at == gradient.size, (at, gradient.size)
    whole = relative(gradient, numpy.concatenate([v.ravel() for _, v in expected]))
    kind = f"rank {lora} adapters" + (", the head's too" if head else "") if lora else "all weights" + (", recomputed" if recompute else "")
    print(f"gradient of KTO by {kind}: relative difference {whole:.1e}, of one matrix at most {worst:.1e} "
          f"({where}); loss {said['loss']:.9f} and {loss.item():.9f}")
    return worst <= 1e-4 and abs(said["loss"] - loss.item()) <= 1e-6


def main():
    program, path = sys.argv[1:]
    reference = Reference(path)
    with tempfile.TemporaryDirectory() as folder:
        good, ids = logits(program, path, reference, folder)
        for lora, recompute, head in ((0, False, False), (0, True, False), (8, False, False), (8, False, True)):
            good &= gradients(program, path, reference, ids, folder, lora, recompute, head)
    print("all agree" if good else "THEY DIFFER")
    sys.exit(0 if good else 1)


main()
