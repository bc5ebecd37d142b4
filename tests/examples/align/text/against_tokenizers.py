#!/usr/bin/env python3
"""Compares examples/align's tokeniser with the package `tokenizers`, id by id.

usage: against_tokenizers.py ALIGN_TOKENISE [MODEL]   (ALIGN_TOKENISE: the program of tokenise.cpp)

MODEL is a GGUF file (needs the package `gguf`) or its metadata as JSON: its vocabulary and merges are
put into a tokeniser of `tokenizers`, cut as its tokenizer.ggml.pre says. Without a model, and after
it, two vocabularies are compared for every known cut: one that `tokenizers` learns from the texts, and
one of all pairs of bytes, whose ids change wherever a cut does. 10,000 seeded texts each, with and
without control tokens; with the pairs also every character of Unicode between letters, digits and
spaces. Characters that the two know by different versions of Unicode are counted apart.
Not run by the tests of the tree: those need no Python packages.
"""
import json
import random
import subprocess
import sys
import tempfile
import unicodedata
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
          r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
byte_level = lambda regex: pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
split = lambda regex: pre_tokenizers.Sequence(
    [pre_tokenizers.Split(Regex(regex), "isolated"), byte_level(False)])
CUTS = {
    "smollm": pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), byte_level(True)]),
    "gpt-2": byte_level(True),
    "llama-bpe": split(LLAMA3),
    "qwen2": split(LLAMA3.replace("{1,3}", "")),
}
CONTROL, USER_DEFINED = 3, 4


def texts(count, specials, seed=20261130):
    rng = random.Random(seed)
    prose = ("It's the film's best scene; I'd say they'll love it, won't they? We've seen 3 of 12. "
             "DON'T SHOUT, HE'S HERE -- you're 100% right... (1984, pp. 7-19) e-mail@example.org ").split(" ")
    code = ["def f(x):", "\treturn x**2", "for (int i = 0; i < n; ++i) {", "}", "a[i]+=0x1F;", "//", "#include <a>",
            "    ", "\t\t", "\r\n", "x=y==z", "<br/>", "{% if a %}", "$HOME/.cfg", "\\n", "f'{a!r}'", "C++20"]
    emoji = ["😀", "👩‍👩‍👧‍👦", "👍🏽", "🏳️‍🌈", "🇩🇪", "1️⃣", "❤️", "🧑🏿‍🚀", "\U0001f9ff"]
    foreign = ["你好，世界", "今日は良い天気ですね。", "한국어 텍스트", "مرحبا بالعالم", "١٢٣", "नमस्ते दुनिया", "क्षत्रिय", "१२३",
               "ไทย", "Ελληνικά", "Привет", "Straße", "naïve", "e\u0301cole", "Å", "ﬁ", "ǅ", "½", "Ⅷ", "²", "ſ", "'ſ", "K"]
    spaces = [chr(c) for c in list(range(9, 14)) + [0x20, 0x85, 0xA0, 0x1680] + list(range(0x2000, 0x200B))
              + [0x2028, 0x2029, 0x202F, 0x205F, 0x3000]]
    odd = [chr(c) for c in (0x180E, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF, 0xE000, 0xF8FF, 0xFFFD, 0xFFFF, 0xF0000,
                            0x10FFFF, 0x2019, 0x02BC, 0x1D49C, 0x10330, 0x20000, 0x1F1E6, 0xE0001)]
    marks = ["\u0301", "\u0308", "\u0903", "\u064b", "\u20dd"]
    control = [chr(c) for c in list(range(32)) + [0x7F, 0x80, 0x9F]]

    def any_character():
        while True:
            c = rng.choice((rng.randrange(0x300), rng.randrange(0x3000), rng.randrange(0x10000), rng.randrange(0x110000)))
            if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn":
                return chr(c)

    kinds = [lambda: rng.choice(prose) + rng.choice((" ", "", "  ", "\n")),
             lambda: rng.choice(code),
             lambda: rng.choice(emoji),
             lambda: rng.choice(foreign),
             lambda: rng.choice(spaces) * rng.choice((1, 1, 2, 3, 9)),
             lambda: rng.choice(odd),
             lambda: rng.choice(marks),
             lambda: rng.choice(control),
             lambda: "".join(rng.choice("0123456789") for _ in range(rng.randrange(1, 9))),
             lambda: rng.choice(("'", "’", "''", "'S", "'LL", "'Ve", " 's", "'d'", "ʼ")),
             lambda: rng.choice(" \n\t\r") * rng.randrange(1, 12),
             lambda: "".join(rng.choice(" \n\t\r") for _ in range(rng.randrange(1, 8))),
             any_character,
             lambda: rng.choice(specials) if specials else "",
             lambda: rng.choice(specials)[:-1] if specials else ""]
    made = []
    for number in range(count):
        usual = rng.sample(kinds, rng.randrange(1, 5))
        pieces = rng.randrange(1, 30)
        made.append("".join(rng.choice(usual)() for _ in range(pieces)))
        if number % 500 == 7:  # very long words
            made[-1] += "".join(rng.choice("abcdefghijklmnopqrstuvwxyz") for _ in range(rng.randrange(1000, 20000)))
        if number % 500 == 8:
            made[-1] += rng.choice(("a", "ab", "=", " ", "\n", "ह", "7")) * rng.randrange(1000, 20000)
    return made


def run(program, tokeniser, lines, *arguments):
    result = subprocess.run([program, tokeniser, *arguments], input="".join(json.dumps(t) + "\n" for t in lines),
                            capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"{program} ended with {result.returncode}: {result.stderr}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def compare(name, program, path, theirs, lines):
    wrong = 0
    for specials in (True, False):
        theirs.encode_special_tokens = not specials
        expected = [e.ids for e in theirs.encode_batch(lines, add_special_tokens=False)]
        found = run(program, path, lines, *(["specials"] if specials else []))
        differ = [i for i in range(len(lines)) if expected[i] != found[i]]
        print(f"{name}: {len(lines) - len(differ)} of {len(lines)} texts have the same ids, "
              f"{'with' if specials else 'without'} control tokens ({sum(map(len, expected))} ids)")
        for i in differ[:3]:
            at = next(k for k in range(len(expected[i]) + 1) if expected[i][:k + 1] != found[i][:k + 1])
            print(f"  {lines[i][:80]!r}...: at {at} {expected[i][at:at + 5]}, not {found[i][at:at + 5]}")
        wrong += len(differ)
    return wrong


def compare_characters(name, program, path, theirs):
    every = [chr(c) for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    lines = [f"a{c}b {c}1{c} {c}{c}" for c in every]
    theirs.encode_special_tokens = True
    expected = [e.ids for e in theirs.encode_batch(lines, add_special_tokens=False)]
    found = run(program, path, lines)
    differ = [c for c, a, b in zip(every, expected, found) if a != b]
    known = [c for c in differ if unicodedata.category(c) != "Cn"]
    print(f"{name}: {len(every) - len(differ)} of {len(every)} characters are treated alike; of the others "
          f"{len(differ) - len(known)} are not assigned in Unicode {unicodedata.unidata_version}")
    for c in known[:10]:
        print(f"  U+{ord(c):04X} {unicodedata.category(c)}")
    return len(known)


def pairs_of_bytes(cut):
    """ASCII with what follows it merges first, so that no cut beside an ASCII character goes unseen."""
    bytes_ = {byte: chr(byte) for byte in (*range(33, 127), *range(161, 173), *range(174, 256))}
    for byte in range(256):
        bytes_.setdefault(byte, chr(256 + len(bytes_) - 188))
    pairs = [(a, b) for a in range(256) for b in range(256)]
    pairs.sort(key=lambda p: (not (p[0] < 128 <= p[1]), not (p[1] < 128 <= p[0])))
    letters = [bytes_[b] for b in range(256)]
    merges = [(letters[a], letters[b]) for a, b in pairs]
    vocabulary = {t: i for i, t in enumerate(letters + [a + b for a, b in merges])}
    theirs = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    theirs.pre_tokenizer, theirs.decoder = CUTS[cut], decoders.ByteLevel()
    return theirs


def from_metadata(metadata):
    tokens = metadata["tokenizer.ggml.tokens"]
    theirs = Tokenizer(models.BPE(
        vocab={t: i for i, t in enumerate(tokens)},
        merges=[tuple(m.split(" ")) for m in metadata["tokenizer.ggml.merges"]],
        ignore_merges=metadata["tokenizer.ggml.pre"] == "llama-bpe"))
    theirs.pre_tokenizer = CUTS[metadata["tokenizer.ggml.pre"]]
    theirs.decoder = decoders.ByteLevel()
    types = metadata["tokenizer.ggml.token_type"]
    specials = [t for t, kind in zip(tokens, types) if kind == CONTROL]
    theirs.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    theirs.add_tokens([AddedToken(t, normalized=True) for t, kind in zip(tokens, types) if kind == USER_DEFINED])
    return theirs, specials


def metadata_of(path):
    if path.suffix == ".json":
        return json.loads(path.read_text())
    from gguf import GGUFReader
    return {key: field.contents() for key, field in GGUFReader(path).fields.items() if key.startswith("tokenizer.")}


def main():
    program, wrong = sys.argv[1], 0
    with tempfile.TemporaryDirectory() as folder:
        if len(sys.argv) > 2:
            metadata, path = metadata_of(Path(sys.argv[2])), Path(folder) / "metadata.json"
            path.write_text(json.dumps(metadata))
            theirs, specials = from_metadata(metadata)
            wrong += compare(Path(sys.argv[2]).stem, program, path, theirs, texts(10000, specials))
        for cut, pre_tokenizer in CUTS.items():
            specials, added = ["<|start|>", "<|end|>", "<|end|>>"], ["<tool>", "  \t", "日本"]
            lines = texts(10000, specials + added)
            theirs = Tokenizer(models.BPE(ignore_merges=cut == "llama-bpe"))
            theirs.pre_tokenizer, theirs.decoder = pre_tokenizer, decoders.ByteLevel()
            theirs.train_from_iterator(lines[:3000], trainers.BpeTrainer(
                vocab_size=3000, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
            theirs.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
            theirs.add_tokens([AddedToken(t, normalized=False) for t in added])
            for kind, tokeniser in (("learnt", theirs), ("pairs", pairs_of_bytes(cut))):
                path = Path(folder) / (cut + kind)
                path.mkdir()
                tokeniser.save(str(path / "tokenizer.json"))
                wrong += compare(f"{cut}, {kind}", program, path, tokeniser, lines)
                if kind == "pairs":
                    wrong += compare_characters(f"{cut}, {kind}", program, path, tokeniser)
    print("all the same" if wrong == 0 else f"{wrong} differences")
    sys.exit(wrong != 0)


main()
