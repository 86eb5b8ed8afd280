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

scale: mx.array = sl.mad(x, axis=-1, center=0.0)
fit: sl.RobustFit = sl.irls(x[:, None], x, sl.HuberLoss(1.345), scale=sl.mad, start="l1")
coefficients: mx.array = sl.irls(x[:, None], x, sl.huber_loss, scale=1.0, start=x).coefficients
tuned: float = sl.RobustNorm(sl.huber_loss).tuning(0.95)
of_vectors: mx.array = sl.vector_loss(sl.huber_loss, x, x, "none", vector_axis=0, delta=2.0)

named: mx.array = loss(inputs=x, targets=x)
record: sl.Loss = sl.HuberLoss.loss
weight: mx.array = sl.RobustNorm(loss).weight(x)
norms = [sl.RobustNorm(sl.huber_loss), sl.RobustNorm(record), sl.RobustNorm(sl.HuberLoss)]

fair = sl.Loss(
    "fair_loss",
    lambda r, c: c * mx.abs(r) - c * c * mx.log1p(mx.abs(r) / c),
    thresholds=[sl.Threshold("c", default=2.0, open_low=True)],
    partials={("r", "c"): lambda r, c: r / c},
)
own: mx.array = fair(x, x, c=2.0, reduction="mean", where=x > 0)


group: mx.distributed.Group = mx.distributed.init()
total: mx.array = sl.total_weight(x, where=x > 0, group=group)
share: mx.array = sl.global_mean(sl.huber_loss, x, x, where=x > 0, total=total, delta=2.0)
for one in (loss, record, sl.HuberLoss, sl.huber_loss):
    over_all: mx.array = sl.global_mean(one, x, x, weights=x, axis=0, group=group)


class FairLoss(sl.LossModule):
    """A class of it."""

    loss = fair


of_class: mx.array = FairLoss(c=2.0)(x, x)

# An ignored error that is none is an error, too.
sl.SmoothL1Loss(delta=1.0)  # type: ignore[call-arg]
sl.HuberLoss(1.0, "average")  # type: ignore[arg-type]
sl.QuantileLoss("0.9")  # type: ignore[arg-type]
loss(x)  # type: ignore[call-overload]
loss.reduction = "average"  # type: ignore[assignment]
sl.global_mean(sl.huber_loss(x, x), x, x)  # type: ignore[arg-type]
sl.huber_loss(x, x, reduction="average")  # type: ignore[arg-type]
sl.irls(x[:, None], x, sl.huber_loss, start="ols")  # type: ignore[arg-type]
