"""A whole training step of a Llama model of the size of SmolLM2-135M in PyTorch eager, Hugging Face's
modules: four pairs of 128 tokens under DPO, forward, backward, clipping and AdamW.

fp32: everything. bf16: weights, gradients and moments, as `.to(bfloat16)` makes them: half the memory of
the row below, but an optimiser whose small steps are lost. bf16_autocast: weights, gradients and moments
in fp32, products in bf16, which is what the trainer's bf16 is."""

import torch
from torch.nn import functional

import peer

SEQUENCES, LENGTH, PROMPT = 8, 128, 32
BETA = 0.1


def main():
    options = peer.arguments()
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError as error:
        peer.leave_out(options.who, error)
    torch.manual_seed(1)
    baseline = peer.settled()
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=2048, rope_theta=1e5,
        tie_word_embeddings=True))
    if options.work == "bf16":
        model = model.to(torch.bfloat16)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-5, weight_decay=0.01)
    ids = torch.randint(0, 49152, (SEQUENCES, LENGTH + 1))
    reference = None

    def log_probs():
        with torch.autocast("cpu", torch.bfloat16, enabled=options.work == "bf16_autocast"):
            # As TRL does: logits of the completions alone.
            hidden = model.model(ids[:, :-1], use_cache=False).last_hidden_state[:, PROMPT - 1:]
            logits = model.lm_head(hidden)
        picked = logits.float().log_softmax(-1).gather(-1, ids[:, PROMPT:, None])
        return picked.squeeze(-1).sum(-1)

    with torch.no_grad():
        reference = log_probs()

    def step():
        optimiser.zero_grad()
        ratio = log_probs() - reference
        chosen, rejected = ratio.chunk(2)
        loss = -functional.logsigmoid(BETA * (chosen - rejected)).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss

    peer.require(options.name, step(), torch.tensor(2.0).log(), 1e-2)
    peer.measure(options, step, baseline)


main()
