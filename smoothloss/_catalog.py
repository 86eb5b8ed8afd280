"""The list of losses, read off the public functions: tests, benchmarks and documentation use it."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass

import mlx.core as mx

import smoothloss

from ._loss import Loss
from ._modules import LossModule


@dataclass(frozen=True)
class Entry:
    """One public loss function with its record and its class."""

    name: str
    function: Callable[..., mx.array]
    loss: Loss

    @property
    def module(self) -> type[LossModule]:
        """The class of that loss."""
        return next(c for c in LossModule.__subclasses__() if c._function is self.function)

    @property
    def signature(self) -> inspect.Signature:
        return inspect.signature(self.function)

    @property
    def data_names(self) -> tuple[str, str]:
        first, second, *_ = self.signature.parameters
        return first, second

    @property
    def threshold_names(self) -> tuple[str, ...]:
        return tuple(t.name for t in self.loss.thresholds)


def catalog() -> tuple[Entry, ...]:
    """Every loss of the public namespace, by name."""
    return tuple(
        Entry(name, function, sys.modules[function.__module__].LOSS)
        for name, function in sorted(vars(smoothloss).items())
        if name.endswith("_loss") and inspect.isfunction(function)
    )
