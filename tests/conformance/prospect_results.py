"""What Prospect answers to the vectors, through the C API: RESULTS.json for `check`.

    python3 prospect_results.py LIBPROSPECT.SO VECTORS RESULTS.json [fp64|fp32]
"""

import json
import math
import sys
from ctypes import c_double
from pathlib import Path

from library import BATCH_MEAN, CROSS_CLASS, MEAN, OVER_TOKENS, Library, Sequences

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
TOKEN_PAIRS = {
    "ld_sigmoid": ("dpo", BETA),
    "ld_sigmoid_norm": ("sigmoid_norm", BETA),
    "ld_ipo": ("ipo", {"tau": "beta"}),
    "humanline_dpo": ("dpo", BETA),
    "humanline_cdpo": ("dpo", SMOOTH),
    "ipo_mean_nonzero": ("ipo", {"tau": "tau"}),
    "wpo_sigmoid": ("dpo", BETA),
    "wpo_ipo": ("ipo", {"tau": "beta"}),
}
KTO = {"beta": "beta", "desirable_weight": "desirable_weight",
       "undesirable_weight": "undesirable_weight"}
UNPAIRED = {
    "kto": ("kto", KTO),
    "kto_logsigmoid": ("kto_logsigmoid", KTO),
    "kto_surprisal": ("kto_surprisal", KTO),
    "apo_zero_unpaired": ("kto_zero", KTO),
    "bco": ("bco", KTO),
    "a2po": ("a2po", {"beta2": "beta2"}),
}


TOKEN_EXAMPLES = {"humanline_kto": ("kto", KTO)}
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


def bounds(given):
    return {name: given[name] for name in ("log_epsilon_P", "log_epsilon_R") if name in given}


def token_pairs(library, loss, mapping, given, pairs):
    """Chosen and rejected sequences are two halves of one batch."""
    halves = lambda row: [pair[f"{row}_{side}"] for side in "wl" for pair in pairs]
    policy, reference, n = halves("pol"), halves("ref"), len(pairs)
    batch = Sequences(library, [len(tokens) for tokens in policy])
    more = {}
    if "ld_alpha" in given:
        ld = {"public_tokens": batch.public_tokens(), "ld_alpha": given["ld_alpha"]}
        by = batch.reducer(policy, **ld)
        references, _ = batch.sums(batch.reducer(reference, **ld))
    elif given.get("use_weighting"):
        by = batch.reducer(policy)
        references, _ = batch.sums(batch.reducer(reference))
        squares = [[math.exp(x) for x in tokens] for tokens in halves("logp2")]
        more["weight"] = batch.wpo_weights(policy, squares)
    else:
        by = batch.reducer(policy, reference, count_nonzero="tau" in given, **bounds(given))
        references = [0.0] * (2 * n)
    sums, counts = batch.sums(by)
    rows = library.pairs(loss, parameters(mapping, given),
                         {"policy_chosen": sums[:n], "policy_rejected": sums[n:],
                          "reference_chosen": references[:n], "reference_rejected": references[n:],
                          **more},
                         {"chosen_tokens": counts[:n], "rejected_tokens": counts[n:]})
    losses, d_chosen, d_rejected = zip(*rows)
    d_token = batch.spread(by, [*d_chosen, *d_rejected])
    return list(zip(losses, d_token[:n], d_token[n:]))


def token_examples(library, loss, mapping, given, examples):
    policy = [e["pol"] for e in examples]
    batch = Sequences(library, [len(tokens) for tokens in policy])
    by = batch.reducer(policy, [e["ref"] for e in examples], **bounds(given))
    sums, counts = batch.sums(by)
    rows = library.completions(loss, parameters(mapping, given), given["z"],
                               {"policy": sums, "reference": [0.0] * len(sums)},
                               {"tokens": counts}, [e["label"] for e in examples])
    losses, d = zip(*rows)
    return list(zip(losses, batch.spread(by, list(d))))


DIVERGENCE = {"alpha": "alpha_divergence"}
# No difference of scores alone, or of scores without their constants, or with another bound than ours.
RAW = {"apo_down"}


def score(given):
    name = given.get("f_divergence")
    return name and (DIVERGENCE.get(name, name), given.get("alpha", 1.0))


def odd_score(loss, given):
    return "f_divergence" in given and (loss in RAW or not given.get("constant_kept", True) or
                                        "exponent_cap" in given)


UNSUPPORTED = {"alpha_nll", "input_scale", "udm"}
# What a third completion of a pair is, by what the case asks the gradient of.
THIRD = {"d_prompt_w": ("prompt_w", "prompt_len"), "d_gold": ("gold", "gold_len")}


def paired(library, vectors):
    results = {}
    column = {name: i for i, name in enumerate(vectors["pair_columns"])}
    pairs = {name: [row[i] for row in vectors["pairs"]] for name, i in column.items()}
    for case in vectors["cases"]:
        if case["inputs"] == "token_pairs":
            found = entry(TOKEN_PAIRS, case["name"])
            if found:
                results[case["name"]] = token_pairs(library, *found, case["params"],
                                                    vectors["token_pairs"])
            continue
        found, given = entry(PAIRED, case["name"]), case["params"]
        if not found or UNSUPPORTED & given.keys():
            continue
        loss, mapping = found
        if odd_score(loss, given):
            continue
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
        results[case["name"]] = run(loss, parameters(mapping, given), reals, counts, score=score(given))
    return results


def unpaired(library, vectors):
    results = {}
    columns = {name: [row[i] for row in vectors["examples"]]
               for i, name in enumerate(vectors["example_columns"])}
    for case in vectors["cases"]:
        if case.get("inputs") == "token_examples":
            results[case["name"]] = token_examples(library, *entry(TOKEN_EXAMPLES, case["name"]),
                                                   case["params"], vectors["token_examples"])
            continue
        found, given = entry(UNPAIRED, case["name"]), case["params"]
        if not found:
            continue
        loss, mapping = found
        reals = {"policy": columns["pol"], "reference": columns["ref"]}
        if given.get("undesirable_weight") == "udm":
            given = {name: value for name, value in given.items() if name != "undesirable_weight"}
            reals["weight"] = [1.0 if label else udm
                               for label, udm in zip(columns["label"], columns["udm"])]
        if case["name"].startswith("a2po"):
            optimal = columns.get("vstar", [given.get("vstar")] * len(columns["label"]))
            reals["target"] = [label - v for label, v in zip(columns["label"], optimal)]
        z = given["delta"] / given["beta"] if "delta" in given else given.get("z", 0.0)
        results[case["name"]] = library.completions(
            loss, parameters(mapping, given), z, reals, {"tokens": columns["len"]},
            [int(label) for label in columns["label"]])
    return results


def total_and_gradients(rows, n_up):
    """Of results per completion, chosen ones first; a mean over all."""
    n = len(rows)
    d = [row[-1] / n for row in rows]
    return {"loss": sum(row[0] for row in rows) / n, "d_pol_w": d[:n_up], "d_pol_l": d[n_up:]}


def aot(library, inputs, given):
    reals = {"policy_chosen": inputs["pol_w"], "policy_rejected": inputs["pol_l"],
             "reference_chosen": inputs["ref_w"], "reference_rejected": inputs["ref_l"]}
    reals["margin"] = library.aot_margins("dpo", given, reals)
    rows = library.pairs("dpo", given, reals, {})
    n = len(rows)
    return {"loss": sum(row[0] for row in rows) / n, "d_pol_w": [row[1] / n for row in rows],
            "d_pol_l": [row[2] / n for row in rows]}


def aot_unpaired(library, inputs, given):
    n = len(inputs["pol_w"])
    policy, reference = inputs["pol_w"] + inputs["pol_l"], inputs["ref_w"] + inputs["ref_l"]
    up, down = library.aot_pairs({"policy": policy, "reference": reference}, list(range(n)),
                                 list(range(n, 2 * n)))
    rows = library.pairs("dpo", given, {
        "policy_chosen": [policy[i] for i in up], "policy_rejected": [policy[i] for i in down],
        "reference_chosen": [reference[i] for i in up],
        "reference_rejected": [reference[i] for i in down]}, {})
    d = {i: row[1] / n for i, row in zip(up, rows)} | {i: row[2] / n for i, row in zip(down, rows)}
    return {"loss": sum(row[0] for row in rows) / n, "d_pol_w": [d[i] for i in range(n)],
            "d_pol_l": [d[i] for i in range(n, 2 * n)]}


def simple_kto(library, inputs, given):
    n_up, n_down = len(inputs["pol_w"]), len(inputs["pol_l"])
    rows = library.completions(
        "kto", given, 0.0, {"policy": inputs["pol_w"] + inputs["pol_l"],
                            "reference": inputs["ref_w"] + inputs["ref_l"]}, {},
        [1] * n_up + [0] * n_down, CROSS_CLASS)
    return {**total_and_gradients(rows, n_up),
            "z_c": library.batch_mean(inputs["pol_w"], inputs["ref_w"]),
            "z_r": library.batch_mean(inputs["pol_l"], inputs["ref_l"])}


def kto_mismatched(library, inputs, given):
    """pol[i][j] is completion j under prompt i; that of another prompt is mismatched."""
    n = len(inputs["label"])

    def shifted(matrix, by):
        return [row[(i + by) % n] for i, row in enumerate(matrix)]

    mismatched = [shifted(inputs[key], given["rotation"]) for key in ("pol", "ref")]
    rows = library.completions(
        "kto", parameters(KTO, given), 0.0,
        {"policy": shifted(inputs["pol"], 0), "reference": shifted(inputs["ref"], 0),
         "mismatched_policy": mismatched[0], "mismatched_reference": mismatched[1]}, {},
        inputs["label"], BATCH_MEAN)
    total = total_and_gradients(rows, n)
    return {"loss": total["loss"], "d_pol": total["d_pol_w"], "z": library.batch_mean(*mismatched)}


def bco_sequence(library, batches, given):
    mean, answers = (c_double * 2)(), []
    for inputs in batches:
        n_up, n_down = len(inputs["pol_w"]), len(inputs["pol_l"])
        policy, reference = inputs["pol_w"] + inputs["pol_l"], inputs["ref_w"] + inputs["ref_l"]
        z = library.running_mean(mean, library.log_ratios(policy, reference))
        rows = library.completions("bco", given, z, {"policy": policy, "reference": reference}, {},
                                   [1] * n_up + [0] * n_down)
        answers.append({"delta": given["beta"] * z, **total_and_gradients(rows, n_up)})
    return answers


def advantages(library, inputs, given):
    size = given["group_size"]

    def in_groups(row):
        return [row[i:i + size] for i in range(0, len(row), size)]

    def of(**options):
        return in_groups(library.advantages([sum(inputs["rewards"], [])], size, **options))

    return {"grpo_group": of(), "grpo_batch": of(scale=1), "dr_grpo": of(scale=2),
            "halos_grpo": of(population=1, epsilon=1e-2), "rloo": of(advantage=1)}


def gdpo(library, inputs, given):
    size = given["group_size"]
    row = library.advantages([sum(component, []) for component in inputs["components"]], size,
                             given["weights"], advantage=2)
    return {"gdpo": [row[i:i + size] for i in range(0, len(row), size)]}


def value(library, inputs, given):
    columns = {name: sum(rows, []) for name, rows in inputs.items()}
    mask = columns.pop("mask")
    rows = library.values(given["cliprange_value"], columns, mask)
    d, width = [row[1] / sum(mask) for row in rows], len(inputs["value"][0])
    return {"loss": sum(row[0] for row in rows) / sum(mask),
            "d_value": [d[i:i + width] for i in range(0, len(d), width)]}


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
    families = {f.__name__: f for f in (aot, aot_unpaired, simple_kto, kto_mismatched, bco_sequence,
                                       mixture, advantages, gdpo, value)}
    return {case["name"]: families[case["family"]](library, case["inputs"], case["params"])
            for case in vectors["cases"] if case["family"] in families}


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
        if not found or found[0] not in names:
            continue
        loss, mapping = found
        over_tokens = loss == "gspo" and given.get("loss_type") == "bnpo"
        answer = library.tokens(loss, parameters(mapping, given), batch,
                                None if over_tokens else denominator(loss, case, batch),
                                OVER_TOKENS if over_tokens else None)
        # A part of the loss here, of the average there.
        length = given.get("max_completion_length", 1)
        answer["value"] = [[x * length for x in row] for row in answer["value"]]
        results[case["name"]] = answer
    return results


def main():
    path, folder, output, *type_ = sys.argv[1:]
    library = Library(path, *type_)
    cases = {}
    for name, run in (("paired", paired), ("unpaired", unpaired), ("token", tokens), ("batch", batch)):
        file = Path(folder) / f"{name}.json"
        if file.exists():
            cases.update(run(library, json.loads(file.read_text())))
    Path(output).write_text(json.dumps({"implementation": "prospect", "type": (type_ or ["fp64"])[0],
                                        "cases": cases}))


if __name__ == "__main__":
    main()
