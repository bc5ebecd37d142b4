"""Where a line of C++ can be wrong, and how: every site of a file at which one single defect of a
kind can be planted. Works on text; what then does not compile is drawn again."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Defect:
    kind: str
    file: str
    line: int
    old: str  # whole lines
    new: str
    nth: int  # of the places in the file where `old` stands

    def planted_in(self, text):
        """The file with the defect; None where the lines are no longer there."""
        at = -1
        for _ in range(self.nth + 1):
            at = text.find(self.old, at + 1)
            if at < 0:
                return None
        return text[:at] + self.new + text[at + len(self.old):]


TOKEN = re.compile(r"""(?P<comment>//[^\n]*|/\*.*?\*/)
                   |(?P<raw>R"(?P<mark>[^()\s]*)\(.*?\)(?P=mark)")
                   |(?P<string>"(?:\\.|[^"\\\n])*")
                   |(?P<char>(?<![0-9a-fA-F])'(?:\\.|[^'\\\n])+')
                   |(?P<directive>^[ ]*\#(?:[^\n]*\\\n)*[^\n]*)""", re.S | re.M | re.X)


OF_TYPES = re.compile(
    r"\b(static_assert|requires|noexcept|concept|template|alignas|sizeof|decltype)\b")


def code_of(text):
    """The text with blanks for what is no code, line for line. Strings keep their quotes."""
    def blanked(match):
        keep = 1 if match.lastgroup in {"string", "char"} else 0
        inside = match.group()[keep:len(match.group()) - keep]
        return match.group()[:keep] + re.sub(r"[^\n]", " ", inside) + match.group()[:keep]
    code = TOKEN.sub(blanked, text)
    # What is true of types alone is the compiler's to check.
    for start in OF_TYPES.finditer(code):
        word = start.group()
        if word == "concept":
            end = statement_end(code, start.end())
        else:
            opener = re.compile(r"\s*[(<{]").match(code, start.end())
            end = closing(code, opener.end() - 1) if opener else start.end()
            body = re.compile(r"\s*\{").match(code, end)
            if word == "requires" and end > 0 and body and code[opener.end() - 1] == "(":
                end = closing(code, body.end() - 1)
        if end > 0:
            blank = re.sub(r"[^\n]", " ", code[start.start():end])
            code = code[:start.start()] + blank + code[end:]
    return code


def closing(code, at):
    """The position behind the bracket that closes the one at `at`; -1 if there is none."""
    pairs = {"(": ")", "[": "]", "{": "}", "<": ">"}
    opener, closer, depth = code[at], pairs[code[at]], 0
    for i in range(at, len(code)):
        if code[i] == opener:
            depth += 1
        elif code[i] == closer:
            depth -= 1
            if depth == 0:
                return i + 1
    return -1


def statement_end(code, at):
    """Behind the statement that begins at `at`: a block, or what a semicolon ends."""
    if code[at] == "{":
        return closing(code, at)
    depth = 0
    for i in range(at, len(code)):
        depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(code[i], 0)
        if code[i] == ";" and depth == 0:
            return i + 1
        if depth < 0:
            break
    return -1


def replaced(pattern, *news):
    """Sites where a pattern stands; `news` are templates for what comes instead."""
    compiled = re.compile(pattern, re.M)

    def sites(code, text):
        for match in compiled.finditer(code):
            for new in news:
                with_ = new(match) if callable(new) else match.expand(new)
                if with_ is not None and with_ != match.group():
                    yield match.start(), match.end(), with_
    return sites


def other_of(pairs):
    both = {**pairs, **{b: a for a, b in pairs.items()}}
    return lambda match: both.get(match.group())


def conditions(code):
    """Each `if`: (start, start and end of its condition in brackets, end of its statement)."""
    for match in re.finditer(r"\bif \(", code):
        behind = closing(code, match.end() - 1)
        if behind < 0:
            continue
        body = re.compile(r"\s*").match(code, behind).end()
        end = statement_end(code, body)
        if end > 0:
            yield match.start(), match.end() - 1, behind, body, end


def dropped_checks(code, text):
    leaves = re.compile(r"\b(return|throw|continue|break|refuse\w*|reject\w*|fail\w*|invalid\w*)\b")
    for start, _, _, body, end in conditions(code):
        if leaves.search(code, body, end) and not re.compile(r"\s*else\b").match(code, end) and \
                not re.search(r"\belse\s*$", code[:start]) and end - start < 400:
            yield start, end, ""
    call = re.compile(r"^ *[\w:.]*\b(check|require|verify|validate)\w*(<\w+>)?\(", re.M)
    for match in call.finditer(code):
        end = closing(code, match.end() - 1)
        if end > 0 and code[end:end + 1] == ";":
            yield match.start(), end + 1, ""


def negated(code, text):
    for _, opener, behind, _, _ in conditions(code):
        yield opener, behind, f"(!{text[opener:behind]})"


def dropped_lines(code, text):
    lead = r"^( +)(?!return\b|using\b|throw\b|break\b|continue\b|case\b|delete\b|else\b)"
    for pattern in (r"[\w.\->:\[\]*()]+ [-+*/|&]?= [^;\n]*;$", r"[\w.\->:]+\([^;\n]*\);$",
                    r"(?:\+\+|--)[\w.\->:\[\]]+;$"):
        for match in re.finditer(lead + pattern, code, re.M):
            if match.group().count("(") == match.group().count(")"):
                yield match.start(), match.end(), match.group(1) + ";"


def swapped_arguments(code, text):
    simple = re.compile(r"\s*[\w.:\[\]]+(->\w+)*\s*$")
    for match in re.finditer(r"\b(?!if\b|for\b|while\b|switch\b)\w+(?:<[\w:, ]*>)?\(", code):
        end = closing(code, match.end() - 1)
        if end < 0 or end - match.end() > 400:
            continue
        parts, depth, begin = [], 0, match.end()
        for i in range(match.end(), end):
            if i == end - 1 or (code[i] == "," and depth == 0):
                parts.append((begin, i))
                begin = i + 1
            depth += {"(": 1, "{": 1, "[": 1, ")": -1, "}": -1, "]": -1}.get(code[i], 0)
        for (a, b), (c, d) in zip(parts, parts[1:]):
            first, second = text[a:b], text[c:d]
            if first.strip() != second.strip() and simple.match(code[a:b]) and \
                    simple.match(code[c:d]):
                gap = re.match(r"\s*", second).group()
                yield a, d, f"{second.strip()},{gap}{first.strip()}"


# Names that a tired author takes for each other.
LOOKALIKES = [("chosen", "rejected"), ("desirable", "undesirable"), ("policy", "reference"),
              ("rows", "columns"), ("columns", "pitch"), ("begin", "end"), ("first", "last"),
              ("softmax", "onehot"), ("low", "high"), ("log_prob", "lse"), ("sum", "count"),
              ("before", "after"), ("width", "height"), ("train", "held_out"), ("size", "stride"),
              ("offset", "size"), ("prompt", "completion"), ("here", "there"), ("x", "y"),
              ("i", "j")]


def wrong_variables(code, text):
    words = set(re.findall(r"\b[a-z_]\w*\b", code))
    for match in re.finditer(r"\b[a-z_]\w*\b", code):
        word = match.group()
        for pair in LOOKALIKES:
            for one, other in (pair, pair[::-1]):
                new = re.sub(rf"(?<![a-z0-9]){one}(?![a-z0-9])", other, word)
                if new != word and new in words:
                    yield match.start(), match.end(), new


def wrong_names(code, text):
    """A name in quotes, as messages and records have them, taken for another of the file."""
    found = [(m.start(), m.end(), text[m.start():m.end()]) for m in re.finditer(r'"[^"\n]*"', code)]
    names = [f for f in found if re.fullmatch(r'"[a-z][a-z_]+"', f[2])]
    words = sorted({f[2] for f in names})
    for start, end, word in names:
        if len(words) > 1:
            yield start, end, words[(words.index(word) + 1) % len(words)]


def larger(match):
    number = match.group()
    return f"(2 * {number})" if re.search(r"[.p]", number) else str(int(number) + 1)


OPERATORS = {
    "boundary": replaced(r"(?<= )(?:<=|>=|<|>)(?= )", other_of({"<": "<=", ">": ">="})),
    "equality": replaced(r"(?<= )[!=]=(?= )", other_of({"==": "!="})),
    "and/or": replaced(r"(?<= )(?:&&|\|\|)(?= )", other_of({"&&": "||"})),
    "sign": replaced(r"(?<= )[-+](?= )", other_of({"+": "-"})),
    "times/over": replaced(r"(?<=\w )[*/](?= )", other_of({"*": "/"})),
    "not accumulated": replaced(r"(?<= )[-+*|]=(?= )", "="),
    "index": replaced(r"(?<=[\w\])])\[(\w+)\](?! *[({])", r"[\1 + 1]", r"[\1 - 1]"),
    "last left out": replaced(r"\b(?:size\(\)|rows|columns|count|n|end|size)(?=[;)])",
                              r"\g<0> - 1"),
    "constant": replaced(r"(?<![\w.'])(?:0x[\da-fA-F.]+p[-+]?\d+F?|\d+\.\d+(?:e[-+]?\d+)?F?|"
                         r"\d+)(?![\w.'])", larger),
    "min/max": replaced(r"\b(?:min|max|fmin|fmax|min_element|max_element)(?=\()",
                        other_of({"min": "max", "fmin": "fmax", "min_element": "max_element"})),
    "true/false": replaced(r"\b(?:true|false)\b", other_of({"true": "false"})),
    "loop left early": replaced(r"\bcontinue;", "break;"),
    "check dropped": dropped_checks,
    "condition negated": negated,
    "line dropped": dropped_lines,
    "arguments swapped": swapped_arguments,
    "wrong variable": wrong_variables,
    "wrong name": wrong_names,
}


def sites_of(file, text):
    """All defects of a file, by kind."""
    code = code_of(text)
    by_kind = {}
    for kind, sites in OPERATORS.items():
        found = []
        for start, end, new in sites(code, text):
            first = text.rfind("\n", 0, start) + 1
            last = text.find("\n", end)
            last = len(text) if last < 0 else last
            old = text[first:last]
            planted = text[first:start] + new + text[end:last]
            found.append(Defect(kind, file, text.count("\n", 0, start) + 1, old, planted,
                                occurrence(text, old, first)))
        by_kind[kind] = found
    return by_kind


def occurrence(text, old, at):
    n, position = 0, text.find(old)
    while position < at:
        n, position = n + 1, text.find(old, position + 1)
    return n
