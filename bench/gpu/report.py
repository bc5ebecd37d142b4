"""Joins what bench/gpu/run left in a folder into results.json and a table, results.txt.
usage: report.py FOLDER [--rehearsal] [--context KEY=VALUE]..."""

import argparse
import json
from pathlib import Path


def rows_of(folder):
    rows = []
    for file in sorted((folder / "rows").glob("*.json")):
        text = file.read_text()
        if not text.strip():
            continue
        for row in json.loads(text)["benchmarks"]:
            row["name"] = row["name"].split("/iterations:")[0].split("/manual_time")[0]
            rows.append(row)
    return rows


def stages_of(folder):
    file = folder / "stages.tsv"
    lines = file.read_text().splitlines() if file.exists() else []
    return [dict(zip(("stage", "verdict", "seconds"), line.split("\t"))) for line in lines]


def columns(header, lines):
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, ["-" * w for w in widths], *lines]:
        yield "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w)
                        for i, (cell, w) in enumerate(zip(line, widths))).rstrip()


def figures(row):
    """The cells of a row: time, time on paper, rate, share of the limit, launches, what is to be said about it."""
    if row.get("error_occurred"):
        return ["", "", "", "", "", row.get("error_message", "failed")]
    rate = ""
    if "bytes_per_s" in row:
        rate = f"{row['bytes_per_s'] / 1e12:.2f} TB/s"
    elif "flops_per_s" in row:
        rate = f"{row['flops_per_s'] / 1e12:.0f} TFLOP/s"
    share = f"{100 * row['of_limit']:.0f} %" if "of_limit" in row else ""
    model = f"{row['model_s'] * 1e6:.1f} us" if "model_s" in row else ""
    launches = f"{row['launches']:.0f}" if row.get("launches") else ""
    return [f"{row['median_s'] * 1e6:.1f} us", model, rate, share, launches, row.get("note", "")]


def table(context, stages, rows, rehearsal):
    for key, value in context.items():
        yield f"{key}: {value}"
    yield ""
    yield from columns(["stage", "seconds", "verdict"],
                       [[s["stage"], s["seconds"], s["verdict"]] for s in stages])
    yield ""
    if rehearsal:
        yield f"a rehearsal: {len(rows)} rows ran, and their times mean nothing"
        return
    yield from columns(["row", "median", "model", "rate", "of limit", "launches", "note"],
                       [[row["name"], *figures(row)] for row in rows])
    yield "  model: on paper, from bytes and counted instructions (bench/gpu/MODEL.md)"
    yield "  of limit: of what a plain read or copy of as many bytes moved in the same process; of the head,"
    yield "  of its matrix products by themselves"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rehearsal", action="store_true")
    parser.add_argument("--context", action="append", default=[])
    options = parser.parse_args()
    context = dict(entry.split("=", 1) for entry in options.context)
    rows, stages = rows_of(options.folder), stages_of(options.folder)
    text = "\n".join(table(context, stages, rows, options.rehearsal)) + "\n"
    # Of a rehearsal only the names are kept: nobody can mistake its times for figures.
    kept = [{"name": row["name"]} for row in rows] if options.rehearsal else rows
    (options.folder / "results.json").write_text(json.dumps(
        {"context": context, "rehearsal": options.rehearsal, "stages": stages, "benchmarks": kept},
        indent=1) + "\n")
    (options.folder / "results.txt").write_text(text)
    print(text, end="")


if __name__ == "__main__":
    main()
