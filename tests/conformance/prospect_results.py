"""What Prospect answers to the vectors, through the C API: RESULTS.json for `check`.

    python3 prospect_results.py LIBPROSPECT.SO VECTORS RESULTS.json [fp64|fp32]
"""

import json
import re
import sys
from pathlib import Path

from library import MEAN, Library

# Case names are NAME_OPTIONS; the longest beginning here decides. A value is the loss of the library and
# how its parameters follow from the case's.
BETA = {"beta": "beta"}
SMOOTH = {"beta": "beta", "label_smoothing": "label_smoothing"}
CPO = {"cpo_alpha": "cpo_alpha"}
SIMPO = {"beta": "beta", "gamma": "gamma", "label_smoothing": "label_smoothing", **CPO}
TPO = {**SMOOTH, "tpo_alpha": "tpo_alpha"}
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
    "cpo_sigmoid": ("cpo", {**SMOOTH, **CPO}),
    "cpo_hinge": ("cpo_hinge", {**BETA, **CPO}),
    "cpo_ipo": ("cpo_ipo", {**BETA, **CPO}),
    "simpo_trl": ("simpo", SIMPO),
    "simpo_halos": ("simpo", {"beta": "beta", "gamma": lambda p: p["beta"] * p["gamma_beta_ratio"]}),
    "alphapo": ("alphapo", {**SIMPO, "alpha": "alpha"}),
    "orpo_or_term": ("orpo", {**BETA, "sft_weight": lambda p: 0.0}),
    "orpo": ("orpo", BETA),
    "orpo_halos": ("orpo", {"beta": "OR_scale"}),
    "tpo_sigmoid": ("tpo", TPO),
    "tpo_hinge": ("tpo_hinge", {**BETA, "tpo_alpha": "tpo_alpha"}),
    "tpo_ipo": ("tpo_ipo", {**BETA, "tpo_alpha": "tpo_alpha"}),
    "tpo_l": ("tpo_l", {**TPO, "gamma": "gamma"}),
    "rpo": ("rpo", {**BETA, "rpo_alpha": lambda p: p["loss_weights"][1]}),
    "mpo": ("mpo", {**BETA, **{name: lambda p, i=i: p["loss_weights"][i] for i, name in enumerate(
        ("sigmoid_weight", "bco_pair_weight", "sft_weight"))}}),
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


UNSUPPORTED = {"f_divergence", "alpha_nll", "input_scale", "udm"}
# What a third completion of a pair is, by what the case asks the gradient of.
THIRD = {"d_prompt_w": ("prompt_w", "prompt_len"), "d_gold": ("gold", "gold_len")}


def paired(library, vectors):
    results = {}
    column = {name: i for i, name in enumerate(vectors["pair_columns"])}
    pairs = {name: [row[i] for row in vectors["pairs"]] for name, i in column.items()}
    for case in vectors["cases"]:
        found, given = entry(PAIRED, case["name"]), case["params"]
        if not found or UNSUPPORTED & given.keys():
            continue
        loss, mapping = found
        if case["inputs"] == "pairs":
            reals = {"policy_chosen": pairs["pol_w"], "policy_rejected": pairs["pol_l"],
                     "reference_chosen": pairs["ref_w"], "reference_rejected": pairs["ref_l"]}
            if "offset" in given:
                reals["margin"] = [m / given["beta"] for m in pairs["margin"]]
            counts = {"chosen_tokens": pairs["len_w"], "rejected_tokens": pairs["len_l"]}
            for output, (third, length) in THIRD.items():
                if output in case["outputs"]:
                    reals["policy_third"], counts["third_tokens"] = pairs[third], pairs[length]
        elif case["inputs"] == "rewards":
            reals = {"policy_chosen": [r[0] for r in vectors["rewards"]],
                     "policy_rejected": [r[1] for r in vectors["rewards"]]}
            if given.get("margin"):
                reals["margin"] = [r[2] for r in vectors["rewards"]]
            counts = {}
        else:
            continue
        run = library.pairs_apart if counts else library.pairs
        results[case["name"]] = run(loss, parameters(mapping, given), reals, counts)
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


def mixture(library, inputs, given):
    """Its next-token term is one mean over all tokens of the batch."""
    loss, mapping = PAIRED["mpo"]
    rows = library.pairs(
        loss, parameters(mapping, given),
        {"policy_chosen": inputs["pol_w"], "policy_rejected": inputs["pol_l"],
         "reference_chosen": inputs["ref_w"], "reference_rejected": inputs["ref_l"]},
        {"chosen_tokens": inputs["len_w"]}, MEAN)
    losses, d_pol_w, d_pol_l = map(list, zip(*rows))
    return {"loss": sum(losses) / len(losses), "d_pol_w": d_pol_w, "d_pol_l": d_pol_l}


def batch(library, vectors):
    families = {f.__name__: f for f in (mixture,)}
    return {case["name"]: families[case["family"]](library, case["inputs"], case["params"])
            for case in vectors["cases"] if case["family"] in families}


def main():
    path, folder, output, *type_ = sys.argv[1:]
    library = Library(path, *type_)
    cases = {}
    for name, run in (("paired", paired), ("unpaired", unpaired), ("batch", batch)):
        file = Path(folder) / f"{name}.json"
        if file.exists():
            cases.update(run(library, json.loads(file.read_text())))
    Path(output).write_text(json.dumps({"implementation": "prospect", "type": (type_ or ["fp64"])[0],
                                        "cases": cases}))


if __name__ == "__main__":
    main()
