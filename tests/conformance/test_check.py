"""The kit's own test: right losses agree, each known wrong formula is caught and named, and nothing passes
unanswered.

    python3 test_check.py    needs the vectors beside it
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import wrong

HERE = Path(__file__).resolve().parent


def check(results):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(results, file)
        file.flush()
        done = subprocess.run([sys.executable, HERE / "check", file.name], text=True,
                              stdout=subprocess.PIPE)
    return done.returncode, done.stdout


def expect(fine, what):
    if not fine:
        sys.exit(f"wrong: {what}")


def numbers(x):
    """What stands in the vectors, as a project answers it."""
    if isinstance(x, dict):
        return {key: numbers(y) for key, y in x.items()}
    if isinstance(x, list):
        return [numbers(y) for y in x]
    return None if x is None else float(x)


def tokens_are_held():
    vectors = json.loads((HERE / "vectors" / "token.json").read_text())
    right = {case["name"]: {key: numbers(case[key]) for key in ("loss", "value", "d_logp")}
             for case in vectors["cases"]}
    status, text = check({"type": "fp64", "cases": right})
    expect(status == 0 and "FAIL" not in text, f"the vectors of tokens themselves fail:\n{text}")
    name = next(iter(right))
    for key, change in (("loss", lambda x: x * (1 + 1e-10)),
                        ("value", lambda rows: [[rows[0][0] * (1 + 1e-10), *rows[0][1:]], *rows[1:]]),
                        ("d_logp", lambda rows: [[rows[0][0] * (1 + 1e-10), *rows[0][1:]], *rows[1:]]),
                        ("d_logp", lambda rows: rows[:-1]),
                        ("value", lambda rows: [rows[0][:-1], *rows[1:]])):
        status, text = check({"type": "fp64",
                              "cases": {name: {**right[name], key: change(right[name][key])}}})
        expect(status == 1 and f"FAIL     {name}" in text and key in text, f"{key}: {text}")


def main():
    caught = set()
    for file, table in (("paired", wrong.PAIRED), ("unpaired", wrong.UNPAIRED)):
        vectors = json.loads((HERE / "vectors" / f"{file}.json").read_text())
        right = {case["name"]: numbers(case["rows"]) for case in vectors["cases"]}
        for case in vectors["cases"]:
            case.setdefault("outputs", ["loss", "d_pol", "d_z"])
        status, text = check({"type": "fp64", "cases": right})
        expect(status == 0 and "FAIL" not in text, f"the vectors themselves fail:\n{text}")

        # One unit in the tenth digit of one gradient.
        name = next(iter(right))
        off = {**right, name: [row[:] for row in right[name]]}
        off[name][3][1] *= 1 + 1e-10
        status, text = check({"type": "fp64", "cases": off})
        expect(status == 1 and f"FAIL     {name}" in text and "row 3, d_" in text, text)
        # The same of one token, and a token too few.
        name = next(case["name"] for case in vectors["cases"] if "[t]" in case["outputs"][1])
        off = {**right, name: [row and [*row] for row in right[name]]}
        off[name][2][1] = [*right[name][2][1][:-1], right[name][2][1][-1] * (1 + 1e-10) + 1e-13]
        status, text = check({"type": "fp64", "cases": off})
        expect(status == 1 and f"FAIL     {name}" in text and "row 2, d_" in text, text)
        off[name][2][1] = right[name][2][1][:-1]
        expect(check({"type": "fp64", "cases": off})[0] == 1, "a token too few passes")
        # A row too few, a case that nobody knows, and no answer at all.
        for cases in ({name: right[name][:-1]}, {"no_such_loss": []}, {}):
            expect(check({"type": "fp64", "cases": cases})[0] == 1, f"{list(cases)} passes")

        # A loss that fp64 cannot hold: held or infinite, but not anything.
        if file == "paired":
            far = "sigmoid_forward_kl"
            at = next(i for i, row in enumerate(right[far]) if row[0] == math.inf)
            for row, fine in (([1e305, 0, 0], True), ([1e200, 0, 0], False), ([math.nan, 0, 0], False),
                              ([-math.inf, 0, 0], False), ([math.inf, math.nan, 0], False)):
                held = [*right[far][:at], row, *right[far][at + 1:]]
                expect((check({"type": "fp64", "cases": {far: held}})[0] == 0) == fine, f"{row}")
        # A column too few.
        less = {case["name"]: [row[:-1] for row in right[case["name"]]]
                for case in vectors["cases"] if case["outputs"][-1] == "d_gold"}
        if less:
            status, text = check({"type": "fp64", "cases": less})
            expect(status == 1 and text.count("has no d_gold") == len(less), text)

        for stem, formulas in table.items():
            for wrong_name, formula in formulas:
                answers = {}
                for case in vectors["cases"]:
                    if case.get("inputs") not in ("pairs", None):
                        continue
                    if not (case["name"] == stem or case["name"].startswith(stem + "_")):
                        continue
                    losses = [wrong.value(formula, s, **case["params"])
                              for s in wrong.samples_of(vectors)]
                    answers[case["name"]] = [
                        [loss, *row[1:]] for loss, row in zip(losses, right[case["name"]])]
                status, text = check({"type": "fp64", "cases": answers})
                expect(f"it is {wrong_name}" in text, f"{wrong_name} is never named")
                expect(status == 1, f"{wrong_name} passes")
                caught.add(wrong_name)
    tokens_are_held()

    # Batches: the vectors themselves, one digit of one gradient, and a number that is missing.
    cases = json.loads((HERE / "vectors" / "batch.json").read_text())["cases"]
    right = {case["name"]: numbers(case["expected"]) for case in cases}
    status, text = check({"type": "fp64", "cases": right})
    expect(status == 0 and "FAIL" not in text, f"the vectors themselves fail:\n{text}")
    for spoil in (lambda d: d.__setitem__(2, d[2] * (1 + 1e-10)), list.pop):
        for name in ("aot_3_eps0.1", "mpo_batch_3"):
            spoilt = numbers(right[name])
            spoil(spoilt["d_pol_w"])
            status, text = check({"type": "fp64", "cases": {name: spoilt}})
            expect(status == 1 and name in text and "d_pol_w[" in text, text)
    print(f"{len(caught)} wrong formulas are caught by name")


if __name__ == "__main__":
    main()
