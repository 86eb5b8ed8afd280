"""What a type checker sees of the public names. ``make types`` checks it; nothing runs it."""

from typing import Literal

import mlx.core as mx

import smoothloss as sl

x = mx.zeros(3)
loss = sl.SmoothL1Loss(beta=0.5, size_average=False)
value: mx.array = loss(x, x, weights=2.0, axis=(0,))
reduction: Literal["none", "mean", "sum"] = loss.reduction
beta: mx.array = sl.Learned(1.0).value
both = sl.AdaptiveLoss(alpha=sl.Learned(mx.ones(3), high=2.0), scale=mx.ones(3))
plain: mx.array = sl.huber_loss(x, x, mx.ones(3), where=x > 0)

# An ignored error that is none is an error, too.
sl.SmoothL1Loss(delta=1.0)  # type: ignore[call-arg]
sl.HuberLoss(1.0, "average")  # type: ignore[arg-type]
sl.QuantileLoss("0.9")  # type: ignore[arg-type]
loss(x)  # type: ignore[call-arg]
loss.reduction = "average"  # type: ignore[assignment]
sl.huber_loss(x, x, reduction="average")  # type: ignore[arg-type]
