#!/usr/bin/env python3
"""Compiles, and runs where it can, every code snippet that a reader may copy: the fenced blocks of
README.md, CONTRIBUTING.md, docs/*.md and of the comments of headers.

A snippet is a part of a program. The rest, what its reader is assumed to have, is a frame: the file
of frames/ whose first line names the snippet by its file and a text that it holds, or else the
default of its language. Where the snippet goes, the frame says `here`; `here, up to TEXT` takes the
lines up to the first that holds the text, so that a frame can come between. #include lines go to
the frame's top; a line `flags: FLAG...` gives the C++ compiler more. What is not compiled stands in
`not_compiled`, with the reason.

Code in a comment that is not fenced would escape: indented lines that end as code does are errors.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENDINGS = {"cpp": ".cpp", "c": ".c", "cuda": ".cu", "cmake": ".cmake", "sh": ".sh"}
PROSE = {"", "text"}


@dataclass
class Snippet:
    file: str
    line: int  # of its first line of code
    language: str
    lines: list = field(default_factory=list)

    def __str__(self):
        return f"{self.file}:{self.line} ({self.language})"

    def text(self):
        return "\n".join(self.lines)


def comment_text(line):
    """What a line of a header says as a comment, or None."""
    match = re.match(r"^\s*(?:///?|/\*\*?|\*(?!/))(?: (.*)|$)", line)
    return None if match is None else (match.group(1) or "").removesuffix("*/").rstrip()


# Prose that ends in a semicolon has no call, no name of a scope and no assignment.
LOOKS_LIKE_CODE = re.compile(r"^ {2,}(?=\S)(?=.*(\w\(|::|->| = )).*[;{}]( *//.*)?$")


def language_of(fence, file, text):
    if fence == "cpp" and (file.startswith("include/prospect/cuda/") or
                           re.search(r"\.cuh>|\bcuda::|<<<", text)):
        return "cuda"
    return {"cu": "cuda", "bash": "sh"}.get(fence, fence)


def snippets_of(root, path, errors):
    """The fenced blocks of one file; what looks like code outside of them goes to the errors."""
    file = str(path.relative_to(root))
    header = path.suffix != ".md"
    found, fence, snippet = [], None, None
    for number, line in enumerate(path.read_text().splitlines(), 1):
        text = comment_text(line) if header else line
        mark = re.match(r"^\s*```\s*([\w+-]*)", text or "")
        if fence is None and mark:
            fence = mark.group(1)
            snippet = Snippet(file, number + 1, fence)
        elif fence is not None and (mark or text is None):
            if text is None:
                errors.append(f"{file}:{number}: the comment ends inside of a fenced block")
            snippet.language = language_of(fence, file, snippet.text())
            if snippet.language not in PROSE:
                found.append(snippet)
            fence = None
        elif fence is not None:
            snippet.lines.append(text)
        elif header and text is not None and LOOKS_LIKE_CODE.match(text):
            errors.append(f"{file}:{number}: code in a comment that is not fenced (```cpp): {text}")
    if fence is not None:
        errors.append(f"{file}:{snippet.line}: a fenced block does not end")
    return found


def all_snippets(root, errors):
    files = [root / "README.md", root / "CONTRIBUTING.md", *sorted((root / "docs").rglob("*.md"))]
    files += sorted(p for p in (root / "include").rglob("*") if p.suffix in {".h", ".hpp", ".cuh"})
    return [s for file in files if file.exists() for s in snippets_of(root, file, errors)]


@dataclass
class Named:
    """A frame or an exception, for the snippet of `file` that holds `text`."""
    file: str
    text: str
    what: object
    used: int = 0

    def names(self, snippet):
        return self.file == snippet.file and self.text in snippet.text()


def frames(folder):
    named = []
    for path in sorted(folder.iterdir()):
        first = path.read_text().splitlines()[0]
        match = re.match(r"^\W*frame of (\S+), with (.*?)(?: \*/)?$", first)
        if match:
            named.append(Named(match.group(1), match.group(2), path))
        elif path.stem != "default":
            sys.exit(f"{path}: the first line must name a snippet: frame of FILE, with TEXT")
    return named


def exceptions(path):
    """Lines FILE | TEXT | REASON."""
    named = []
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            file, text, reason = (part.strip() for part in line.split("|", 2))
            named.append(Named(file, text, reason))
    return named


def one_of(named, snippet, errors, what):
    fitting = [n for n in named if n.names(snippet)]
    for n in fitting:
        n.used += 1
    if len(fitting) > 1:
        errors.append(f"{snippet}: {what} name it {len(fitting)} times")
    return fitting[0].what if fitting else None


DECLARES = re.compile(r"^(template|struct|class|enum|namespace \w+ \{|extern|static|inline|typedef|"
                      r"PROSPECT_|[\w:<>*&]+ [\w:<>*& ]*\([^;{]*\)( const| noexcept)* \{)")
STATES = re.compile(r"^(if|for|while|switch|do|else|return)\b")


def is_declarations(lines):
    code = [l for l in lines if l and not l.startswith((" ", "//", "/*", "#", "}"))]
    return any(DECLARES.match(l) and not STATES.match(l) for l in code)


PLACE = re.compile(r"^\s*(?://|#|/\*) here(?:, (declarations|statements)|, up to (.+?))?(?: \*/)?$")


def framed(snippet, frame):
    """The program: the frame with the snippet in its place, and #line to name the places."""
    if snippet.language in {"cpp", "c", "cuda"} and re.search(r"^int main\(", snippet.text(), re.M):
        return snippet.text() + "\n"
    includes, rest = [], []
    for number, line in enumerate(snippet.lines, snippet.line):
        is_include = snippet.language != "cmake" and re.match(r"^#\s*include\b", line)
        (includes if is_include else rest).append((number, line))
    numbered = snippet.language in {"cpp", "c", "cuda"}

    def lines(some):
        if not some:
            return []
        start = [f'#line {some[0][0]} "{snippet.file}"'] if numbered else []
        return start + [line for _, line in some]

    kind = "declarations" if is_declarations([line for _, line in rest]) else "statements"
    program = lines(includes)
    for number, line in enumerate(frame.read_text().splitlines(), 1):
        match = PLACE.match(line)
        if not match:
            program.append(line)
            continue
        taken, after = rest, []
        if match.group(2):
            ends = [i for i, (_, l) in enumerate(rest) if match.group(2) in l]
            if not ends:
                raise LookupError(f"{frame.name}: no line left that holds {match.group(2)}")
            taken, after = rest[:ends[0] + 1], rest[ends[0] + 1:]
        if match.group(1) in (None, kind):
            program += lines(taken)
            rest = after
        if numbered:
            program.append(f'#line {number + 1} "{frame.name}"')
    if rest:
        raise LookupError(f"{frame.name} has no place for {rest[0][1]}")
    return "\n".join(program) + "\n"


class Tools:
    """What compiles and runs; a tool that is not given skips its language, and says so."""

    def __init__(self, options, folder):
        self.options, self.folder = options, folder
        self.include = [f"-I{options.root}/include", f"-I{HERE}"]
        self.skipped = set()

    def run(self, *command, environment=None):
        done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, timeout=300,
                              stderr=subprocess.STDOUT, text=True, env=environment,
                              cwd=self.folder)
        return "" if done.returncode == 0 else f"{done.stdout}exit status {done.returncode}"

    def program(self, *command):
        """Compiles to ./program and runs it; 77 is what a frame exits with that misses a library."""
        failed = self.run(*command, "-o", "program") or self.run("./program")
        return self.skip("what needs Eigen") if failed == "exit status 77" else failed

    def cpp(self, source, _):
        flags = re.search(r"^// flags: (.*)", source.read_text(), re.M)
        adapted = []
        for name, given in (("mpi", self.options.mpi), ("torch", self.options.torch)):
            if f"<prospect/adapters/{name}.hpp>" in source.read_text():
                if given is None:
                    return self.skip(f"{name}: none is given")
                adapted += given
        return self.program(self.options.cxx, "-std=c++20", "-Wall", "-Wextra", *self.include,
                            *(flags.group(1).split() if flags else []), source, "-pthread", *adapted)

    def c(self, source, _):
        if not self.options.archive:
            return self.skip("C: no archive is given")
        failed = self.run(self.options.cc, "-std=c11", "-pedantic-errors", "-Wall", "-Wextra",
                          *self.include, "-c", source, "-o", "program.o")
        return failed or self.program(self.options.cxx, "program.o", self.options.archive,
                                      "-pthread", *self.options.link)

    def cuda(self, source, _):
        if not self.options.nvcc:
            return self.skip("CUDA: no nvcc")
        nvcc = [self.options.nvcc, "-std=c++20", "-O0", "-gencode",
                "arch=compute_80,code=compute_80", *self.include, source]
        if not self.options.emulator:
            self.skip("running the CUDA ones: no device emulator is given")
            return self.run(*nvcc, "-c", "-o", "program.o")
        return self.run(*nvcc, "--no-compress", "-cudart", "shared", "-o", "program") or \
            self.run("env", f"LD_PRELOAD={self.options.emulator}", "./program")

    def cmake(self, source, _):
        """A project in which the snippet stands, configured and built against the prefix; the source
        lies in third_party/prospect."""
        if not self.options.prefix:
            return self.skip("CMake: no installed package is given")
        project = self.folder / "project"
        shutil.rmtree(project, ignore_errors=True)
        (project / "third_party").mkdir(parents=True)
        (project / "third_party" / "prospect").symlink_to(self.options.root)
        shutil.copy(source, project / "CMakeLists.txt")
        (project / "main.cpp").write_text("int main() {}\n")
        return self.run("cmake", "-S", project, "-B", project / "build",
                        "-G", self.options.generator,
                        f"-DCMAKE_PREFIX_PATH={self.options.prefix}",
                        f"-DCMAKE_CXX_COMPILER={self.options.cxx}") or \
            self.run("cmake", "--build", project / "build")

    def sh(self, source, snippet):
        """Not run, since these build everything: the shell must understand it, and what it names,
        files of the tree, programs, switches, presets and stages, must exist."""
        failed = self.run("bash", "-n", source)
        if failed:
            return failed
        root = self.options.root
        known = "\n".join(p.read_text() for p in [root / "CMakeLists.txt",
                                                  *root.glob("*/CMakeLists.txt")] if p.exists())
        presets = root / "CMakePresets.json"
        known_presets = presets.read_text() if presets.exists() else ""
        text = re.sub(r"\\\n", " ", snippet.text())
        wrong = []
        for line in text.splitlines():
            for command in re.split(r"&&|\|\||[|;]", re.sub(r"(^|\s)#.*", "", line)):
                words = [w for w in command.split() if not re.match(r"^\w+=", w)]
                wrong += self.wrong_words(root, words, known, known_presets)
        return "\n".join(wrong)

    @staticmethod
    def wrong_words(root, words, known, known_presets):
        if not words:
            return []
        program, wrong = words[0], []
        if "/" in program and not (root / program).is_file():
            wrong.append(f"there is no {program}")
        elif "/" not in program and shutil.which(program) is None:
            wrong.append(f"no such program: {program}")
        for word, after in zip(words, [*words[1:], ""]):
            switch = re.match(r"^-D(PROSPECT_\w+)", word)
            if switch and not re.search(rf"\b(option|set)\({switch.group(1)}\b", known):
                wrong.append(f"no CMake switch: {switch.group(1)}")
            if word == "--preset" and f'"name": "{after}"' not in known_presets:
                wrong.append(f"no such preset: {after}")
        if program == "tests/run" and (root / program).is_file():
            stages = (root / program).read_text()
            wrong += [f"no such stage of tests/run: {w}" for w in words[1:]
                      if not re.search(rf"^{re.escape(w)}\(\)", stages, re.M)]
        return wrong

    def skip(self, why):
        self.skipped.add(why)
        return None


def path(given):
    return Path(given).resolve()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, add_help=True,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=path)
    parser.add_argument("--cxx", default="c++")
    parser.add_argument("--cc", default="cc")
    parser.add_argument("--archive", type=path, help="libprospect_kernels.a, or C is skipped")
    parser.add_argument("--link", action="append", default=[], help="what else the archive needs")
    parser.add_argument("--mpi", action="append", metavar="FLAG",
                        help="to compile and link with MPI, or its snippets are skipped; they are "
                             "run by one rank")
    parser.add_argument("--torch", action="append", metavar="FLAG",
                        help="to compile and link with libtorch and Eigen, or its snippets are skipped")
    parser.add_argument("--nvcc", help="without it CUDA is skipped")
    parser.add_argument("--emulator", type=path, help="under which CUDA snippets are run")
    parser.add_argument("--prefix", type=path, help="the installed package, or CMake is skipped")
    parser.add_argument("--generator", default="Ninja", help="CMake's, for its own snippets")
    parser.add_argument("--frames", type=Path, default=HERE / "frames")
    parser.add_argument("--not-compiled", type=Path, default=HERE / "not_compiled")
    parser.add_argument("--only", default="", help="snippets whose file:line (language) holds this")
    return parser.parse_args()


def main():
    options = arguments()
    errors = []
    snippets = all_snippets(options.root, errors)
    own_frames, left_out = frames(options.frames), exceptions(options.not_compiled)
    with tempfile.TemporaryDirectory() as folder:
        tools = Tools(options, Path(folder))
        for snippet in snippets:
            reason = one_of(left_out, snippet, errors, "exceptions")
            frame = one_of(own_frames, snippet, errors, "frames")
            if options.only not in str(snippet):
                continue
            if reason:
                print(f"{snippet}: not compiled: {reason}")
                continue
            if snippet.language not in ENDINGS:
                errors.append(f"{snippet}: no such language")
                continue
            skips = len(tools.skipped)
            ending = ENDINGS[snippet.language]
            source = tools.folder / f"snippet{ending}"
            try:
                default = options.frames / f"default{ending}"
                source.write_text(snippet.text() + "\n" if snippet.language == "sh"
                                  else framed(snippet, frame or default))
                failed = getattr(tools, snippet.language)(source, snippet)
            except LookupError as error:
                failed = str(error)
            except subprocess.TimeoutExpired:
                failed = "does not end"
            if failed:
                errors.append(f"{snippet}: {failed}")
            print(f"{snippet}: " + ("FAILED" if failed else
                                    "skipped" if failed is None else
                                    "checked" if snippet.language == "sh" else
                                    "compiled" if len(tools.skipped) > skips else "right"))
    for n in [*own_frames, *left_out]:
        if n.used != 1:
            errors.append(f"the one of {n.file} with {n.text} names {n.used}: {n.what}")
    for why in sorted(tools.skipped):
        print(f"skipped: {why}")
    print(f"{len(snippets)} snippets")
    for error in errors:
        print(f"\n{error}")
    sys.exit(1 if errors or not snippets else 0)


main()
