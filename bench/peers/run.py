"""Runs the PyTorch sides of the benches, each row in a process of its own, and writes their records
as JSON. usage: run.py OUT [FILTER]    (with a Python that can import torch)"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import heads
import peer

# Without these, PyTorch on glibc gives its temporaries back to the kernel and faults them in again
# at every step; sizes are those that keep it from doing so.
TUNED = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(16 << 30),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


def rows():
    """(name, script, arguments, environment)"""
    cores = len(os.sched_getaffinity(0))
    for threads in dict.fromkeys([cores, 1]):
        for vocabulary in 32000, 128256:
            for dtype in "fp32", "bf16":
                for style in "torch_halos", "torch_trl":
                    for suffix, environment in ("", {}), ("_tuned", TUNED):
                        name = f"step/{style}{suffix}/{dtype}/512x{vocabulary}/threads:{threads}"
                        yield name, "tokens.py", {
                            "work": style, "dtype": dtype, "rows": 512, "columns": vocabulary,
                            "threads": threads,
                        }, environment
        for loss in "kto", "dpo":
            for n in 64, 1024, 16384, 262144, 1 << 20, 10**7:
                yield f"sequences/torch_{loss}/n:{n}/threads:{threads}", "sequences.py", {
                    "work": f"torch_{loss}", "rows": n, "threads": threads,
                }, {}
        for work in token_losses():
            yield f"token_losses/{work}/n:{1 << 20}/threads:{threads}", "token_losses.py", {
                "work": work, "rows": 1 << 20, "threads": threads,
            }, {}
    yield from head_rows(cores)
    for work in "fp32", "bf16", "bf16_autocast":
        yield f"step_model/torch/{work}/8x128/threads:{cores}", "step_model.py", {
            "who": "transformers", "work": work, "rows": 8, "columns": 128, "threads": cores,
            "seconds": 10, "tuned": 1,
        }, {"GLIBC_TUNABLES": TUNED["GLIBC_TUNABLES"]}


def head_rows(cores):
    """Everybody tuned, and under a plain name, except for eager PyTorch: trained as it comes too.
    Tuned, those with many temporaries take half the time, but more memory: their peak is of a step
    before, as it comes (--tuned)."""
    huge = {"GLIBC_TUNABLES": TUNED["GLIBC_TUNABLES"]}
    for who, contestant in heads.CONTESTANTS.items():
        for dtype, works in ("fp32", contestant.fp32), ("bf16", contestant.bf16):
            for work in works:
                ways = [("torch_tuned" if who == "torch" else who, 1, huge)]
                if who == "torch" and work == "trained":
                    ways.append((who, 0, {}))
                for name, tuned, environment in ways:
                    yield f"head/{name}/{work}/{dtype}/2048x1024x32000/threads:{cores}", "head.py", {
                        "who": who, "work": work, "dtype": dtype, "rows": 2048, "hidden": 1024,
                        "columns": 32000, "threads": cores, "seconds": 2, "tuned": tuned,
                    }, environment


def token_losses():
    ours = ["torch_grpo", "torch_sft"]
    if importlib.util.find_spec("liger_kernel"):
        return [*ours, "liger_grpo"]
    print("Liger rows are left out: there is no liger_kernel", file=sys.stderr)
    return ours


def main():
    out = Path(sys.argv[1])
    wanted = re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    here = Path(__file__).resolve().parent
    records = []
    failed = False
    left_out = set()
    for name, script, options, environment in rows():
        if not wanted.search(name) or options.get("who") in left_out:
            continue
        command = [sys.executable, str(here / script), "--name", name]
        for key, value in options.items():
            command += [f"--{key}", str(value)]
        done = subprocess.run(command, env={**os.environ, **environment}, stdout=subprocess.PIPE,
                              text=True)
        if done.returncode == peer.LEFT_OUT:
            left_out.add(options["who"])
            continue
        if done.returncode != 0:
            print(f"{name}: failed", file=sys.stderr)
            failed = True
            continue
        record = json.loads(done.stdout)
        print(f"{name:70} {1e3 * record['median_s']:12.3f} ms", flush=True)
        records.append(record)
    out.write_text(json.dumps({"benchmarks": records}))
    sys.exit(failed)


main()
