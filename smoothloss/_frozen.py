"""Modules of which some arrays are kept but never trained."""

from __future__ import annotations

from mlx.nn.layers.base import Module


class PartlyFrozen(Module):
    """A module of which some arrays stay frozen, whatever ``unfreeze`` is asked of its model.

    ``unfreeze`` of a model does not call that of the modules inside: it changes their ``_no_grad``.
    """

    def _always_frozen(self) -> set[str]:
        raise NotImplementedError

    @property
    def _no_grad(self) -> set[str]:
        # A set of its own for each copy, which MLX changes in place.
        names: set[str] = self.__dict__.get("_no_grad", set()) | self._always_frozen()
        self.__dict__["_no_grad"] = names
        return names

    @_no_grad.setter
    def _no_grad(self, names: set[str]) -> None:
        self.__dict__["_no_grad"] = names
