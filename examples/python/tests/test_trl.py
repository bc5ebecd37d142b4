"""TRL's trainers beside the same trainers with Prospect's loss and head: on TRL's own batches, with z from TRL's
own mismatched rows. TRL computes its head in fp32 whatever the model is in, so that for fp64 it is given one
written out in PyTorch; as it is, it is compared too."""

import os
import sys
import time
import types
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
trl = pytest.importorskip("trl", reason="TRL is not installed")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "trl_example"))
import setting  # noqa: E402
import trainers  # noqa: E402
from trl.trainer.utils import FusedCausalLMOutput  # noqa: E402

WORDS = 83


def written_out(model) -> None:
    """What TRL's fused head gives, without its fp32."""
    original = model.forward.__func__.__wrapped__.__get__(model)

    def forward(self, *args, fused_lm_head=False, labels=None, **kwargs):
        logits = original(*args, **kwargs).logits[:, :-1]
        labels = labels[:, 1:]
        every = logits.log_softmax(-1)
        mask = labels != -100
        log_probs = every.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        return FusedCausalLMOutput(
            log_probs=log_probs.masked_fill(~mask, 0), entropy=(-(every.exp() * every).sum(-1)).masked_fill(~mask, 0),
            log_sum_sq_probs=(2 * every).logsumexp(-1).masked_fill(~mask, 0),
            mean_logits=logits.mean(-1).masked_fill(~mask, 0), label_mask=mask,
            is_top1=(logits.argmax(-1) == labels) & mask)

    model.forward = types.MethodType(forward, model)


def both(kind, dtype, exact, exchanged=False, seed=None, **more):
    """TRL's trainer and ours on one batch: loss, gradients, metrics, batch and seed of each."""
    seed = int(os.environ.get("PROSPECT_SEED", time.time_ns() % 1000)) if seed is None else seed
    print("PROSPECT_SEED", seed)
    policy, reference = setting.language_models(WORDS, 32, 2, dtype, seed)
    if exchanged:
        policy, reference = reference, policy
    data = setting.texts(kind, 6, WORDS, 5, 9, seed)
    classes = {"kto": (trl.KTOTrainer, trainers.ProspectKTOTrainer), "dpo": (trl.DPOTrainer, trainers.ProspectDPOTrainer)}
    told = []
    for of in classes[kind]:
        made = setting.trainer(of, kind, policy, reference, WORDS, data, 6, **more)
        if exact and of.__module__.startswith("trl."):
            written_out(made.model)
            written_out(made.ref_model)
        made.model.train()
        batch = next(iter(made.get_train_dataloader())) if not told else told[0][3]
        loss = made._compute_loss(made.model, batch, False)
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in made.model.parameters()])
        told.append((loss.detach(), gradient, dict(made._metrics["train"]), batch, seed))
    return told


def compare(told, error):
    (loss, gradient, metrics, *_), (our_loss, our_gradient, our_metrics, *_) = told
    assert our_loss.item() == pytest.approx(loss.item(), rel=error)
    assert gradient.norm() > 0
    assert (our_gradient - gradient).norm() <= error * gradient.norm()
    assert (our_gradient - gradient).abs().max() <= error * gradient.abs().max()
    for name in ("rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen",
                 "logps/rejected", "kl", "entropy", "num_tokens", "mean_token_accuracy"):
        if name not in metrics:
            continue
        if name == "kl" and name not in our_metrics:  # TRL logs 0 where the loss reads none
            assert metrics[name] == [0.0]
        else:
            assert our_metrics[name] == pytest.approx(metrics[name], rel=error, abs=error), name


@pytest.mark.parametrize("loss_type", list(trainers.KTO_LOSSES))
def test_kto_in_fp64(loss_type):
    compare(both("kto", torch.float64, True, loss_type=loss_type, desirable_weight=1.3, beta=0.3), 1e-6)


def test_a_z_that_is_not_clamped(monkeypatch):
    monkeypatch.setenv("PROSPECT_SEED", os.environ.get("PROSPECT_SEED", str(time.time_ns() % 1000)))
    told = both("kto", torch.float64, True, beta=0.3)
    if told[1][2]["kl_unclamped"][0] < 0:  # then the mean log-ratio of the two exchanged is above 0
        told = both("kto", torch.float64, True, exchanged=True, beta=0.3)
    assert told[0][2]["kl"][0] > 0
    compare(told, 1e-6)


@pytest.mark.parametrize("loss_type", list(trainers.DPO_LOSSES))
def test_dpo_in_fp64(loss_type):
    smoothing = {"label_smoothing": 0.1} if loss_type in trainers.SMOOTHED else {}
    # 1 - eps and its logarithm are float32 in TRL's exo_pair.
    error = 2e-6 if loss_type == "exo_pair" else 1e-6
    compare(both("dpo", torch.float64, True, loss_type=[loss_type], beta=0.3, **smoothing), error)


def test_wpo_weights():
    compare(both("dpo", torch.float64, True, loss_type=["sigmoid"], use_weighting=True), 1e-6)


def test_the_weight_of_a_loss():
    told = both("dpo", torch.float64, True, loss_type=["sigmoid"], loss_weights=[0.25])
    compare(told, 1e-6)
    whole = both("dpo", torch.float64, True, loss_type=["sigmoid"], seed=told[0][4])
    assert told[1][0].item() == pytest.approx(0.25 * whole[1][0].item(), rel=1e-12)


@pytest.mark.parametrize("kind", ["kto", "dpo"])
def test_beside_trl_as_it_is_in_fp32(kind):
    compare(both(kind, torch.float32, False), 2e-5)


@pytest.mark.parametrize("kind, of", [("kto", trainers.ProspectKTOTrainer), ("dpo", trainers.ProspectDPOTrainer)])
def test_what_is_left_to_trl_is_refused(kind, of, monkeypatch):
    policy, reference = setting.language_models(WORDS, 32, 1)
    data = setting.texts(kind, 4, WORDS, 5, 9)
    with monkeypatch.context() as patched:
        patched.setattr(trainers, "is_peft_model", lambda model: True)
        with pytest.raises(ValueError, match="prospect: PEFT is not for this example"):
            setting.trainer(of, kind, policy, reference, WORDS, data, 4)
    policy.config.output_router_logits = False  # what a mixture of experts has: TRL then adds its own loss
    with pytest.raises(ValueError, match="prospect: aux_loss_enabled"):
        setting.trainer(of, kind, policy, reference, WORDS, data, 4, router_aux_loss_coef=0.01)


def test_a_few_steps_of_training():
    policy, reference = setting.language_models(WORDS, 32, 2)
    data = setting.texts("kto", 12, WORDS, 5, 9)
    made = setting.trainer(trainers.ProspectKTOTrainer, "kto", policy, reference, WORDS, data, 4, max_steps=3,
                           logging_steps=1, save_strategy="no", learning_rate=1e-3)
    made.train()
    logged = [row for row in made.state.log_history if "rewards/chosen" in row]
    assert len(logged) == 3 and all("kl" in row and "loss" in row for row in logged)
