"""Time every loss against mlx.nn.losses, the roofline and whatever else is installed.

All of a row is measured in one run, one after the other, on whatever device MLX has; outputs are
checked to be equal first. The columns:

  call    "-" is the compiled value-and-grad of the mean; else what differs from it. A row without
          "forward" is a value-and-grad, one without "eager" is compiled.
  us, ns/el   medians of ours
  roof    ours as a multiple of the cheapest MLX graphs that read two arrays and write one, and that
          sum one. Below 1 where ours is one call and they are two, or where ours needs less memory.
  B/el    the peak of memory that a call allocates, its results included, in bytes per element
  k       fused kernels of the data in the compiled graph (eager: none)
  ratios  their time over ours: above 1, ours is faster. Median and quartiles, call by call.

Quote the ratios, and not those of --quick: machines differ and drift.
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from itertools import chain
from pathlib import Path

HERE = Path(__file__).parent


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=HERE / "mine" / "results",
        help="where to write, less suffix (default: beside no file that the docs quote)",
    )
    parser.add_argument(
        "--seconds", type=float, default=0.5, help="the budget of a row (default: 0.5)"
    )
    parser.add_argument(
        "--largest", type=int, default=10**8, help="leave out what has more elements"
    )
    parser.add_argument("--smallest", type=int, default=1, help="leave out what has fewer")
    parser.add_argument("--loss", action="append", help="this loss alone; may be repeated")
    parser.add_argument("--update", action="store_true", help="keep the other rows of the file")
    parser.add_argument("--cores", type=int, help="pin everything to the first so many cores")
    parser.add_argument("--headline", action="store_true", help="compiled value-and-grad alone")
    parser.add_argument("--call-sites", action="store_true", help="calls of real programs alone")
    parser.add_argument("--quick", action="store_true", help="few calls of small arrays")
    return parser.parse_args()


def pin(cores: int) -> None:
    """Before any library counts the cores, keep every thread on the first ``cores``."""
    if not hasattr(os, "sched_setaffinity"):
        raise SystemExit(f"--cores {cores}: only Linux can pin; leave it out.")
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    os.environ["OMP_NUM_THREADS"] = str(cores)


def first_calls() -> list[dict[str, object]]:
    """What the first compiled result takes, on a CPU: the time of g++."""
    import mlx.core as mx
    import mlx.nn as nn
    import report
    import workloads
    from measure import first_call

    firsts: list[dict[str, object]] = []
    for loss in workloads.LOSSES if mx.default_device().type == mx.DeviceType.cpu else ():
        name = workloads.Workload(loss, 1).threshold_name or ""
        # 5 are enough for a library that compiles kernels for each.
        for module, thresholds in (("smoothloss", 100), ("mlx.nn.losses", 5)):
            if module != "smoothloss" and not hasattr(nn.losses, loss):
                continue
            found = first_call(module, loss, name, thresholds if name else 0)
            firsts.append({"loss": loss, "library": module.removesuffix(".losses"), **found})
            print(report.first_line(firsts[-1]), flush=True)
    return firsts


def main() -> None:
    given = options()
    if given.cores:
        pin(given.cores)
    given.out.parent.mkdir(parents=True, exist_ok=True)

    import mlx.core as mx
    import report
    import workloads
    from measure import measure

    def chosen() -> Iterator[workloads.Workload]:
        if given.quick:
            yield from workloads.headline((4096,), ("float32",))
            yield from (replace(w, compiled=False) for w in workloads.variants(4096))
            return
        if given.call_sites:
            yield from workloads.call_sites()
            return
        yield from workloads.headline()
        if not given.headline:
            yield from chain(workloads.grid(), workloads.variants())

    machine = {
        "mlx": version("mlx"),
        "device": str(mx.default_device()),
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": given.cores or os.cpu_count(),
    }
    print(", ".join(f"{k} {v}" for k, v in machine.items()))
    print(report.HEADER, flush=True)
    rows = []
    for workload in chosen():
        if given.loss and workload.loss not in given.loss:
            continue
        if given.smallest <= workload.n <= given.largest:
            rows.append(measure(workload, 0.0 if given.quick else given.seconds))
            print(report.line(rows[-1]), flush=True)
    firsts: list[dict[str, object]] = []
    if given.update:
        rows, firsts = report.updated(given.out.with_suffix(".json"), rows)
    elif not (given.quick or given.headline or given.call_sites):
        firsts = first_calls()
    report.write(
        given.out.with_suffix(".json"), {"machine": [machine], "rows": rows, "first": firsts}
    )
    if given.call_sites:
        print(f"\n{report.sites(rows)}\nWritten: {given.out}.json")
        return
    caption = f"Compiled value-and-grad of the mean, MLX {machine['mlx']}, {machine['device']}"
    report.picture(rows, given.out.with_suffix(".png"), caption)
    if given.quick:
        print("Small arrays, few calls: to see that it runs, not to quote.")
    print(f"\n{report.markdown(rows)}\nWritten: {given.out}.json, {given.out}.png")


if __name__ == "__main__":
    main()
