#!/usr/bin/env python3
"""The GGUF that the trainer writes, in llama.cpp: the same tokens of each question, and the same answer at temperature 0.

usage: against_llama_cpp.py ALIGN_PASSES MODEL

ALIGN_PASSES is the program that the tests build. Needs the Python package llama-cpp-python (its sdist builds
llama.cpp). Keys and values are kept in fp32, as the trainer keeps them. Two engines sum in different orders, so where
the two most probable tokens are nearly as probable as each other, answers may part: there the gap that llama.cpp sees
is shown, and must be tiny.
"""
import json
import pathlib
import subprocess
import sys
import tempfile

import llama_cpp
import numpy

QUESTIONS = [
    "What is the capital of France?", "Write a short poem about the sea.", "How do I boil an egg?",
    "Explain gravity to a child.", "List three fruits.", "What is 17 + 25?", "Translate 'good morning' into German.",
    "Who wrote Hamlet?", "Give me a name for a cat.", "Why is the sky blue?", "How can I fall asleep faster?",
    "What should I do when I am angry?", "Write a Python function that adds two numbers.", "Was ist ein Löffel? 🥄",
    "Name a planet with rings.", "Tell me a joke.",
]
LONGEST = 48  # tokens of an answer
NEAR_TIE = 1e-3  # between logits


def ours(program, model, save):
    job = {"model": model, "questions": QUESTIONS, "longest": LONGEST, "save": str(save)}
    done = subprocess.run([program], input=json.dumps(job), capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def answer(engine, prompt, end):
    """Its most probable tokens, and between the two most probable logits of each, the gap."""
    engine.reset()
    engine.eval(prompt)
    tokens, gaps = [], []
    while len(tokens) < LONGEST:
        logits = numpy.ctypeslib.as_array(
            llama_cpp.llama_get_logits_ith(engine.ctx, -1), shape=(engine.n_vocab(),)).copy()
        second, first = numpy.partition(logits, -2)[-2:]
        tokens.append(int(logits.argmax()))
        gaps.append(float(first - second))
        if tokens[-1] == end:
            break
        engine.eval(tokens[-1:])
    return tokens, gaps


def main():
    program, model = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "written.gguf"
        answers = ours(program, model, path)
        engine = llama_cpp.Llama(str(path), n_ctx=1024, type_k=0, type_v=0, flash_attn=False, verbose=False)
        same = 0
        for question, mine in zip(QUESTIONS, answers):
            chat = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
            tokens = engine.tokenize(chat.encode(), add_bos=False, special=True)
            # The template may put a system message of its own before the question.
            assert mine["prompt"][-len(tokens):] == tokens, (question, mine["prompt"], tokens)
            theirs, gaps = answer(engine, mine["prompt"], engine.token_eos())
            if theirs == mine["completion"]:
                text = engine.detokenize(theirs).decode(errors="replace")
                assert text.strip() == mine["text"].strip(), (text, mine["text"])
                same += 1
                continue
            at = next(i for i, (a, b) in enumerate(zip(theirs, mine["completion"])) if a != b)
            print(f"{question!r}: apart from token {at} on, where llama.cpp's first two logits are {gaps[at]:.1e} apart")
            assert gaps[at] < NEAR_TIE
    print(f"{same} of {len(QUESTIONS)} answers are the same, of up to {LONGEST} tokens")
    assert same >= len(QUESTIONS) - 2


if __name__ == "__main__":
    main()
