"""What MLX makes of a layer with a bias in a shapeless trace: errors where the rows change.

Run as ``python benchmarks/addmm.py``. Each try has a process of its own, since it may crash.
"""

from __future__ import annotations

import subprocess
import sys

TRY = """
import sys
import mlx.core as mx

form, rows = sys.argv[1], int(sys.argv[2])
normal = mx.random.normal
w, b = normal((3, 8)), normal((8,))
forms = {"addmm": lambda x: mx.addmm(b, x, w), "x @ w + b": lambda x: x @ w + b}
mx.eval(w, b)
f = mx.compile(forms[form], shapeless=True)
mx.eval(f(normal((3, 3))))
x = normal((rows, 3))
print(mx.abs(f(x) - (x @ w + b)).max().item())
"""


def main() -> None:
    for form in ("addmm", "x @ w + b"):
        for rows in (2, 4, 30, 1000):
            run = subprocess.run(
                [sys.executable, "-c", TRY, form, str(rows)],
                capture_output=True,
                text=True,
                check=False,
            )
            found = run.stdout.strip() or f"ended with code {run.returncode}"
            print(f"{form}, traced with 3 rows, run with {rows}: largest error {found}")


if __name__ == "__main__":
    main()
