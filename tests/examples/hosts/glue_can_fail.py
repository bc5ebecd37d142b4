#!/usr/bin/env python3
"""The count of glue catches a host with too much of it, with none, and with marks that do not pair,
and counts neither comments nor empty lines. usage: glue_can_fail.py EXAMPLES"""

import subprocess
import sys
import tempfile
from pathlib import Path


def main(examples):
    def says(text, code):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "main.cpp").write_text(text)
            done = subprocess.run([sys.executable, f"{examples}/glue", folder], capture_output=True,
                                  text=True, check=False)
            if done.returncode != code:
                print(f"ended with {done.returncode}, not {code}: {text[:60]!r}\n{done.stdout}{done.stderr}")
            return done.stdout if done.returncode == code else None

    line = "call();\n"
    marked = "// glue begin\n{}// glue end\n".format
    right = says(line + marked(line * 40 + "\n// why\n/* or\nwhy */\n") + line, 0)
    c = says("/* glue begin */\n" + line * 3 + "/* glue end */\n" + line, 0)
    caught = [says(marked(line * 41), 1), says(line, 1), says("// glue begin\n" + line, 1),
              says("// glue end\n" + line + "// glue begin\n", 1),
              says(marked(line * 20) + marked(line * 21), 1)]
    counted = right and " 40 " in right and c and " 3 " in c
    return 0 if counted and all(caught) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
