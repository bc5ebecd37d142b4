"""What the PyTorch sides of the benches share: time and peak memory of one piece of work in a
process of its own, printed as a record of Google Benchmark's JSON."""

import argparse
import json
import statistics
import time

import torch


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True, help="of the row in the table")
    parser.add_argument("--work", required=True)
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--columns", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch likes")
    parser.add_argument("--seconds", type=float, default=1.0, help="to spend on timing")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    return options


def memory(field):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/self/status has no {field}")


def require(name, got, expected, tolerance):
    """Ends the process if an answer is wrong: there is nothing to time."""
    error = (got.double() - expected.double()).abs().max().item()
    if not error <= tolerance:
        raise SystemExit(f"{name}: off by {error}")


def measure(options, work, baseline):
    """`work` does everything once. `baseline` is what it needs to exist, resident before it starts
    (VmRSS, after a first run on something small)."""
    work()
    peak = memory("VmHWM") - baseline
    times = []
    start = time.perf_counter()
    while len(times) < 3 or (time.perf_counter() - start < options.seconds and len(times) < 1000):
        before = time.perf_counter()
        work()
        times.append(time.perf_counter() - before)
    print(json.dumps({
        "name": options.name,
        "run_name": options.name,
        "run_type": "iteration",
        "iterations": len(times),
        "real_time": 1e9 * statistics.median(times),
        "time_unit": "ns",
        "median_s": statistics.median(times),
        "fastest_s": min(times),
        "peak_extra": peak,
        "label": f"torch {torch.__version__}, {torch.get_num_threads()} threads",
    }))
