"""What the PyTorch sides of the benches share: time and peak memory of one piece of work in a
process of its own, printed as a record of Google Benchmark's JSON."""

import argparse
import ctypes
import json
import statistics
import sys
import time

import torch

LEFT_OUT = 3  # exit status of a process whose contestant cannot be imported


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--name", required=True, help="of the row in the table")
    parser.add_argument("--work", required=True)
    parser.add_argument("--who", default="", help="does the work, where several do the same")
    parser.add_argument("--dtype", default="fp32", choices=["fp32", "bf16"])
    parser.add_argument("--rows", type=int, required=True)
    parser.add_argument("--columns", type=int, default=0)
    parser.add_argument("--hidden", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch likes")
    parser.add_argument("--tuned", type=int, default=0, help="1: keep what is freed while timing")
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


def settled():
    """What is resident once all that was freed has gone back to the kernel, or work might find its
    memory there; the peak starts from there again."""
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")
    return memory("VmRSS")


def keep_freed_memory():
    """What MALLOC_MMAP_MAX_ and MALLOC_TRIM_THRESHOLD_ do, from now on."""
    trim_threshold, mmap_max = -1, -4  # <malloc.h>
    libc = ctypes.CDLL(None)
    if not (libc.mallopt(mmap_max, 0) and libc.mallopt(trim_threshold, -1)):
        raise RuntimeError("mallopt failed")


def leave_out(who, error):
    print(f"{who} is left out: {error}", file=sys.stderr)
    sys.exit(LEFT_OUT)


def require(name, got, expected, tolerance):
    """Ends the process if an answer is wrong: there is nothing to time."""
    error = (got.double() - expected.double()).abs().max().item()
    if not error <= tolerance:
        raise SystemExit(f"{name}: off by {error}")


def measure(options, work, baseline, note=""):
    """`work` does everything once. `baseline` is what it needs to exist, resident before it starts
    (VmRSS, after a first run on something small). `note` is for the reader: what it rounds, makes
    twice or cannot do."""
    work()
    peak = memory("VmHWM") - baseline
    if options.tuned:
        keep_freed_memory()
        work()
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
        **({"note": note} if note else {}),
    }))
