"""The calls of _core on a CUDA device beside the same calls on the host, without PyTorch. The head's product is
NumPy's, by copies, so that an emulator of the device, which has no cuBLASLt, runs everything but that
(examples/python/test says how)."""

import numpy as np
import pytest
from device_arrays import BF16, Array, NumpyProduct, emulated, missing, stored, wide

from prospect import Loss, _core
from prospect._losses import native

if missing is not None:
    pytest.skip(missing, allow_module_level=True)
STORED = [np.dtype(np.float32), np.dtype(np.float16), BF16]
STATISTICS = ("entropy", "sum_squares", "mean_logit", "target_is_argmax")
CLOSE = {"rtol": 3e-5, "atol": 3e-5}  # sums in fp32
ROUNDED = {STORED[0]: CLOSE, STORED[1]: {"rtol": 2e-3, "atol": 1e-4}, BF16: {"rtol": 1.6e-2, "atol": 1e-3}}


class Place:
    """Where a call's arrays lie, and the keywords that it takes there."""

    def __init__(self, device, **more):
        self.device, self.taken = device, []
        self.keywords = {"allocate": self.allocate, **more} if device else {}

    def allocate(self, size):
        self.taken.append(size)
        return Array(np.empty(size, np.uint8), self.device)

    def __call__(self, arrays):
        if isinstance(arrays, dict):
            return {name: self(array) for name, array in arrays.items()}
        return Array(arrays, self.device)

    def poisoned(self, like):
        return {name: Array(np.full(array.size * array.itemsize, 0xFF, np.uint8).view(array.dtype).reshape(array.shape),
                            self.device) for name, array in like.items()}


HOST = Place(False)


def read(arrays):
    return {name: wide(array.read()) for name, array in arrays.items()}


def agree(host, device, tolerance=CLOSE):
    assert host.keys() == device.keys()
    for name, expected in host.items():
        assert np.isfinite(expected).all(), f"{name} was not written"
        np.testing.assert_allclose(device[name], expected, **tolerance, err_msg=name)


def rows(size, *names, dtype=np.float64):
    return {name: np.empty(size, dtype) for name in names}


# ---- Sequences ---------------------------------------------------------------------------------


def losses_agree(call, name, given, written, of=(), **more):
    chosen = Loss.of(name, **dict(of))
    handle = native(chosen.name, tuple(chosen.values), chosen.score, chosen.score_alpha, chosen.averaging)
    seen = []
    for place in (HOST, Place(True)):
        results, metrics = place.poisoned(written), place(np.zeros(_core.METRICS_SIZE))
        call(handle, place(given), results, metrics, **{k: place(v) if isinstance(v, np.ndarray) else v
                                                        for k, v in more.items()}, **place.keywords)
        seen.append((read(results), _core.read_metrics(handle, metrics.read())))
    (host, (sums, first, total)), (device, (device_sums, device_first, device_total)) = seen
    exact = {"rtol": 1e-5 if any(array.dtype == np.float32 for array in written.values()) else 1e-12, "atol": 1e-12}
    agree(host, device, exact)
    assert device_first == first == -1 and sums.keys() == device_sums.keys() and "loss" in sums
    for metric in sums:
        np.testing.assert_allclose(device_sums[metric], sums[metric], **exact, err_msg=metric)
    np.testing.assert_allclose(device_total, total, **exact)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_pairs(dtype):
    rng = np.random.default_rng(11)
    names = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")
    given = {name: rng.normal(-30, 8, 131).astype(dtype) for name in names}
    given["weight"] = rng.uniform(0.5, 2, 131).astype(dtype)
    written = rows(131, "loss", "d_policy_chosen", "d_policy_rejected", "reward_chosen", "reward_rejected", dtype=dtype)
    losses_agree(_core.pairs, "dpo", given, written, {"beta": 0.2, "label_smoothing": 0.1})
    tokens = {f"{side}_tokens": rng.integers(1, 40, 131).astype(np.int32) for side in ("chosen", "rejected")}
    losses_agree(_core.pairs, "ipo", {**given, **tokens}, written, normaliser="sum")


def test_completions():
    rng = np.random.default_rng(12)
    given = {name: rng.normal(-30, 4, 37) for name in ("policy", "reference")}
    given["desirable"] = rng.random(37) < 0.4
    written = rows(37, "loss", "d_policy", "reward")
    losses_agree(_core.completions, "kto", given, written, {"beta": 0.3}, reference_point="given", z=0.4)
    losses_agree(_core.completions, "kto", {**given, "mismatched_policy": rng.normal(-29, 4, 37),
                                            "mismatched_reference": rng.normal(-30, 4, 37)},
                 written, reference_point="batch_mean", normaliser="over", count=50.0)


def test_token_losses():
    rng = np.random.default_rng(13)
    given = {name: rng.normal(-2, 0.3, 35) for name in ("policy", "old_policy", "reference")}
    given.update(advantage=rng.normal(0, 1, 5), entropy=rng.uniform(0, 3, 35), mask=rng.random(35) < 0.7)
    given["policy"][~given["mask"]] = np.nan  # whatever lies there
    written = rows(35, "loss", "d_policy", "d_entropy")
    losses_agree(_core.token_losses, "grpo", given, written, sequences=5, length=7, entropy_coef=0.1)
    offsets = np.array([0, 3, 3, 20, 29, 35], np.int32)
    losses_agree(_core.token_losses, "dapo", given, written, offsets=offsets, entropy_coef=0.1)


# ---- Tokens ------------------------------------------------------------------------------------


def scored(rng, size, vocabulary):
    """Targets of which the third is not scored, and a mask that leaves out the fifth."""
    targets, mask = rng.integers(0, vocabulary, size), np.ones(size, np.bool_)
    targets[2], mask[4] = -100, False
    return targets, mask


def token_results(size):
    return {**rows(size, "log_prob", *STATISTICS[:3], dtype=np.float32), **rows(size, "lse"),
            **rows(size, STATISTICS[3], dtype=np.bool_)}


def coefficients_of(rng, results, three):
    """What a backward pass reads, one a token or three, from what a forward pass wrote."""
    d = rng.normal(0, 1, results["log_prob"].size).astype(np.float32)
    known = {"log_prob": results["log_prob"].astype(np.float32), "lse": results["lse"]}
    if not three:
        return {**known, "d_token": d}
    return {**known, "softmax": -d, "onehot": -d, "entropy": results["entropy"].astype(np.float32),
            "d_entropy": rng.normal(0, 1, d.size).astype(np.float32)}


@pytest.mark.parametrize("dtype", STORED, ids=["f32", "f16", "bf16"])
def test_log_probs_and_back(dtype):
    rng = np.random.default_rng(14)
    logits = rng.normal(0, 3, (7, 131))
    targets, mask = scored(rng, 7, 131)
    logits[[2, 4]] = np.nan
    given = {"logits": stored(logits, dtype), "targets": targets, "mask": mask,
             "inverse_temperatures": rng.uniform(0.5, 2, 7).astype(np.float32)}
    answers = []
    for place in (HOST, Place(True)):
        results = place.poisoned(token_results(7))
        _core.log_probs(**place(given), results=results, soft_cap=9.0, **place.keywords)
        answers.append(read(results))
    agree(*answers)
    for three in (False, True):
        coefficients, gradients = coefficients_of(rng, answers[0], three), []
        for place in (HOST, Place(True)):
            arrays, written = place(given), place.poisoned({"gradient": given["logits"]})
            by = place(coefficients)
            _core.logits_gradient(**arrays, gradient=written["gradient"], coefficients=by, soft_cap=9.0,
                                  **place.keywords)
            _core.logits_gradient(**arrays, gradient=arrays["logits"], coefficients=by, soft_cap=9.0, **place.keywords)
            gradients.append(read({**written, "in place": arrays["logits"]}))
        agree(*gradients, ROUNDED[dtype])
        assert (gradients[1]["in place"][[2, 4]] == 0).all()


# ---- Head --------------------------------------------------------------------------------------


@pytest.fixture(params=["numpy", "cublaslt"])
def device(request):
    """A device with a product for the head."""
    if request.param == "numpy":
        product = NumpyProduct()
        yield Place(True, gemm=product.capsule)
        assert product.calls > 0
        return
    if emulated():
        pytest.skip("an emulator has no cuBLASLt")
    cublaslt = pytest.importorskip("prospect._cublaslt", reason="the package was built without cuBLASLt")
    memory = Array(np.empty(32 << 20, np.uint8), True)
    yield Place(True, gemm=cublaslt.gemm(memory.address, 32 << 20, False))


def head_case(rng, dtype, adapted, size=7, width=12, vocabulary=131):
    targets, mask = scored(rng, size, vocabulary)
    hidden = rng.normal(0, 1, (size, width))
    hidden[[2, 4]] = np.nan
    given = {"hidden": stored(hidden, dtype), "weight": stored(rng.normal(0, 0.5, (vocabulary, width)), dtype),
             "targets": targets, "mask": mask}
    if adapted:
        given.update(bias=stored(rng.normal(0, 1, vocabulary), dtype),
                     lora_a=stored(rng.normal(0, 0.5, (3, width)), dtype),
                     lora_b=stored(rng.normal(0, 0.5, (vocabulary, 3)), dtype))
    return given


def options(adapted):
    return {"lora_scale": 0.7, "temperature": 0.8, "soft_cap": 6.0} if adapted else {}


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("dtype", STORED, ids=["f32", "f16", "bf16"])
def test_head_and_back(device, dtype, adapted):
    rng = np.random.default_rng(15)
    given, answers = head_case(rng, dtype, adapted), []
    for place in (HOST, device):
        results = place.poisoned(token_results(7))
        _core.head_log_probs(**place(given), results=results, workspace=_core.HeadWorkspace(1 << 20),
                             **options(adapted), **place.keywords)
        answers.append(read(results))
    agree(*answers, ROUNDED[dtype] if adapted else CLOSE)  # an adapter's hidden states are rounded on the way
    for three in (False, True):
        coefficients, gradients = coefficients_of(rng, answers[0], three), []
        if not three:
            coefficients["d_token"][[2, 4]] = np.inf
        like = {name: given[name] if name == "hidden" else np.empty(given[name].shape, np.float32)
                for name in ("hidden", "weight", "bias", "lora_a", "lora_b") if name in given}
        for place in (HOST, device):
            written = place.poisoned(like)
            _core.head_gradient(**place(given), coefficients=place(coefficients), gradients=written,
                                workspace=_core.HeadWorkspace(1 << 20), **options(adapted), **place.keywords)
            gradients.append(read(written))
        agree(*gradients, {"rtol": ROUNDED[dtype]["rtol"], "atol": 3 * ROUNDED[dtype]["rtol"]})
        assert (gradients[1]["hidden"][[2, 4]] == 0).all()


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("dtype", STORED, ids=["f32", "f16", "bf16"])
def test_a_frozen_head(device, dtype, adapted):
    rng = np.random.default_rng(16)
    given, answers = head_case(rng, dtype, adapted), []
    factors = rng.normal(0, 1, 7).astype(np.float32)
    for place in (HOST, device):
        results, d_hidden = place.poisoned(token_results(7)), place.poisoned({"": given["hidden"]})[""]
        _core.head_log_probs(**place(given), results=results, workspace=_core.HeadWorkspace(1 << 20),
                             **options(adapted), d_hidden=d_hidden, **place.keywords)
        once = d_hidden.read()
        _core.scale_rows(d_hidden, place(factors), **{k: v for k, v in place.keywords.items() if k != "gemm"})
        answers.append({**read(results), "d_hidden": wide(once), "scaled": wide(d_hidden.read())})
    agree(*answers, {"rtol": ROUNDED[dtype]["rtol"], "atol": 3 * ROUNDED[dtype]["rtol"]})
    assert (answers[1]["d_hidden"][[2, 4]] == 0).all()


def test_memory_of_the_head(device):
    rng = np.random.default_rng(17)
    given = head_case(rng, STORED[0], False, size=300)

    def call(workspace):
        device.taken.clear()
        results = device.poisoned({"log_prob": np.empty(300, np.float32)})
        _core.head_log_probs(**device(given), results=results, workspace=_core.HeadWorkspace(workspace),
                             **device.keywords)
        return wide(results["log_prob"].read())

    most = call(64 << 20)
    (of_use,) = device.taken
    assert of_use < 64 << 20
    with pytest.raises(ValueError, match=r"has 1000 bytes, \d+ are needed") as refused:
        call(1000)
    least = int(str(refused.value).split(",")[1].split()[0])
    assert least < of_use
    np.testing.assert_allclose(call(least), most, rtol=1e-6, atol=1e-6)
    assert device.taken == [least]
    for nothing in (0, -1):
        with pytest.raises(ValueError, match=f"has 0 bytes, {least} are needed"):
            call(nothing)


def test_no_rows_of_the_head():
    device, given = Place(True, gemm=NumpyProduct().capsule), {"hidden": np.zeros((0, 5), np.float32),
                                                               "weight": np.ones((7, 5), np.float32),
                                                               "targets": np.zeros(0, np.int64)}
    coefficients = {**rows(0, "log_prob", "d_token", dtype=np.float32), **rows(0, "lse")}
    written = device.poisoned({"hidden": given["hidden"], "weight": given["weight"]})
    _core.head_gradient(**device(given), coefficients=device(coefficients), gradients=written,
                        workspace=_core.HeadWorkspace(1 << 20), **device.keywords)
    assert (written["weight"].read() == 0).all()


def test_what_the_head_refuses_on_a_device():
    product = NumpyProduct()
    device = Place(True, gemm=product.capsule)
    given = head_case(np.random.default_rng(18), STORED[0], False)

    def refused(message, arrays=given, error=ValueError, **other):
        placed = {**device(arrays), **{name: other.pop(name) for name in list(other) if name in arrays}}
        with pytest.raises(error, match=message):
            _core.head_log_probs(**placed, results=device.poisoned({"log_prob": np.empty(7, np.float32)}),
                                 workspace=_core.HeadWorkspace(1 << 20), **{**device.keywords, **other})

    refused("hidden of PROSPECT_F64 are for the CPU",
            {name: wide(array) if name in ("hidden", "weight") else array for name, array in given.items()})
    refused("built without cuBLASLt", gemm=None)
    refused("PyCapsule_GetPointer", gemm=5)
    refused("allocate must be given", allocate=None)
    refused("weight lies on another device than hidden", weight=Array(given["weight"], False))
    refused("keep_gradients is for the host", keep_gradients=True)
    refused("head.weight.dtype must be", {**given, "weight": stored(given["weight"], BF16)})
    with pytest.raises(ValueError, match="follows is for the host"):
        _core.head_gradient(**device(given), coefficients={}, gradients={}, workspace=_core.HeadWorkspace(1 << 20),
                            follows=True, **device.keywords)
    assert product.calls == 0
