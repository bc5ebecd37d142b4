#!/usr/bin/env python3
"""The pages of the tree, as MkDocs is to read them: where they lie in the tree, and so with the links
that they have there. Those that lead to a header go to its page of the reference, those to another
file to a page that shows it. On the way every link is held against the tree, where pages are read as
they are.

usage: stage.py TAGS PAGES CONFIG    Doxygen's tag file, the folder to write, MkDocs' configuration
"""

import json
import os
import re
import shutil
import sys
import xml.etree.ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START, CONTENTS = "README.md", "docs/README.md"
PICTURES = {".svg", ".png", ".css"}
LINK = re.compile(r"(?<=\]\()([^)\s]+)(?=\))")
LIST_ITEM = re.compile(r"^ *([*-]|\d+\.) ")


def outside_code(text):
    """Its lines, each with whether it is prose."""
    fence = None
    for line in text.splitlines():
        mark = re.match(r"^\s*(```+|~~~+)", line)
        if mark and fence is None:
            fence = mark.group(1)
            yield line, False
        elif mark and line.strip() == fence:
            fence = None
            yield line, False
        else:
            yield line, fence is None


def anchors(text):
    """The names that GitHub gives to headings."""
    seen = set()
    for line, prose in outside_code(text):
        heading = re.match(r"^#+ (.*)", line) if prose else None
        if heading:
            words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading.group(1)).replace("`", "")
            name = re.sub(r"[^\w\- ]", "", words.strip().lower()).replace(" ", "-")
            number = 0
            while (name if number == 0 else f"{name}-{number}") in seen:
                number += 1
            seen.add(name if number == 0 else f"{name}-{number}")
    return seen


def for_python_markdown(lines):
    """Lists as GitHub takes them: right after a line of prose, and with an item's further lines indented
    by three, where Python-Markdown wants an empty line and four."""
    before, numbered, parted = "", False, False
    for line in lines:
        item = LIST_ITEM.match(line)
        if item:
            numbered = item.group(1)[-1] == "."
            further = before.startswith(" ") and not parted  # the same paragraph of the item before
            if before.strip() and not LIST_ITEM.match(before) and not further:
                yield ""
            parted = False
        elif line and not line.startswith(" "):
            numbered = False
        parted |= not line.strip()
        yield " " + line if numbered and line.startswith("   ") else line
        before = line


class Stage:
    def __init__(self, tags, pages):
        self.pages, self.errors = pages, []
        self.reference = {}
        for file in xml.etree.ElementTree.parse(tags).iterfind("compound[@kind='file']"):
            path = Path(file.findtext("path")) / file.findtext("name")
            page = file.findtext("filename")
            self.reference[path] = f"api/{page}" if page.endswith(".html") else f"api/{page}.html"
        self.waiting, self.done = [], set()

    def run(self):
        contents = (ROOT / CONTENTS).read_text()
        self.want(START, self.page)
        self.want(CONTENTS, self.page)
        while self.waiting:
            path, how = self.waiting.pop()
            how(path)
        for page in sorted((ROOT / "docs").rglob("*.md")):
            name = page.relative_to(ROOT)
            if str(name) != CONTENTS and page.parent != ROOT / "docs/site":
                if f"({name.relative_to('docs')})" not in contents:
                    self.errors.append(f"{name} is not listed in {CONTENTS}")
        return navigation(contents)

    def want(self, path, how):
        """Where `path` is shown, which will be made by `how`; both relative to the root."""
        if how == self.page or how == self.copy:
            shown = path
        else:
            shown = f"{path}/README.md" if how == self.folder else f"{path}.md"
        if shown not in self.done:
            self.done.add(shown)
            self.waiting.append((path, how))
        return shown

    def write(self, path, text):
        target = self.pages / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)

    def page(self, path):
        lines = []
        for number, (line, prose) in enumerate(outside_code((ROOT / path).read_text()), 1):
            place = f"{path}:{number}"
            lines.append(LINK.sub(lambda m: self.link(path, m.group(1), place), line) if prose else line)
        self.write(path, "\n".join(for_python_markdown(lines)) + "\n")

    def link(self, path, link, place):
        if re.match(r"^[a-z]+:", link):
            return link
        name, _, anchor = link.partition("#")
        target = Path(os.path.normpath(ROOT / Path(path).parent / name)) if name else ROOT / path
        if not target.exists() or ROOT not in [target, *target.parents]:
            self.errors.append(f"{place}: there is no {link}")
            return link
        if target.suffix == ".md" and anchor and anchor not in anchors(target.read_text()):
            self.errors.append(f"{place}: no heading for {link}")
        if not name:
            return link
        shown = os.path.relpath(self.shown(target), Path(path).parent)
        return shown + (f"#{anchor}" if anchor else "")

    def shown(self, target):
        path = str(target.relative_to(ROOT))
        if target in self.reference:
            return self.reference[target]
        if target.is_dir() and (target / "README.md").exists():
            return self.want(f"{path}/README.md", self.page)
        if target.is_dir():
            return self.want(path, self.folder)
        if target.suffix == ".md":
            return self.want(path, self.page)
        return self.want(path, self.copy if target.suffix in PICTURES else self.source)

    def copy(self, path):
        (self.pages / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, self.pages / path)

    def source(self, path):
        language = {".hpp": "cpp", ".cuh": "cpp", ".h": "c", ".def": "cpp", ".cu": "cpp", "": "bash"}
        suffix = Path(path).suffix
        name = language.get(suffix, {".txt": "text", ".tsv": "text"}.get(suffix, suffix[1:]))
        self.write(f"{path}.md", f"# {path}\n\n`````{name}\n{(ROOT / path).read_text()}`````\n")

    def folder(self, path):
        lines = [f"# {path}", ""]
        for entry in sorted((ROOT / path).iterdir()):
            if entry.is_file():
                lines.append(f"* [{entry.name}]({os.path.relpath(self.shown(entry), path)})")
        self.write(f"{path}/README.md", "\n".join(lines) + "\n")


def navigation(contents):
    """From the page of contents: its headings, and what is listed under each."""
    sections = [{"Prospect": START}, {"Contents": CONTENTS}]
    for line in contents.splitlines():
        heading, item = re.match(r"^## (.*)", line), re.match(r"^\* \[([^]]*)\]\(([^)]*)\)", line)
        if heading:
            sections.append({heading.group(1): []})
        elif item:
            path = os.path.normpath(os.path.join("docs", item.group(2)))
            next(iter(sections[-1].values())).append({item.group(1): path})
    return sections


def main():
    tags, pages, config = (Path(a).resolve() for a in sys.argv[1:])
    stage = Stage(tags, pages)
    stage.want("docs/site/pages.css", stage.copy)
    nav = stage.run()
    if stage.errors:
        sys.exit("\n".join(["docs/build: in the tree:", *stage.errors]))
    config.write_text(json.dumps({"INHERIT": str(ROOT / "docs/site/mkdocs.yml"),
                                  "docs_dir": str(pages), "nav": nav}))


main()
