"""What is timed: a loss, its data and the way it is called."""

from __future__ import annotations

import math
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
    dims: tuple[int, ...] = ()  # where a program has more axes

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
        if self.dims:
            return self.dims
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
            str(self.dims) if self.dims else "",
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

    @property
    def factors(self) -> NDArray[np.float32] | NDArray[np.bool_] | None:
        """What the losses are multiplied by where masks are factors: weights or mask."""
        return self.weights if self.where is None else self.where


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


# As programs in MLX call it: DQN and SAC agents, SSD and box heads, diffusion, audio, molecules,
# world models. The shape, the dtype and what else they pass.
CALL_SITES: tuple[tuple[str, tuple[int, ...], str, str], ...] = (
    ("mse_loss", (128,), "float32", ""),
    ("huber_loss", (32,), "float32", ""),
    ("mse_loss", (256,), "float32", ""),
    ("mse_loss", (128, 1), "float32", ""),
    ("huber_loss", (256, 1), "float32", "weights"),
    ("mse_loss", (1000, 10), "float32", ""),
    ("mse_loss", (2048,), "float32", ""),
    ("smooth_l1_loss", (512, 4), "float32", ""),
    ("smooth_l1_loss", (256, 64), "float32", ""),
    ("mse_loss", (4, 1024, 100), "float32", "where"),
    ("mse_loss", (128, 64, 64, 1), "float32", ""),
    ("l1_loss", (256,), "float32", ""),
    ("l1_loss", (8, 80, 500), "float32", ""),
    ("mse_loss", (1, 4096, 64), "bfloat16", ""),
    ("huber_loss", (4, 8096, 4), "float32", "where"),
    ("smooth_l1_loss", (4, 4, 3, 128, 128), "float32", ""),
)


def call_sites() -> Iterator[Workload]:
    """Calls of real programs, eager and compiled, forward and with the gradient."""
    for loss, dims, dtype, extra in CALL_SITES:
        base = Workload(loss, math.prod(dims), dtype, dims=dims)
        base = replace(base, weights=extra == "weights", where=extra == "where")
        for compiled in (False, True):
            for gradient in (False, True):
                yield replace(base, compiled=compiled, gradient=gradient)
