"""Joins the benches' JSON files into one and prints them as tables.
usage: report.py FILE... [--json OUT] [--context KEY=VALUE]..."""

import argparse
import datetime
import json
import re
import sys
from pathlib import Path


def read(files):
    """All rows, by name in the order they were run, and the context of the first file."""
    context, rows = {}, {}
    for file in files:
        text = Path(file).read_text()
        if not text.strip():  # no row of that program passed the filter
            continue
        try:
            content = json.loads(text)
        except json.JSONDecodeError:
            print(f"{file} is incomplete: its rows are left out", file=sys.stderr)
            continue
        for key in "date", "caches", "load_avg":
            if key in content.get("context", {}):
                context.setdefault(key, content["context"][key])
        for row in content["benchmarks"]:
            row["name"] = re.sub(r"/(manual_time|iterations:\d+)", "", row["name"])
            rows[row["name"]] = row
    return context, rows


def duration(seconds):
    for unit, size in ("s", 1.0), ("ms", 1e-3), ("us", 1e-6):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}" if seconds / size < 100 else \
                f"{seconds / size:.0f} {unit}"
    return f"{seconds * 1e9:.0f} ns"


def ahead(ours, other, time="median_s"):
    """How many times faster our row is; nothing where one of the two was not run."""
    return f"{other[time] / ours[time]:.1f}x" if ours and other else ""


def table(title, header, lines, notes=()):
    if not lines:
        return
    widths = [max(len(str(line[i])) for line in [header, *lines]) for i in range(len(header))]
    print(f"\n{title}")
    for line in [header, ["-" * w for w in widths], *lines]:
        print("  ".join(str(cell).ljust(w) if i == 0 else str(cell).rjust(w)
                        for i, (cell, w) in enumerate(zip(line, widths))).rstrip())
    for note in notes:
        print(f"  {note}")


def limits(rows):
    lines = []
    for name, row in rows.items():
        if "of_limit" not in row:
            continue
        unit = "GFLOP/s" if name.startswith("head/") else "GB/s"
        lines.append([name, duration(row["median_s"]), f"{row['cores']:.1f}",
                      f"{row['rate'] / 1e9:.1f}",
                      f"{row['limit'] / 1e9:.1f}", unit, f"{100 * row['of_limit']:.0f} %",
                      f"{row['ahead_of_keep_logits']:.2f}x"
                      if "ahead_of_keep_logits" in row else ""])
    table("Against the machine: each row in turn with its limit, same process, same threads",
          ["row", "time", "cores", "rate", "limit", "unit", "of limit", "vs keep-logits"], lines,
          ["A read counts once, a read and write in place twice; no cache holds the logits.",
           "cores: that the row had; fewer than its threads: the machine was busy.",
           "of limit: the median of the shares, each of a run and its limit before and after."])


# Peers of the head path that hold all logits at once.
WHOLE_LOGITS = {"torch", "torch_tuned", "torch_fp32_logits", "trl", "unsloth"}


def peers(rows, family):
    """{what is compared: {contestant: row}} for names family/contestant/what..."""
    groups = {}
    for name, row in rows.items():
        head, contestant, *what = name.split("/")
        if head == family:
            groups.setdefault("/".join(what), {})[contestant] = row
    return groups


def subnormal(rows):
    passes = {}
    for name, row in rows.items():
        if name.startswith("tokens/subnormal/"):
            _, _, which, data, *shape = name.split("/")
            passes.setdefault("/".join([which, *shape]), {})[data] = row
    lines = []
    for which, by_data in passes.items():
        ordinary = by_data.get("ordinary")
        cells = [duration(ordinary["median_s"]) if ordinary else ""]
        for data in "far", "tiny":
            row = by_data.get(data)
            cells += [duration(row["median_s"]) if row else "",
                      ahead(ordinary, row), ahead(ordinary, row, "fastest_s")]
        lines.append([which, *cells])
    table("Where results are too small for normal numbers, beside the same shapes of ordinary data",
          ["row", "ordinary", "far", "as long", "(fastest)", "tiny", "as long", "(fastest)"], lines,
          ["far: all logits but one 85 to 98 below it, coefficients up to 1e-3.",
           "tiny: ordinary logits, coefficients up to 1e-30; the deferred pass has none."])


def share(row, logits):
    return f"{row['peak_extra'] / logits:.2f}" if logits and "peak_extra" in row else ""


def steps(rows):
    lines = []
    for what, by_contestant in peers(rows, "step").items():
        keep = by_contestant.get("prospect_keep")
        deferred = by_contestant.get("prospect_deferred")
        dtype, shape, _ = what.split("/")
        tokens, vocabulary = map(int, shape.split("x"))
        logits = tokens * vocabulary * {"fp32": 4, "bf16": 2}[dtype]
        ours_first = sorted(by_contestant.items(), key=lambda c: not c[0].startswith("prospect"))
        for contestant, row in ours_first:
            factors = [""] * 4
            if not contestant.startswith("prospect"):
                factors = [ahead(ours, row, time) for ours in (keep, deferred)
                           for time in ("median_s", "fastest_s")]
            lines.append([f"{what} {contestant}", duration(row["median_s"]),
                          duration(row["fastest_s"]), *factors, share(row, logits)])
    table("A trainer's step from logits: log-prob per token, sums, gradient of the logits",
          ["", "median", "fastest", "keep ahead", "(fastest)", "deferred ahead", "(fastest)",
           "peak extra / logits"], lines,
          ["keep: gradient in place of the logits. deferred: the same without the sequences'",
           "coefficients, which the next product takes. torch: autograd, a gradient beside the",
           "logits. tuned: MALLOC_MMAP_MAX_=0, no trimming, huge pages."])


def gemms(rows):
    """How fast the products alone were, by type; and a BLAS that need not be there is named."""
    for dtype in "fp32", "bf16":
        for name, row in rows.items():
            found = {key.removeprefix("gemm_"): row[key] / 1e9 for key in row if key.startswith("gemm_")}
            if not name.startswith("head/") or f"/{dtype}/" not in name or not found:
                continue
            rates = ", ".join(f"{who} {rate:.0f}" for who, rate in found.items())
            print(f"GEMM alone, {dtype}, GFLOP/s: {rates}")
            if found.get("blas", found.get("eigen", 0)) < found.get("eigen", 0):
                print("The BLAS that was found is slower than Eigen on this machine.")
            break


def heads(rows):
    """Ours, and behind each type and kind of work its peers."""
    groups = {}
    for name, row in rows.items():
        family, who, *what = name.split("/")
        if family == "head":
            work, dtype, shape, _ = what
            kind = re.sub(r"_(rows|columns|elastic)$", "", work)
            groups.setdefault((dtype, kind, shape), {})[f"{who}/{work}"] = row
    lines, notes = [], {}
    for (dtype, work, shape), group in groups.items():
        tokens, _, vocabulary = map(int, shape.split("x"))
        peers = {who.split("/")[0]: row for who, row in group.items() if "of_limit" not in row}
        lean = {who: row for who, row in peers.items() if who not in WHOLE_LOGITS}
        best = min(lean, key=lambda who: lean[who]["median_s"], default=None)
        for who, row in group.items():
            cells = [""] * 4
            if "of_limit" in row:
                other = peers.get("torch"), peers.get("torch_tuned")
                cells = [ahead(row, other[0]), ahead(row, other[1]),
                         f"{ahead(row, lean[best])} ({best})" if best else "",
                         f"{100 * row['of_limit']:.0f} %"]
            if "note" in row:
                notes.setdefault(f"{who.split('/')[0]}: {row['note']}")
            lines.append([f"{dtype} {who}", duration(row["median_s"]), duration(row["fastest_s"]),
                          share(row, 4 * tokens * vocabulary), *cells])
    table("Through the LM head: hidden states to log-probs and gradients",
          ["row", "median", "fastest", "peak extra / logits", "torch behind", "tuned", "best lean peer",
           "of GEMM rate"], lines,
          ["peak extra: beside inputs and gradients, over fp32 logits.",
           "lean: peers that do not hold all logits at once.",
           "of GEMM rate: of the products that the schedule makes, 1 to 4, over the best GEMM of that type",
           "in the same process, whoever's.", *notes])


def sequences(rows):
    lines = []
    for what, by_contestant in peers(rows, "sequences").items():
        n = int(re.search(r"n:(\d+)", what).group(1))
        for contestant, row in by_contestant.items():
            if contestant.startswith("torch_"):
                continue
            other = by_contestant.get(f"torch_{contestant}")
            lines.append([f"{contestant}/{what}", f"{row['median_s'] / n * 1e9:.2f}",
                          f"{other['median_s'] / n * 1e9:.2f}" if other else "",
                          ahead(row, other), ahead(row, other, "fastest_s"),
                          f"{100 * row['of_limit']:.0f} %" if "of_limit" in row else "",
                          *(f"{row[of]:.2f}" if of in row else "" for of in ("of_dpo", "of_primitives"))])
    table("Losses on sums of log-probs, forward and backward, per example",
          ["row", "ns", "torch ns", "ahead", "(fastest)", "of copy", "of DPO", "of primitives"], lines,
          ["ours: losses, coefficients, rewards and metrics. torch eager: mean loss, gradients,",
           "rewards; no metrics. of copy: where no cache holds the batch. of DPO, of primitives:",
           "how many times as long as DPO on the same rows, and as the loss's primitives alone."])


def token_losses(rows):
    lines = []
    for what, by_contestant in peers(rows, "token_losses").items():
        n = int(re.search(r"n:(\d+)", what).group(1))
        for contestant, row in by_contestant.items():
            if contestant.startswith(("torch_", "liger_")):
                continue
            cells = []
            for project in "torch", "liger":
                other = by_contestant.get(f"{project}_{contestant}")
                cells += [f"{other['median_s'] / n * 1e9:.2f}" if other else "", ahead(row, other)]
            lines.append([f"{contestant}/{what}", f"{row['median_s'] / n * 1e9:.3f}", *cells,
                          f"{100 * row['of_limit']:.0f} %" if "of_limit" in row else ""])
    table("Losses of tokens, forward and backward, per token",
          ["row", "ns", "torch ns", "ahead", "liger ns", "ahead", "of read"], lines,
          ["ours: coefficients and metrics. torch eager, and Liger in it: mean loss and gradient.",
           "of read: bytes that are read or written, over a pass that only reads as many."])


def step_model(rows):
    """Training steps of a whole model: rows of one type stand together, PyTorch's under ours."""
    lines = []
    ours = {name: row for name, row in rows.items() if name.startswith("step_model/align")}
    theirs = {name: row for name, row in rows.items() if name.startswith("step_model/torch")}
    for dtype in "fp32", "bf16":
        of = lambda group: {n: r for n, r in group.items() if n.split("/")[2].startswith(dtype)}
        for name, row in {**of(ours), **of(theirs)}.items():
            _, who, kind, shape, _ = name.split("/")
            sequences, length = map(int, shape.split("x"))
            cells = [ahead(row, other) if "align" in who else "" for other in of(theirs).values()]
            lines.append([f"{who} {kind}", duration(row["median_s"]),
                          f"{sequences * length / row['median_s']:.0f}",
                          f"{row['peak_extra'] / 1e6:.0f} MB", *(cells + ["", ""])[:2]])
    table("A training step of a Llama model of 135M parameters, 8 x 128 tokens, DPO",
          ["row", "median", "tokens/s", "peak", "ahead of torch", "of its autocast"], lines,
          ["peak: weights, gradients, moments and activations. align bf16: weights in fp32 and bf16,",
           "products in bf16, as torch bf16_autocast; torch bf16 has everything in bf16.",
           "recompute: blocks are computed again in the backward pass. lora: rank 16, weights frozen."])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+")
    parser.add_argument("--json")
    parser.add_argument("--context", action="append", default=[])
    options = parser.parse_args()
    context, rows = read(options.files)
    if not rows:
        sys.exit("no row has such a name")
    context.setdefault("date", datetime.datetime.now().astimezone().isoformat(timespec="seconds"))
    context.update(pair.split("=", 1) for pair in options.context)
    versions = {row["label"].split(",")[0] for row in rows.values() if "label" in row}
    if versions:
        context["peers"] = ", ".join(sorted(versions))
    if options.json:
        Path(options.json).write_text(
            json.dumps({"context": context, "benchmarks": list(rows.values())}, indent=1) + "\n")
    print()
    for key, value in context.items():
        if key != "caches":
            print(f"{key}: {value}")
    if context.get("load_avg", [0])[0] > 0.5:
        print("The machine was busy with other work: shares and factors are good to tens of percent"
              " at best.")
    gemms(rows)
    limits(rows)
    subnormal(rows)
    steps(rows)
    heads(rows)
    step_model(rows)
    sequences(rows)
    token_losses(rows)


main()
