#!/usr/bin/env python3
"""The count of glue catches a host with too much of it, with none, with marks that do not pair, and
with Prospect outside of them; it counts neither comments nor empty lines, and a second program apart. usage: glue_can_fail.py EXAMPLES"""

import subprocess
import sys
import tempfile
from pathlib import Path


def main(examples):
    def says(text, code, more=None):
        with tempfile.TemporaryDirectory() as folder:
            for name, what in {"main.cpp": text, **(more or {})}.items():
                (Path(folder) / name).write_text(what)
            done = subprocess.run([sys.executable, f"{examples}/glue", folder], capture_output=True,
                                  text=True, check=False)
            if done.returncode != code:
                print(f"ended with {done.returncode}, not {code}: {text!r}\n{done.stdout}{done.stderr}")
            return done.stdout if done.returncode == code else None

    line = "call();\n"
    marked = "// glue begin\n{}// glue end\n".format
    right = says(line + marked(line * 40 + "\n// why\n/* or\nwhy */\n") + line, 0)
    c = says("/* glue begin */\n" + line * 3 + "/* glue end */\n" + line, 0)
    caught = [says(marked(line * 41), 1), says(line, 1), says("// glue begin\n" + line, 1),
              says("// glue end\n" + line + "// glue begin\n", 1),
              says(marked(line * 20) + marked(line * 21), 1)]
    marks = marked(line + "namespace on = prospect::cpu;\n")
    for stray in ("prospect::dpo{};", "prospect_step step;", "  x = PROSPECT_OK;", "on::evaluate();",
                  "call(); /* why */ prospect::f();", 'say("\\"", prospect::f(), "");', "'\"'; prospect_f(); '\"';",
                  "#define CALL prospect_f()", "using namespace prospect;"):
        caught += [says(marks + stray + "\n", 1), says(stray + "\n" + marks, 1) if "on::" not in stray else "-",
                   says(marks, 1, {"engine.hpp": stray + "\n"})]
    named = "#include <prospect/prospect.hpp>\n// prospect::dpo\n/* why\nprospect_step */ call(\"prospect: \");\n"
    fine = says(named + marks + named + "common::f();\n", 0)
    twins = says(marked(line * 21), 0, {"main.cu": marked(line * 22), "views.hpp": marked(line * 18)})
    too_much = says(marked(line * 21), 1, {"main.cu": marked(line * 23), "views.hpp": marked(line * 18)})
    counted = (right and " 40 " in right and c and " 3 " in c and fine and too_much and
               twins and "main.cpp" in twins and " 39 " in twins and " 40 " in twins)
    return 0 if counted and all(caught) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
