"""Holds every public name of the installed package to a complete type. ``make types`` runs it.

MLX does not mark ``mlx.nn`` as typed, so a strict reader takes the base class of our modules for
unknown, and with it whatever is a module. Nothing else may be.
"""

import json
import subprocess
import sys
from pathlib import Path

MODULE = ("Type of metaclass unknown", "Type of base class", "Learned")


def main() -> None:
    """Run the checker, and fail with what is unknown."""
    checker = Path(sys.executable).with_name("basedpyright")
    run = subprocess.run(
        [checker, "--verifytypes", "smoothloss", "--ignoreexternal", "--outputjson"],
        capture_output=True,
        text=True,
        check=False,
    )
    report = json.loads(run.stdout)["typeCompleteness"]
    counts = report["exportedSymbolCounts"]
    public = [s for s in report["symbols"] if s["isExported"]]
    if not public:
        raise SystemExit("the package was not found")
    unknown = {
        f"{symbol['name']}: {d['message']}"
        for symbol in public
        for d in symbol["diagnostics"]
        if not symbol["isTypeKnown"] and not any(word in d["message"] for word in MODULE)
    }
    if unknown:
        raise SystemExit("\n".join(["These have no known type:", *sorted(unknown)]))
    ours = sum(counts.values()) - counts["withUnknownType"]
    print(f"{ours} of {sum(counts.values())} known; the rest are modules of mlx.nn")


if __name__ == "__main__":
    main()
