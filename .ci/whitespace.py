"""Whether files end with one line's end, and no line with blanks: ``python3 .ci/whitespace.py FILE ...``."""

import pathlib
import sys

wrong = []
for name in sys.argv[1:]:
  content = pathlib.Path(name).read_bytes()
  lines = content.split(b"\n")
  wrong += [
    f"{name}:{i + 1}: trailing blanks" for i, line in enumerate(lines) if line != line.rstrip(b" \t\r")
  ]
  if content and (lines[-1] or not lines[-2:][0]):
    wrong.append(f"{name}: must end with one line's end")
sys.exit("\n".join(wrong) or 0)
