"""Robust regression losses for MLX: pure functions with hand-derived derivatives.

Losses of the residual r = predictions - targets. Each is a function and a class of ``mlx.nn``
(``huber_loss`` and ``HuberLoss``, say):

    mse_loss             the square of the residual, whose minimum is the mean
    l1_loss              the absolute error, whose minimum is the median
    smooth_l1_loss       quadratic within beta, linear with slope 1 beyond
    huber_loss           quadratic within delta, linear with slope delta beyond
    pseudo_huber_loss    Huber's loss without a kink
    log_cosh_loss        quadratic near zero, linear far out, with nothing to tune
    charbonnier_loss     the absolute error with a rounded tip
    quantile_loss        two slopes, whose minimum is a quantile
    quantile_huber_loss  the quantile loss, quadratic within kappa
    cauchy_loss          quadratic near zero, logarithmic far out
    geman_mcclure_loss   quadratic near zero, constant far out
    welsch_loss          quadratic near zero, constant beyond a few scales
    general_loss         from the squared error to Welsch's loss by one number, alpha
    adaptive_loss        a likelihood that learns how robust to be, with the model

Call one as ``huber_loss(predictions, targets, delta=1.0, reduction="mean")``. Every function also
takes ``weights``, ``where`` and ``axis``; ``help(smoothloss.huber_loss)`` describes them all.
``smoothloss.losses`` has the functions alone, as ``mlx.nn.losses`` has them.

Building blocks:

    Loss                 a loss of your own, made of its rho; every function carries one, as .loss
    Threshold            one of its thresholds: name, default, valid interval
    Traits               facts about it: convex, redescending, kinks, bound of the gradient
    LossModule           the base class of losses as modules
    Learned              a threshold that is trained and stays in its range
    RobustNorm           rho, psi, weight function and psi' of a loss; efficiency and its threshold
    irls                 robust linear regression by reweighting, many at once
    RobustFit            its coefficients, scale and weights, and whether it converged
    mad                  median absolute deviation, a robust scale
    vector_loss          any loss of the length of a vector, with the right derivatives at 0
    check_loss           compares given derivatives with finite differences
    global_mean          the mean of a loss over several machines, or over micro-batches
    total_weight         what that mean is divided by
    exportable           builds losses for mx.export_function and shapeless mx.compile

``Array``, ``Axis``, ``Learnable``, ``Number``, ``Parameter`` and ``Reduction`` are the types of
the arguments.
"""

from ._checking import check_loss
from ._distributed import global_mean, total_weight
from ._exportable import exportable
from ._irls import RobustFit, irls
from ._learned import Learned
from ._loss import Loss
from ._modules import Learnable, LossModule
from ._robust import RobustNorm
from ._scale import mad
from ._threshold import Threshold
from ._traits import Traits
from ._types import Array, Axis, Number, Parameter, Reduction
from ._vector import vector_loss
from .losses.adaptive import AdaptiveLoss, adaptive_loss
from .losses.cauchy import CauchyLoss, cauchy_loss
from .losses.charbonnier import CharbonnierLoss, charbonnier_loss
from .losses.geman_mcclure import GemanMcClureLoss, geman_mcclure_loss
from .losses.general import GeneralLoss, general_loss
from .losses.huber import HuberLoss, huber_loss
from .losses.l1 import L1Loss, l1_loss
from .losses.log_cosh import LogCoshLoss, log_cosh_loss
from .losses.mse import MSELoss, mse_loss
from .losses.pseudo_huber import PseudoHuberLoss, pseudo_huber_loss
from .losses.quantile import QuantileLoss, quantile_loss
from .losses.quantile_huber import QuantileHuberLoss, quantile_huber_loss
from .losses.smooth_l1 import SmoothL1Loss, smooth_l1_loss
from .losses.welsch import WelschLoss, welsch_loss

__version__ = "0.1.0"

# One name a line: type checkers and documentation tools read this list, and a test holds it to the
# losses that there are.
__all__ = [
    "AdaptiveLoss",
    "Array",
    "Axis",
    "CauchyLoss",
    "CharbonnierLoss",
    "GemanMcClureLoss",
    "GeneralLoss",
    "HuberLoss",
    "L1Loss",
    "Learnable",
    "Learned",
    "LogCoshLoss",
    "Loss",
    "LossModule",
    "MSELoss",
    "Number",
    "Parameter",
    "PseudoHuberLoss",
    "QuantileHuberLoss",
    "QuantileLoss",
    "Reduction",
    "RobustFit",
    "RobustNorm",
    "SmoothL1Loss",
    "Threshold",
    "Traits",
    "WelschLoss",
    "adaptive_loss",
    "cauchy_loss",
    "charbonnier_loss",
    "check_loss",
    "exportable",
    "geman_mcclure_loss",
    "general_loss",
    "global_mean",
    "huber_loss",
    "irls",
    "l1_loss",
    "log_cosh_loss",
    "mad",
    "mse_loss",
    "pseudo_huber_loss",
    "quantile_huber_loss",
    "quantile_loss",
    "smooth_l1_loss",
    "total_weight",
    "vector_loss",
    "welsch_loss",
]
