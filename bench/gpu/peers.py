"""The work of the token, sequence and head benches by what a user would pick instead: PyTorch eager and
compiled, Liger-Kernel, QuACK, cut-cross-entropy, TRL; whichever can be imported. Same shapes, cold L2 cache, CUDA events, medians.
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


HEADS = [(4096, 4096, 128256), (8192, 2048, 151936), (4096, 4096, 32000)]


def head_log_probs(hidden, weight, targets):
    return -F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")


def head_peers():
    """name, log-probs of (hidden, weight, targets), note"""
    yield "torch_eager", head_log_probs, "logits whole"
    yield "torch_compiled", torch.compile(head_log_probs), "logits whole"
    if hasattr(F, "linear_cross_entropy"):
        yield "torch_linear_cross_entropy", lambda x, w, y: -F.linear_cross_entropy(
            x, w, y, reduction="none"), ""
    else:
        print("this PyTorch has no linear_cross_entropy: left out", file=sys.stderr)
    try:
        from cut_cross_entropy import linear_cross_entropy
        yield "cut_cross_entropy", lambda x, w, y: -linear_cross_entropy(
            x, w, y, reduction="none"), "leaves out small gradients"
    except ImportError:
        print("cut-cross-entropy cannot be imported: left out", file=sys.stderr)
    try:
        from quack.linear_cross_entropy import linear_cross_entropy_func
        yield "quack", lambda x, w, y: -linear_cross_entropy_func(x, w, y, reduction="none"), ""
    except ImportError:
        print("QuACK's linear cross entropy cannot be imported: left out", file=sys.stderr)
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
        yield "liger", lambda x, w, y: -liger_fused_linear_cross_entropy(x, w, y, reduction="none"), \
            "its forward pass has the gradient"
    except ImportError:
        print("Liger-Kernel cannot be imported: left out", file=sys.stderr)


def liger_chunked(name, hidden, weight, targets):
    """Liger's chunked DPO or KTO, forward and backward, without a reference model."""
    from liger_kernel.chunked_loss import LigerFusedLinearDPOLoss, LigerFusedLinearKTOLoss
    length = 512
    tokens = hidden.view(-1, length, hidden.shape[-1])
    labels = targets.view(-1, length)
    if name == "dpo":
        loss = LigerFusedLinearDPOLoss(use_ref_model=False, compute_nll_loss=False)
        return lambda: loss(weight, tokens, labels)[0].backward()
    loss = LigerFusedLinearKTOLoss(use_ref_model=False)
    up = torch.arange(tokens.shape[0], device="cuda") % 2 == 0
    kl = torch.zeros((), device="cuda")
    return lambda: loss(tokens, weight, labels, up, kl=kl)[0].backward()


def head_rows(wanted):
    """A frozen head has a gradient for hidden states alone, a trained one for the weight as well."""
    for tokens, width, columns in HEADS:
        size = f"bf16/{tokens}x{width}x{columns}"
        x = torch.randn(tokens, width, device="cuda", dtype=torch.bfloat16)
        w = torch.randn(columns, width, device="cuda", dtype=torch.bfloat16) * width ** -0.5
        y = torch.randint(columns, (tokens,), device="cuda")
        d = torch.rand(tokens, device="cuda")
        for peer, forward, note in head_peers():
            for what in "log_probs", "frozen", "trained":
                row = f"{peer}/head/{what}/{size}"
                if not wanted(row):
                    continue
                try:
                    x.requires_grad_(what != "log_probs")
                    w.requires_grad_(what == "trained")

                    def run():
                        x.grad = w.grad = None
                        if what == "log_probs":
                            with torch.no_grad():
                                forward(x, w, y)
                        else:
                            forward(x, w, y).backward(d)
                    yield row, median(run), note
                except Exception as e:  # out of memory, or a peer's own limits: said, not hidden
                    yield row, None, f"{type(e).__name__}: {str(e).splitlines()[0][:80]}"
                torch.cuda.empty_cache()
        for name in "dpo", "kto":
            row = f"liger/head/{name}/{size}"
            if not wanted(row):
                continue
            try:
                x.requires_grad_(True)
                w.requires_grad_(True)
                yield row, median(liger_chunked(name, x, w, y)), "chunked; the head is always trained"
            except Exception as e:
                yield row, None, f"{type(e).__name__}: {str(e).splitlines()[0][:80]}"
        del x, w, y, d
        torch.cuda.empty_cache()


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit("there is no GPU: no peer is timed")
    pattern = re.compile(sys.argv[2] if len(sys.argv) > 2 else "")
    rows = []
    for produce in token_rows, sequence_rows, head_rows:
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
