"""What is known of losses without running them: the list, the comments of their headers, what stands in
losses.json, and the errors that were measured."""

import json
import re
from dataclasses import dataclass, field

PROJECTS = {"trl": "TRL", "halos": "HALOs", "llama_factory": "LLaMA-Factory", "nemo": "NeMo"}
# Beside the projects: prose, and what of a curve the library cannot know.
OTHERS = {"differs": str, "detached": str, "of": str, "span": (int, float), "level": (int, float)}


class Stale(Exception):
    """What the page is made of does not fit together."""


@dataclass
class Header:
    prose: list = field(default_factory=list)    # paragraphs, and formulas in between as lists of lines
    remarks: dict = field(default_factory=dict)  # of parameters


def listed(include):
    """(kind, name) for each line of losses.def, in its order."""
    text = (include / "prospect/losses/losses.def").read_text()
    return [(kind.lower(), name) for kind, name in re.findall(r"^PROSPECT_(\w+)\((\w+)\)", text, re.M)]


def paragraphs(comment):
    """Text is joined to lines without end; indented lines are a formula, and stay lines."""
    found, inside = [], None
    for line in comment:
        what = None if not line.strip() else "formula" if line.startswith("  ") else "text"
        if what == "formula":
            if inside != what:
                found.append([])
            found[-1].append(line[2:])
        elif what == "text":
            if inside == what:
                found[-1] += " " + line.strip()
            else:
                found.append(line.strip())
        inside = what
    return found


def header(include, kind, name):
    path = include / f"prospect/losses/{kind}/{name}.hpp"
    if not path.exists():
        raise Stale(f"there is no {path}, where losses.def has {name} as {kind}")
    lines = path.read_text().splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith(f"struct {name} ")), None)
    if start is None:
        raise Stale(f"{path} declares no struct {name}")
    first = start
    while lines[first - 1].startswith("///"):
        first -= 1
    if first == start:
        raise Stale(f"{path}: struct {name} has no comment that says what it is")
    found = Header(paragraphs([line[4:] for line in lines[first:start]]))
    parameter = None
    for line in lines[start + 1:]:
        member = re.match(r"\s+double (\w+)\b[^/]*(?:///< (.*))?$", line)
        more = re.match(r"\s+///< (.*)$", line)
        if line.startswith("}"):
            break
        if member and member.group(2):
            parameter = member.group(1)
            found.remarks[parameter] = member.group(2)
        elif more and parameter:
            found.remarks[parameter] += " " + more.group(1)
        else:
            parameter = None
    return found


def elsewhere(path, names):
    """The entries of losses.json, one for each loss that is listed."""
    entries = json.loads(path.read_text())
    missing = [name for name in names if name not in entries]
    if missing:
        raise Stale(f"{path} has no entry for {', '.join(missing)}: say what other projects name it "
                    "and where they differ, or {} if that is not known")
    unlisted = [name for name in entries if name not in names]
    if unlisted:
        raise Stale(f"{path} has entries for losses that are not in losses.def: {', '.join(unlisted)}")
    for name, entry in entries.items():
        for key, value in entry.items():
            if not isinstance(value, {**dict.fromkeys(PROJECTS, str), **OTHERS}.get(key, ())):
                raise Stale(f"{path}: {name}.{key} is not known, or of another type")
    return entries


def measured(path, names):
    """Rows of accuracy.tsv, (case, ulp, where, date), by what they are of, one of the names; there may be no
    such file."""
    rows = {}
    if path.exists():
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                name, *row = line.split("\t")
                if name not in names:
                    raise Stale(f"accuracy.tsv has errors of {name}, which is not in losses.def")
                rows.setdefault(name, []).append(row)
    return rows
