"""What is timed: a loss, its data and the way it is called."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from smoothloss import Loss, losses

LOSSES: dict[str, Loss] = {name: getattr(losses, name).loss for name in losses.__all__}
DTYPES = ("float32", "float16", "bfloat16")
HEADLINE = (1 << 16, 1 << 20, 1 << 24)
GRID = (1, 16, 256, 4096, *HEADLINE, 10**8)
FEATURES = 1024


@dataclass(frozen=True)
class Workload:
    """One row of the table. The default is the headline: a compiled value-and-grad of the mean."""

    loss: str
    n: int
    dtype: str = "float32"
    gradient: bool = True
    compiled: bool = True
    reduction: str = "mean"
    threshold: str = "number"  # or "scalar": a 0-d array; or "channel": one for each feature
    weights: bool = False
    where: bool = False
    batched: bool = False

    @property
    def record(self) -> Loss:
        """The loss."""
        return LOSSES[self.loss]

    @property
    def threshold_name(self) -> str | None:
        """Of the threshold that is varied, which is the one in the units of the residual."""
        return next((t.name for t in self.record.thresholds if t.has_residual_units), None)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the data."""
        return (self.n // FEATURES, FEATURES) if self.batched else (self.n,)

    @property
    def label(self) -> str:
        """What differs from the headline, in words."""
        words = [
            "" if self.compiled else "eager",
            "" if self.gradient else "forward",
            "" if self.reduction == "mean" else f"reduction={self.reduction}",
            "" if self.threshold == "number" else f"{self.threshold} threshold",
            "weights" if self.weights else "",
            "where" if self.where else "",
            "2-D" if self.batched else "",
        ]
        return ", ".join(filter(None, words)) or "-"


@dataclass(frozen=True)
class Data:
    """The arrays of a workload, in float32; those it does not use are None."""

    x: NDArray[np.float32]
    y: NDArray[np.float32]
    threshold: NDArray[np.float32] | float | None
    weights: NDArray[np.float32] | None
    where: NDArray[np.bool_] | None


def data(workload: Workload) -> Data:
    rng = np.random.default_rng(workload.n)
    shape = workload.shape
    threshold: NDArray[np.float32] | float | None = None
    if workload.threshold_name:
        thresholds: dict[str, NDArray[np.float32] | float] = {
            "number": 1.0,
            "scalar": np.array(1.0, np.float32),
            "channel": rng.uniform(0.5, 1.5, shape[-1:]).astype(np.float32),
        }
        threshold = thresholds[workload.threshold]
    return Data(
        rng.standard_normal(shape, np.float32),
        rng.standard_normal(shape, np.float32),
        threshold,
        rng.uniform(0.5, 1.5, shape).astype(np.float32) if workload.weights else None,
        rng.random(shape, np.float32) < 0.8 if workload.where else None,
    )


def headline(
    sizes: tuple[int, ...] = HEADLINE, dtypes: tuple[str, ...] = DTYPES
) -> Iterator[Workload]:
    """Every loss in every dtype."""
    for loss in LOSSES:
        for dtype in dtypes:
            for n in sizes:
                yield Workload(loss, n, dtype)


def grid(sizes: tuple[int, ...] = GRID) -> Iterator[Workload]:
    """Every size, forward and value-and-grad, compiled and eager."""
    for loss in LOSSES:
        for compiled in (True, False):
            for gradient in (True, False):
                for n in sizes:
                    if not (compiled and gradient and n in HEADLINE):
                        yield Workload(loss, n, compiled=compiled, gradient=gradient)


def variants(n: int = 1 << 20) -> Iterator[Workload]:
    """Every argument that a loss takes, one at a time."""
    for loss in LOSSES:
        base = Workload(loss, n)
        yield replace(base, reduction="none")
        yield replace(base, reduction="none", gradient=False)
        yield replace(base, weights=True)
        yield replace(base, where=True)
        yield replace(base, weights=True, where=True)
        yield replace(base, batched=True)
        if base.threshold_name:
            yield replace(base, threshold="scalar")
            yield replace(base, threshold="channel", batched=True)
