"""TRL's KTOTrainer and DPOTrainer with Prospect's losses and head: everything else, the data, the mismatched
rows, the reference model, checkpoints, logging, is TRL's.

    trainer = ProspectKTOTrainer(model=..., args=KTOConfig(...), train_dataset=..., processing_class=...)

Two things are exchanged. `model(..., fused_lm_head=True)`, TRL's way from hidden states to log-probabilities,
calls `prospect.torch.head_log_probs`, which leaves masked tokens out of every product. And `_compute_loss`
hands sums of log-probabilities to one call of `prospect.torch.evaluate`, whose metrics have the names that TRL
logs. KTO's z comes from the mismatched rows of TRL's own data set, which pairs prompt i with completion i - 1
(prospect::mismatched_row would take i + 1): a mean over all rows of a batch, it does not care which.

Sums of sequences are made in float64. Left to TRL, and refused by name: PEFT, vision, mixture-of-experts and
sharded models, several processes, ld_alpha, and losses of DPOTrainer without a name below.
"""

from __future__ import annotations

import functools
import types

import torch
from accelerate.utils import is_peft_model
from trl import DPOTrainer, KTOTrainer
from trl.trainer.utils import FusedCausalLMOutput

import prospect.torch

# TRL's loss_type to ours; both read beta, and those that smooth label_smoothing.
DPO_LOSSES = {"sigmoid": "dpo", "robust": "robust_dpo", "hinge": "hinge", "exo_pair": "exo", "nca_pair": "nca",
              "bco_pair": "bco_pair", "sppo_hard": "sppo_hard", "apo_zero": "apo_zero", "apo_down": "apo_down",
              "discopop": "discopop"}
SMOOTHED = ("robust", "exo_pair")
KTO_LOSSES = {"kto": "kto", "apo_zero_unpaired": "kto_zero"}


def give_head(model, statistics=()) -> None:
    """Makes `model(..., labels=labels, fused_lm_head=True)` Prospect's. `statistics` as in `head_log_probs`."""
    original = model.forward
    config = model.config.get_text_config()
    soft_cap = getattr(config, "final_logit_softcapping", None) or 0.0
    for scaled in ("logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling"):
        if getattr(config, scaled, None) not in (None, 1.0):
            raise ValueError(f"prospect: the model scales its logits ({scaled}), which this example does not")

    @functools.wraps(type(model).forward)
    def forward(self, *args, fused_lm_head=False, labels=None, **kwargs):
        if not fused_lm_head:
            return original(*args, labels=labels, **kwargs) if labels is not None else original(*args, **kwargs)
        kwargs["use_cache"] = False
        hidden = self.base_model(*args, **kwargs).last_hidden_state
        head = self.get_output_embeddings()
        results = prospect.torch.head_log_probs(hidden, head.weight, prospect.torch.shift(labels), bias=head.bias,
                                                soft_cap=soft_cap, statistics=("sum_squares", *statistics))
        # TRL leaves out the last position, which predicts nothing, and has 0 where a label is -100.
        short = {name: row[:, :-1] for name, row in results._asdict().items() if row is not None}
        mask = (labels != -100)[:, 1:]
        return FusedCausalLMOutput(
            log_probs=short["log_prob"], entropy=short.get("entropy"), mean_logits=short.get("mean_logit"),
            is_top1=short.get("target_is_argmax"), log_sum_sq_probs=short["sum_squares"].masked_fill(~mask, 1).log(),
            label_mask=mask)

    # TRL has put its own head there before.
    model.forward = types.MethodType(forward, model)


def _sums(outputs) -> torch.Tensor:
    """Log-probabilities of whole completions: thousands of terms, which float32 would round."""
    return outputs.log_probs.sum(-1, dtype=torch.float64)


class _Measured:
    """What both trainers do around the loss: policy, reference, metrics."""

    def _give_heads(self, statistics) -> None:
        left_to_trl = {
            "several processes": self.accelerator.num_processes > 1,
            "FSDP": getattr(self, "is_fsdp_enabled", False),
            "DeepSpeed": getattr(self, "is_deepspeed_enabled", False),
            "PEFT": is_peft_model(self.model) or (self.ref_model is not None and is_peft_model(self.ref_model)),
            "vision": getattr(self, "_is_vision_dataset", False),
            "aux_loss_enabled (router_aux_loss_coef, a mixture of experts)": getattr(self, "aux_loss_enabled", False),
        }
        for name, asked in left_to_trl.items():
            if asked:
                raise ValueError(f"prospect: {name} is not for this example: take TRL's own trainer")
        # The model's own forward is below TRL's, which was set on the instance.
        for model, asked in ((self.model, statistics), (self.ref_model, ())):
            if model is not None:
                model.__dict__.pop("forward", None)
                give_head(model, asked)

    def _outputs(self, model, inputs, drop):
        given = {k: v for k, v in inputs.items() if k not in drop}
        labels = inputs["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
        return model(**given, labels=labels, fused_lm_head=True)

    def _log_means(self, mode, evaluated, outputs, inputs) -> None:
        log = self._metrics[mode]
        means = {name: mean for name, mean in evaluated.metrics().items() if name not in ("loss", "nonfinite")}
        if "rewards/chosen" in means and "rewards/rejected" in means:  # of thumbs: a difference of classes
            means.setdefault("rewards/margins", means["rewards/chosen"] - means["rewards/rejected"])
        for name, mean in means.items():
            log[name].append(mean)
        mask = inputs["completion_mask"][:, 1:].bool()
        log["entropy"].append(outputs.entropy.detach()[mask].mean().item())
        if mode == "train":
            self._total_train_tokens += inputs["attention_mask"].sum().item()
        log["num_tokens"] = [self._total_train_tokens]


class ProspectKTOTrainer(_Measured, KTOTrainer):
    """KTOTrainer; loss_type "kto" or "apo_zero_unpaired"."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if self.loss_type not in KTO_LOSSES:
            raise ValueError(f"prospect: loss_type {self.loss_type!r} has no name here: {', '.join(KTO_LOSSES)}")
        self._give_heads(("entropy", "mean_logit"))

    def _compute_loss(self, model, inputs, return_outputs):
        drop = {"completion_mask", "label", "ref_logps", "ref_KL_logps", "KL_input_ids", "KL_attention_mask",
                "KL_completion_mask"}
        outputs = self._outputs(model, inputs, drop)
        sums = _sums(outputs)
        mismatched = self._compute_kl_logps(model, inputs)
        if self.precompute_ref_logps:
            reference, mismatched_reference = inputs["ref_logps"], inputs.get("ref_KL_logps")
        else:
            with torch.no_grad():
                reference = _sums(self._outputs(self.ref_model, inputs, drop))
                mismatched_reference = self._compute_kl_logps(self.ref_model, inputs)
        point = {} if mismatched is None else dict(mismatched_policy=mismatched,
                                                   mismatched_reference=mismatched_reference)
        evaluated = prospect.torch.evaluate(
            KTO_LOSSES[self.loss_type], policy=sums, reference=reference, desirable=inputs["label"].bool(),
            beta=self.beta, desirable_weight=self.desirable_weight, undesirable_weight=self.undesirable_weight, **point)
        self._log_means("train" if self.model.training else "eval", evaluated, outputs, inputs)
        return (evaluated.total, outputs) if return_outputs else evaluated.total


class ProspectDPOTrainer(_Measured, DPOTrainer):
    """DPOTrainer; any one loss_type of DPO_LOSSES, any f_divergence_type where the loss takes it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        if len(self.loss_types) != 1 or self.loss_types[0] not in DPO_LOSSES or self.ld_alpha is not None:
            raise ValueError(f"prospect: one loss_type of {', '.join(DPO_LOSSES)}, without ld_alpha, is what this takes")
        self._give_heads(("entropy", "mean_logit", "target_is_argmax"))
        kind = self.loss_types[0]
        parameters = dict(beta=self.beta)
        if kind in SMOOTHED:
            parameters["label_smoothing"] = self.label_smoothing
        if kind == "discopop":
            parameters["tau"] = self.args.discopop_tau
        score = {} if self.f_divergence_type == "reverse_kl" else dict(
            score=self.f_divergence_type)
        if self.f_divergence_type == "alpha_divergence":
            score["score_alpha"] = self.f_alpha_divergence_coef
        self._prospect_loss = prospect.Loss.of(DPO_LOSSES[kind], **parameters, **score)

    def _compute_loss(self, model, inputs, return_outputs):
        drop = {"completion_mask", "ref_chosen_logps", "ref_rejected_logps"}
        outputs = self._outputs(model, inputs, drop)
        chosen, rejected = _sums(outputs).chunk(2)
        if self.precompute_ref_logps:
            references = inputs["ref_chosen_logps"], inputs["ref_rejected_logps"]
        else:
            with torch.no_grad():
                references = _sums(self._outputs(self.ref_model, inputs, drop)).chunk(2)
        weight = None
        if self.use_weighting:
            mask = inputs["completion_mask"][:, 1:]
            aligned = (outputs.log_probs.detach() - outputs.log_sum_sq_probs) * mask
            weight = (aligned.sum(-1) / mask.sum(-1).clamp(min=1)).exp()
            weight = weight[: len(chosen)] * weight[len(chosen) :]
        evaluated = prospect.torch.evaluate(
            self._prospect_loss, policy_chosen=chosen, policy_rejected=rejected, reference_chosen=references[0],
            reference_rejected=references[1], weight=weight)
        mode = "train" if self.model.training else "eval"
        self._log_means(mode, evaluated, outputs, inputs)
        correct, mask = (x[: len(chosen)] for x in (outputs.is_top1, inputs["completion_mask"][:, 1:].bool()))
        self._metrics[mode]["mean_token_accuracy"].append(correct[mask].float().mean().item())
        total = self.loss_weights[0] * evaluated.total
        return (total, outputs) if return_outputs else total
