"""The work of the token and sequence benches by what a user would pick instead: PyTorch eager and
compiled, Liger-Kernel, QuACK; whichever can be imported. Same shapes, cold L2 cache, CUDA events, medians.
usage: peers.py OUT.json [FILTER]

Who writes what: PyTorch and QuACK give a gradient in a matrix of its own; Liger's cross entropy overwrites
the logits with the gradient of the mean loss in its forward pass, which serves no loss whose coefficients
come later, and is timed as what it is."""

import json
import re
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
except ImportError:
    sys.exit("PyTorch cannot be imported: no peer is timed")

SHAPES = [(4096, 32000), (8192, 50257), (8192, 128256), (16384, 151936)]
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def median(call, replays=15):
    flushed = torch.empty(256 << 20, dtype=torch.uint8, device="cuda")
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for i in range(replays + 3):
        flushed.fill_(i)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        if i >= 3:
            times.append(1e-3 * begin.elapsed_time(end))
    return statistics.median(times)


def log_probs(logits, targets):
    return -F.cross_entropy(logits.float(), targets, reduction="none")


def step(forward):
    """Log-probs and their gradient for given coefficients, as a preference loss needs them."""
    def run(logits, targets, d):
        logits.grad = None
        forward(logits, targets).backward(d)
    return run


def token_peers():
    yield "torch_eager", log_probs, "gradient in a matrix of its own"
    yield "torch_compiled", torch.compile(log_probs), "gradient in a matrix of its own"
    try:
        from quack import cross_entropy
        yield "quack", lambda x, y: -cross_entropy(x, y, reduction="none"), \
            "gradient in a matrix of its own"
    except ImportError:
        print("QuACK cannot be imported: left out", file=sys.stderr)
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy
        yield "liger", lambda x, y: -liger_cross_entropy(x, y, reduction="none"), \
            "forward writes the gradient over the logits"
    except ImportError:
        print("Liger-Kernel cannot be imported: left out", file=sys.stderr)


def token_rows(wanted):
    for peer, forward, note in token_peers():
        for dtype_name, dtype in DTYPES.items():
            for rows, columns in SHAPES:
                size = f"{dtype_name}/{rows}x{columns}"
                try:
                    x = torch.randn(rows, columns, device="cuda", dtype=dtype)
                    y = torch.randint(columns, (rows,), device="cuda")
                    d = torch.rand(rows, device="cuda")
                    if wanted(f"{peer}/log_probs/{size}") and peer != "liger":
                        with torch.no_grad():
                            yield f"{peer}/log_probs/{size}", median(lambda: forward(x, y)), ""
                    if wanted(f"{peer}/keep_logits/{size}"):
                        x.requires_grad_(True)
                        yield f"{peer}/keep_logits/{size}", \
                            median(lambda: step(forward)(x, y, d)), note
                except Exception as e:  # out of memory, or a peer's own limits: said, not hidden
                    yield f"{peer}/{size}", None, f"{type(e).__name__}: {str(e).splitlines()[0][:80]}"
                finally:
                    x = y = d = None
                    torch.cuda.empty_cache()


def kto(policy, reference, kl_policy, kl_reference, desirable):
    z = (kl_policy - kl_reference).mean().clamp(min=0).detach()
    advantage = 0.1 * (policy - reference - z)
    return torch.where(desirable, 1 - F.sigmoid(advantage), 1 - F.sigmoid(-advantage)).mean()


def dpo(chosen, rejected, reference_chosen, reference_rejected, _):
    margin = 0.1 * ((chosen - reference_chosen) - (rejected - reference_rejected))
    return -F.logsigmoid(margin).mean()


def sequence_rows(wanted):
    for kind, compile_it in ("torch_eager", False), ("torch_compiled", True):
        for name, loss in ("kto", kto), ("dpo", dpo):
            f = torch.compile(loss) if compile_it else loss
            for n in 64, 4096, 65536, 10000000:
                row = f"{kind}/sequences/{name}/n:{n}"
                if not wanted(row):
                    continue
                a = torch.randn(n, device="cuda", requires_grad=True)
                b, c, d = (torch.randn(n, device="cuda") for _ in range(3))
                if name == "dpo":
                    b.requires_grad_(True)
                up = torch.rand(n, device="cuda") < 0.5

                def run():
                    a.grad = b.grad = None
                    (f(a, c, b, d, up) if name == "kto" else f(a, b, c, d, up)).backward()
                yield row, median(run), "no rewards or metrics"


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit("there is no GPU: no peer is timed")
    pattern = re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    rows = []
    for produce in token_rows, sequence_rows:
        for name, seconds, note in produce(lambda row: pattern.search(row)):
            row = {"name": f"gpu/peers/{name}", "note": note}
            if seconds is None:
                row.update(error_occurred=True, error_message=note)
            else:
                row["median_s"] = seconds
            rows.append(row)
            print(row, flush=True)
            with open(sys.argv[1], "w", encoding="utf-8") as file:
                json.dump({"benchmarks": rows}, file, indent=1)


if __name__ == "__main__":
    main()
