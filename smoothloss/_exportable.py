"""The switch that builds losses of MLX's own operations alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_ACTIVE: ContextVar[bool] = ContextVar("smoothloss.exportable", default=False)

active: Callable[[], bool] = _ACTIVE.get
"""Whether :func:`exportable` is on, in this thread and task."""


@contextlib.contextmanager
def exportable() -> Iterator[None]:
    r"""Build losses that MLX can export, and compile for data of changing shape.

    Inside, every loss is made of MLX's own operations, with the same value, gradient and second
    derivative. Outside, it is an ``mx.custom_function``, for which ``mx.compile(step,
    shapeless=True)`` raises "CustomTransforms cannot infer output shapes", and
    ``mx.export_function`` "Unable to serialize primitive CustomTransforms".

    With r0 the residual r without its gradient, and :math:`d = r - r_0`, which is 0, a loss is

    .. math:: \rho(r_0) + d\,\big(\psi(r_0) + \tfrac12 d\,\psi'(r_0)\big)

    and likewise in thresholds that are arrays.

    Returns
    -------
    context manager
        For a ``with`` statement, or a decorator of the function that is traced.

    Notes
    -----
    What counts is when MLX *traces* a function: at the first call of a compiled one, and inside
    ``mx.export_function``. So wrap that call, or the body of the function, or decorate it. A
    function that was traced outside stays as it is.

    The losses can be nested in any transform inside, and the switch in itself; it holds for the
    current thread and asyncio task, and ends with the block, with or without an exception.

    What differs from the losses outside:

    - Means and sums are MLX's own ``mx.mean`` and ``mx.sum``, in float64 on the CPU. Of an array
      that is empty when the function *runs* the mean is NaN.
    - A derivative that overflows is the largest float instead of infinite. Second derivatives at
      infinite residuals are 0, and so is the derivative by an infinite threshold.
    - At NaN, the second derivative is a number for :func:`mse_loss`, :func:`l1_loss`,
      :func:`smooth_l1_loss` and :func:`huber_loss`. Third derivatives are 0 where a loss gives its
      first and second.
    - Compiled, the losses that ``mlx.nn`` has too take about as long as there, which is up to ten
      times as long as outside.

    Shapes are checked when a function is traced, not when it runs. A loss of your own must not read
    ``r.shape`` in its formulas: it would be that of the trace. Trace with two elements or more
    along every axis whose length changes: MLX leaves a sum over one element out of the trace.

    References
    ----------
    .. [1] MLX, "Exporting Functions",
       https://ml-explore.github.io/mlx/build/html/usage/export.html

    Examples
    --------
    >>> import mlx.core as mx
    >>> import smoothloss as sl
    >>> @sl.exportable()
    ... def loss(x, y):
    ...     return sl.huber_loss(x, y, reduction="mean")
    >>> step = mx.compile(mx.value_and_grad(loss), shapeless=True)
    >>> step(mx.array([1.0, 3.0]), mx.zeros(2))
    (array(1.5, dtype=float32), array([0.5, 0.5], dtype=float32))
    >>> step(mx.array([1.0, 3.0, -1.0, 0.0]), mx.zeros(4))
    (array(0.875, dtype=float32), array([0.25, 0.25, -0.25, 0], dtype=float32))
    """
    token = _ACTIVE.set(True)
    try:
        yield
    finally:
        _ACTIVE.reset(token)
