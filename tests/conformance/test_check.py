"""The kit's own test: right losses agree, each known wrong formula is caught and named, and nothing passes
unanswered.

    python3 test_check.py    needs the vectors beside it
"""

import json
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


def tokens_are_held():
    vectors = json.loads((HERE / "vectors" / "token.json").read_text())
    numbers = lambda rows: [[x and float(x) for x in row] for row in rows]
    right = {case["name"]: {"loss": float(case["loss"]), "value": numbers(case["value"]),
                            "d_logp": numbers(case["d_logp"])} for case in vectors["cases"]}
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
        right = {case["name"]: [[float(x) for x in row] for row in case["rows"]]
                 for case in vectors["cases"]}
        status, text = check({"type": "fp64", "cases": right})
        expect(status == 0 and "FAIL" not in text, f"the vectors themselves fail:\n{text}")

        # One unit in the tenth digit of one gradient.
        name = next(iter(right))
        off = {**right, name: [row[:] for row in right[name]]}
        off[name][3][1] *= 1 + 1e-10
        status, text = check({"type": "fp64", "cases": off})
        expect(status == 1 and f"FAIL     {name}" in text and "row 3, d_" in text, text)
        # A row too few, a case that nobody knows, and no answer at all.
        for cases in ({name: right[name][:-1]}, {"no_such_loss": []}, {}):
            expect(check({"type": "fp64", "cases": cases})[0] == 1, f"{list(cases)} passes")

        for stem, formulas in table.items():
            for wrong_name, formula in formulas:
                named = False
                for case in vectors["cases"]:
                    if not (case["name"] == stem or case["name"].startswith(stem + "_")):
                        continue
                    losses = [wrong.value(formula, s, **case["params"])
                              for s in wrong.samples_of(vectors)]
                    rows = [[loss, *row[1:]] for loss, row in zip(losses, right[case["name"]])]
                    status, text = check({"type": "fp64", "cases": {case["name"]: rows}})
                    if f"it is {wrong_name}" in text:
                        expect(status == 1, f"{wrong_name} passes")
                        named = True
                expect(named, f"{wrong_name} is never named")
                caught.add(wrong_name)
    tokens_are_held()
    print(f"{len(caught)} wrong formulas are caught by name")


if __name__ == "__main__":
    main()
