"""prospect.evaluate beside formulas in NumPy's float64, and what it refuses."""

import math

import numpy as np
import pytest

import prospect


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rows(rng, n, count):
    return [rng.normal(-30, 8, n) for _ in range(count)]


PAIRED = ("policy_chosen", "policy_rejected", "reference_chosen", "reference_rejected")


def test_losses_by_name():
    names = prospect.losses()
    assert {"dpo", "kto", "ipo", "grpo", "sft"} <= set(names)
    assert names == prospect.losses("paired") + prospect.losses("unpaired") + prospect.losses("token")
    assert prospect.kind("kto") == "unpaired"
    assert prospect.parameters("dpo") == {"beta": 0.1, "label_smoothing": 0.0}
    # A row and a parameter are keywords of one call: no name may be both.
    all_rows = {*prospect._core.PAIRED_ROWS, *prospect._core.UNPAIRED_ROWS, *prospect._core.TOKEN_ROWS,
                "normaliser", "tokens_over", "z", "offsets", "entropy_coef", "score", "score_alpha", "averaging"}
    assert not {(name, p) for name in names for p in prospect.parameters(name) if p in all_rows}


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_dpo(dtype):
    rng = np.random.default_rng()
    given = [x.astype(dtype) for x in rows(rng, 37, 4)]
    pc, pr, rc, rr = [x.astype(np.float64) for x in given]
    beta, eps = rng.uniform(0.05, 0.5), 0.2
    result = prospect.evaluate("dpo", **dict(zip(PAIRED, given)), beta=beta, label_smoothing=eps)
    x = beta * ((pc - rc) - (pr - rr))
    expected = (1 - eps) * np.logaddexp(0, -x) + eps * np.logaddexp(0, x)
    slope = beta * (-(1 - eps) * sigmoid(-x) + eps * sigmoid(x)) / 37
    at = {"rtol": 1e-12, "atol": 1e-12} if dtype == np.float64 else {"rtol": 2e-6, "atol": 2e-6}
    np.testing.assert_allclose(result.loss, expected, **at)
    np.testing.assert_allclose(result.total, expected.mean(), rtol=at["rtol"])
    np.testing.assert_allclose(result.gradients["policy_chosen"], slope, **at)
    np.testing.assert_allclose(result.gradients["policy_rejected"], -slope, **at)
    np.testing.assert_allclose(result.rewards["chosen"], beta * (pc - rc), **at)
    assert result.metrics["rewards/accuracies"] == np.mean(pc - rc > pr - rr)
    assert result.sums["loss"][1] == 37
    assert result.first_nonfinite == -1
    assert result.loss.dtype == dtype


def kto_by_hand(policy, reference, good, z, beta, up, down):
    x = beta * np.where(good, policy - reference - z, z - policy + reference)
    w = np.where(good, up, down)
    s = sigmoid(-x)
    return w * s, -w * beta * s * (1 - s) * np.where(good, 1, -1) / len(policy)


def test_kto_of_mismatched_rows():
    rng = np.random.default_rng()
    policy, reference, other = rows(rng, 12, 3)
    good = rng.random(12) < 0.5
    mismatched = other + rng.normal(2, 1, 12)
    z = max(0.0, np.mean(mismatched - other))
    loss, slope = kto_by_hand(policy, reference, good, z, 0.3, 1.5, 0.5)
    arguments = dict(policy=policy, reference=reference, desirable=good, beta=0.3, desirable_weight=1.5,
                     undesirable_weight=0.5)
    for point in (dict(z=z), dict(mismatched_policy=mismatched, mismatched_reference=other)):
        result = prospect.evaluate("kto", **arguments, **point)
        np.testing.assert_allclose(result.loss, loss, rtol=1e-12)
        np.testing.assert_allclose(result.gradients["policy"], slope, rtol=1e-12, atol=1e-18)
        assert result.metrics["kl"] == pytest.approx(z, rel=1e-12)


def test_an_absent_class_is_absent():
    result = prospect.evaluate("kto_zero", policy=[-3.0, -4.0], reference=[-3.5, -3.0], desirable=[True, True])
    assert "rewards/rejected" not in result.metrics
    assert result.sums["rewards/rejected"] == (0.0, 0.0)
    assert math.isfinite(result.total)


def test_which_losses_need_a_reference_point():
    rng = np.random.default_rng()
    for name in prospect.losses("unpaired"):
        policy, reference = rows(rng, 4, 2)
        given = dict(policy=policy, reference=reference, desirable=np.array([1, 0, 1, 0], bool),
                     tokens=np.full(4, 5, np.int32))
        if name == "a2po":
            given["target"] = np.zeros(4)
        metrics = prospect.evaluate(name, **given, z=1.0).metrics
        if "kl" in metrics:
            with pytest.raises(ValueError, match="reference point"):
                prospect.evaluate(name, **given)
        else:
            assert prospect.evaluate(name, **given).metrics == metrics


def test_grpo_padded_and_packed():
    rng = np.random.default_rng()
    lengths = np.array([5, 2, 7])
    mask = np.arange(7) < lengths[:, None]
    policy = np.where(mask, rng.normal(-2, 0.5, (3, 7)), np.nan)  # what is masked is not read
    old = np.where(mask, policy + rng.normal(0, 0.3, (3, 7)), np.nan)
    advantage = rng.normal(0, 1, 3)
    eps = 0.2
    padded = prospect.evaluate("bnpo", policy=policy, old_policy=old, advantage=advantage, mask=mask, beta=0.0,
                               reference=policy)
    ratio = np.exp((policy - old)[mask])
    a = np.repeat(advantage, lengths)
    loss = -np.minimum(ratio * a, np.clip(ratio, 1 - eps, 1 + eps) * a)
    np.testing.assert_allclose(padded.total, loss.mean(), rtol=1e-10)
    np.testing.assert_allclose(padded.loss[mask], loss, rtol=1e-10)
    assert (padded.loss[~mask] == 0).all() and (padded.gradients["policy"][~mask] == 0).all()
    packed = prospect.evaluate("bnpo", policy=policy[mask], old_policy=old[mask], advantage=advantage, beta=0.0,
                               reference=policy[mask], offsets=np.concatenate([[0], np.cumsum(lengths)]))
    np.testing.assert_array_equal(packed.gradients["policy"], padded.gradients["policy"][mask])


def test_rows_of_a_matrix_are_taken_with_their_strides():
    rng = np.random.default_rng()
    table = rng.normal(-30, 8, (9, 4))
    strided = prospect.evaluate("ipo_sum", **{name: table[::-1, i] for i, name in enumerate(PAIRED)})
    dense = prospect.evaluate("ipo_sum", **{name: table[::-1, i].copy() for i, name in enumerate(PAIRED)})
    np.testing.assert_array_equal(strided.loss, dense.loss)
    table.setflags(write=False)
    again = prospect.evaluate("ipo_sum", **{name: table[::-1, i] for i, name in enumerate(PAIRED)})
    np.testing.assert_array_equal(again.loss, dense.loss)


def test_pairs_by_index():
    rng = np.random.default_rng()
    policy, reference = rows(rng, 6, 2)
    chosen, rejected = np.array([4, 0, 3]), np.array([1, 2, 5])
    indexed = prospect.evaluate("dpo", policy=policy, reference=reference, chosen=chosen, rejected=rejected)
    direct = prospect.evaluate("dpo", policy_chosen=policy[chosen], policy_rejected=policy[rejected],
                               reference_chosen=reference[chosen], reference_rejected=reference[rejected])
    np.testing.assert_array_equal(indexed.loss, direct.loss)
    np.testing.assert_array_equal(indexed.gradients["policy_chosen"], direct.gradients["policy_chosen"])


def test_normalisers():
    rng = np.random.default_rng()
    given = dict(zip(PAIRED, rows(rng, 10, 4)))
    each = prospect.evaluate("dpo", **given).loss
    assert prospect.evaluate("dpo", **given, normaliser="sum").total == pytest.approx(each.sum(), rel=1e-12)
    assert prospect.evaluate("dpo", **given, normaliser=40).total == pytest.approx(each.sum() / 40, rel=1e-12)


def test_scores_and_averaging_belong_to_a_loss():
    rng = np.random.default_rng()
    pc, pr, rc, rr = rows(rng, 8, 4)
    pc, pr = rc + (pc - pc.mean()) / 8, rr + (pr - pr.mean()) / 8
    forward = prospect.Loss.of("dpo", beta=0.4, score="forward_kl")
    result = prospect.evaluate(forward, policy_chosen=pc, policy_rejected=pr, reference_chosen=rc,
                               reference_rejected=rr)
    x = 0.4 * (-np.exp(-(pc - rc)) + np.exp(-(pr - rr)))
    np.testing.assert_allclose(result.loss, np.logaddexp(0, -x), rtol=1e-10)
    with pytest.raises(ValueError, match="beta is no argument where a Loss is given"):
        prospect.evaluate(forward, policy_chosen=pc, policy_rejected=pr, beta=0.1)


@pytest.mark.parametrize("change, message", [
    (dict(policy_chosen=np.zeros(3)), "policy_chosen|policy_rejected"),
    (dict(policy_chosen=np.zeros(4, np.int64)), "policy_chosen must be of float32"),
    (dict(policy_chosen=np.zeros((2, 2))), "policy_chosen must have 1 dimension"),
    (dict(reference_chosen=None), "reference"),
    (dict(beta=-1.0), "beta"),
    (dict(bta=1.0), "bta"),
    (dict(beta="much"), "beta must be a number"),
    (dict(desirable=np.ones(4, bool)), "desirable is a row of unpaired"),
    (dict(normaliser="median"), "normaliser"),
    (dict(z=1.0), "z is for losses of thumbs"),
    (dict(policy_chosen=np.float64(1)), "policy_chosen must have 1 dimension, and has 0"),
    (dict(policy_chosen=np.ma.array([1.0, 2, 3, 4], mask=[0, 1, 0, 0])), "policy_chosen has masked entries"),
    (dict(chosen_tokens=np.array([2**32 + 3, 1, 1, 1])), "chosen_tokens has a count that is no int32"),
    (dict(beta=np.array([0.1, 0.2])), "beta must be a number"),
    (dict(normaliser=None), "normaliser must be a number"),
])
def test_refused_by_name(change, message):
    given = {name: np.full(4, -1.0) for name in PAIRED}
    with pytest.raises(ValueError, match=message):
        prospect.evaluate("dpo", **{**given, **change})


def test_tokens_are_of_the_policy_s_shape():
    rng = np.random.default_rng()
    policy, reference = rng.normal(-2, 1, (2, 3)), rng.normal(-2, 1, (2, 3))
    given = dict(policy=policy, old_policy=policy, reference=reference, advantage=np.ones(2), beta=0.5)
    x = reference - policy
    right = -1 + 0.5 * (np.exp(x) - x - 1).mean()
    np.testing.assert_allclose(prospect.evaluate("grpo", **given).total, right, rtol=1e-12)
    for row in (reference.T, reference.T.copy(), reference.reshape(-1)):
        with pytest.raises(ValueError, match=r"reference is \[.*\], and policy is \[2, 3\]"):
            prospect.evaluate("grpo", **{**given, "reference": row})


def test_masks_of_anything():
    rng = np.random.default_rng()
    policy, kept = rng.normal(-2, 1, (2, 3)), np.array([[1, 1, 0], [1, 0, 0]], bool)
    right = -policy[kept].mean()
    for mask in (kept, kept.tolist(), kept.astype(int).tolist(), kept.astype(np.int64), kept.astype(float) * 2):
        np.testing.assert_allclose(prospect.evaluate("sft", policy=policy, mask=mask).total, right, rtol=1e-12)


def test_an_unknown_loss_is_refused_with_the_list():
    with pytest.raises(ValueError, match="no loss 'dpoo'.*dpo"):
        prospect.evaluate("dpoo", policy=[0.0])


def test_where_it_is_installed():
    from pathlib import Path

    assert (Path(prospect.include_dir()) / "prospect" / "prospect.hpp").is_file()
    assert (Path(prospect.cmake_prefix_path()) / "lib" / "cmake" / "prospect" / "prospect-config.cmake").is_file()
    assert (Path(prospect.__file__).parent / "py.typed").is_file()
    assert "def pairs" in (Path(prospect.__file__).parent / "_core.pyi").read_text()


def test_without_torch(tmp_path):
    import os
    import subprocess
    import sys
    from pathlib import Path

    where = [Path(prospect.__file__).parent.parent]
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')")
    code = "from prospect import *\nimport prospect\ntry:\n  prospect.torch\nexcept ModuleNotFoundError as e:\n  print(e)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                         env={"PYTHONPATH": os.pathsep.join([str(tmp_path), *map(str, where)])}, check=True).stdout
    assert "needs PyTorch, which is not installed" in out
