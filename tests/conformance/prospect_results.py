"""What Prospect answers to the vectors, through the C API: RESULTS.json for `check`.

    python3 prospect_results.py LIBPROSPECT.SO VECTORS RESULTS.json [fp64|fp32]
"""

import json
import re
import sys
from pathlib import Path

from library import Library

# Case names are NAME_OPTIONS; the longest beginning here decides. A value is the loss of the library and
# how its parameters follow from the case's.
BETA = {"beta": "beta"}
SMOOTH = {"beta": "beta", "label_smoothing": "label_smoothing"}
SIMPO = {"beta": "beta", "gamma": "gamma", "label_smoothing": "label_smoothing"}
PAIRED = {
    "sigmoid": ("dpo", BETA),
    "cdpo": ("dpo", SMOOTH),
    "dpo_margin_offset": ("dpo", BETA),
    "robust": ("robust_dpo", SMOOTH),
    "hinge": ("hinge", BETA),
    "ipo_mean": ("ipo", {"tau": "beta"}),
    "ipo_sum": ("ipo_sum", {"tau": "beta"}),
    "exo_pair": ("exo", SMOOTH),
    "nca_pair": ("nca", BETA),
    "bco_pair": ("bco_pair", {"beta": "beta", "delta": "delta"}),
    "sppo_hard": ("sppo_hard", BETA),
    "apo_zero": ("apo_zero", BETA),
    "apo_down": ("apo_down", BETA),
    "discopop": ("discopop", {"beta": "beta", "tau": "discopop_tau"}),
    "sigmoid_norm": ("sigmoid_norm", BETA),
    "neg_sigmoid": ("neg_sigmoid", BETA),
    "slic": ("slic", {"delta": "beta", "lambda": "lambda_coef"}),
    "cpo_sigmoid": ("cpo", SMOOTH),
    "cpo_hinge": ("cpo_hinge", BETA),
    "cpo_ipo": ("cpo_ipo", BETA),
    "simpo_trl": ("simpo", SIMPO),
    "simpo_halos": ("simpo", {"beta": "beta", "gamma": lambda p: p["beta"] * p["gamma_beta_ratio"]}),
    "alphapo": ("alphapo", {**SIMPO, "alpha": "alpha"}),
    "orpo_or_term": ("orpo", BETA),
    "bradley_terry": ("bradley_terry", {"center": "center_rewards_coefficient"}),
}
KTO = {"beta": "beta", "desirable_weight": "desirable_weight",
       "undesirable_weight": "undesirable_weight"}
UNPAIRED = {
    "kto": ("kto", KTO),
    "kto_logsigmoid": ("kto_logsigmoid", KTO),
    "kto_surprisal": ("kto_surprisal", KTO),
    "apo_zero_unpaired": ("kto_zero", KTO),
    "bco": ("bco", KTO),
}


CLIP = {"epsilon": "epsilon", "epsilon_high": "epsilon_high"}
GRPO = {**CLIP, "delta": "delta", "beta": "beta",
        "use_bias_correction_kl": "use_bias_correction_kl"}
# By what a case's name begins with; a loss that the library does not have is left out.
TOKEN = {
    "sft": ("sft", {}),
    "dft": ("dft", {}),
    "grpo": ("grpo", GRPO),
    "bnpo": ("bnpo", GRPO),
    "dapo": ("dapo", GRPO),
    "dr_grpo": ("dr_grpo", {**GRPO, "max_completion_length": "max_completion_length"}),
    "gspo": ("gspo", GRPO),
    "gspo_token": ("gspo_token", GRPO),
    "luspo": ("luspo", GRPO),
    "cispo": ("cispo", {"epsilon_high": "epsilon_high"}),
    "sapo": ("sapo", {"temperature_pos": "sapo_temperature_pos",
                      "temperature_neg": "sapo_temperature_neg"}),
    "vespo": ("vespo", {name: name for name in ("k_pos", "lambda_pos", "k_neg", "lambda_neg")}),
    "gmpo": ("gmpo", CLIP),
    "dppo": ("dppo", {**CLIP, "clip_ratio_c": "clip_ratio_c"}),
    "dro": ("dro", {"beta": "beta"}),
    "rloo": ("rloo", CLIP),
    "ppo": ("ppo", {"cliprange": "cliprange", "dual_clip": "dual_clip"}),
    "k1": ("kl_k1", {}),
    "k2": ("kl_k2", {}),
    "k3": ("kl_k3", {}),
}


def entry(table, case):
    fitting = [name for name in table if case == name or case.startswith(name + "_")]
    return table[max(fitting, key=len)] if fitting else None


def parameters(mapping, given):
    values = {}
    for name, source in mapping.items():
        if callable(source):
            values[name] = source(given)
        elif source in given:
            values[name] = given[source]
    return values


UNSUPPORTED = {"f_divergence", "loss_type", "tpo_alpha", "alpha_nll", "input_scale", "udm"}


def paired(library, vectors):
    results = {}
    column = {name: i for i, name in enumerate(vectors["pair_columns"])}
    pairs = {name: [row[i] for row in vectors["pairs"]] for name, i in column.items()}
    for case in vectors["cases"]:
        found, given = entry(PAIRED, case["name"]), case["params"]
        if not found or UNSUPPORTED & given.keys() or given.get("cpo_alpha"):
            continue
        loss, mapping = found
        if case["inputs"] == "pairs":
            reals = {"policy_chosen": pairs["pol_w"], "policy_rejected": pairs["pol_l"],
                     "reference_chosen": pairs["ref_w"], "reference_rejected": pairs["ref_l"]}
            if "offset" in given:
                reals["margin"] = [m / given["beta"] for m in pairs["margin"]]
            counts = {"chosen_tokens": pairs["len_w"], "rejected_tokens": pairs["len_l"]}
        elif case["inputs"] == "rewards":
            reals = {"policy_chosen": [r[0] for r in vectors["rewards"]],
                     "policy_rejected": [r[1] for r in vectors["rewards"]]}
            if given.get("margin"):
                reals["margin"] = [r[2] for r in vectors["rewards"]]
            counts = {}
        else:
            continue
        results[case["name"]] = library.pairs(loss, parameters(mapping, given), reals, counts)
    return results


def unpaired(library, vectors):
    results = {}
    columns = {name: [row[i] for row in vectors["examples"]]
               for i, name in enumerate(vectors["example_columns"])}
    for case in vectors["cases"]:
        found, given = entry(UNPAIRED, case["name"]), case["params"]
        if not found:
            continue
        loss, mapping = found
        reals = {"policy": columns["pol"], "reference": columns["ref"]}
        if given.get("undesirable_weight") == "udm":
            given = {name: value for name, value in given.items() if name != "undesirable_weight"}
            reals["weight"] = [1.0 if label else udm
                               for label, udm in zip(columns["label"], columns["udm"])]
        z = given["delta"] / given["beta"] if "delta" in given else given.get("z", 0.0)
        results[case["name"]] = library.completions(
            loss, parameters(mapping, given), z, reals, {"tokens": columns["len"]},
            [int(label) for label in columns["label"]])
    return results


MEANS_OF_TOKENS = {"sft", "dft", "bnpo", "dapo", "cispo", "vespo", "dppo", "dro", "ppo", "kl_k1",
                   "kl_k2", "kl_k3"}


def denominator(loss, case, batch):
    """None where it is the number of scored tokens. Empty sequences count, as they do for trainers."""
    given, rows = case["params"], len(batch["logp"])
    if given.get("normaliser") == "mean over rows of the sum":
        return rows
    if "num_items_in_batch" in given:
        return given["num_items_in_batch"] / given.get("num_processes", 1)
    return None if loss in MEANS_OF_TOKENS else rows


def tokens(library, vectors):
    results = {}
    names = library.names()
    for case in vectors["cases"]:
        given, batch = case["params"], vectors["batches"][case["batch"]]
        found = entry(TOKEN, case["name"].split("@")[0])
        if found and given.get("level") == "token" and given.get("loss_type") in TOKEN:
            found = TOKEN[given["loss_type"]]
        if not found or found[0] not in names or case["name"].startswith("gspo_kl_bnpo"):
            continue
        loss, mapping = found
        answer = library.tokens(loss, parameters(mapping, given), batch,
                                denominator(loss, case, batch))
        # A part of the loss here, of the average there.
        length = given.get("max_completion_length", 1)
        answer["value"] = [[x * length for x in row] for row in answer["value"]]
        results[case["name"]] = answer
    return results


def main():
    path, folder, output, *type_ = sys.argv[1:]
    library = Library(path, *type_)
    cases = {}
    for name, run in (("paired", paired), ("unpaired", unpaired), ("token", tokens)):
        file = Path(folder) / f"{name}.json"
        if file.exists():
            cases.update(run(library, json.loads(file.read_text())))
    Path(output).write_text(json.dumps({"implementation": "prospect", "type": (type_ or ["fp64"])[0],
                                        "cases": cases}))


if __name__ == "__main__":
    main()
