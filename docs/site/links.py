#!/usr/bin/env python3
"""Holds every link of a site against it: the file must be there, and the anchor in it; and nothing may be
loaded from elsewhere. Links to elsewhere are not followed. usage: links.py SITE"""

import html
import os
import re
import sys
import urllib.parse
from pathlib import Path

NAMES = re.compile(r'\s(?:id|name)="([^"]*)"')
LINKS = re.compile(r'\s(?:href|src)="([^"]*)"')
LOADS = re.compile(r'<(?:script|img|iframe|link)\b[^>]*\s(?:src|href)="((?:https?:)?//[^"]*)"')


def main():
    site = Path(sys.argv[1]).resolve()
    texts = {str(p): p.read_text() for p in site.rglob("*.html") if p.parent.name != "search"}
    names = {page: {html.unescape(n) for n in NAMES.findall(text)} for page, text in texts.items()}
    files = {str(p) for p in site.rglob("*")}
    errors, count = set(), 0
    for page, text in texts.items():
        shown = os.path.relpath(page, site)
        errors |= {f"{shown} loads {link}" for link in LOADS.findall(text)}
        for link in map(html.unescape, LINKS.findall(text)):
            if re.match(r"^([a-z]+:|//)", link):
                continue
            count += 1
            path, _, anchor = link.partition("#")
            path, anchor = urllib.parse.unquote(path.partition("?")[0]), urllib.parse.unquote(anchor)
            target = os.path.normpath(os.path.join(os.path.dirname(page), path)) if path else page
            if os.path.join(target, "index.html") in files:
                target = os.path.join(target, "index.html")
            if target not in files:
                errors.add(f"{shown}: there is no {link}")
            elif anchor and target in names and anchor not in names[target]:
                errors.add(f"{shown}: no anchor for {link}")
    if not count:
        errors.add(f"no link in {site}")
    if errors:
        sys.exit("\n".join(["docs/build: in the site:", *sorted(errors)]))
    print(f"{len(texts)} pages, {count} links")


main()
