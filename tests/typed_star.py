"""What ``from smoothloss import *`` gives a type checker. ``make types`` checks it."""

import mlx.core as mx

from smoothloss import *

x = mx.zeros(3)
value: mx.array = huber_loss(x, x, delta=1.0)
module: LossModule = HuberLoss(2.0)
norm: RobustNorm = RobustNorm(huber_loss)
reduction: Reduction = "mean"
data: Array = x
