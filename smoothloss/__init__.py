"""Robust regression losses for MLX: pure functions with hand-derived derivatives.

Losses of the residual r = predictions - targets. Each is a function and a class of ``mlx.nn``
(``huber_loss`` and ``HuberLoss``, say):

    mse_loss                          the square of the residual, whose minimum is the mean
    l1_loss                           the absolute error, whose minimum is the median
    smooth_l1_loss                    quadratic within beta, linear with slope 1 beyond
    huber_loss                        quadratic within delta, linear with slope delta beyond
    berhu_loss                        the absolute error within delta, quadratic beyond
    pseudo_huber_loss                 Huber's loss without a kink
    fair_loss                         quadratic near zero, linear far out, in a slow turn
    log_cosh_loss                     quadratic near zero, linear far out, with nothing to tune
    charbonnier_loss                  the absolute error with a rounded tip
    expectile_loss                    the squared error, tilted, whose minimum is an expectile
    quantile_loss                     two slopes, whose minimum is a quantile
    quantile_huber_loss               the quantile loss, quadratic within kappa
    epsilon_insensitive_loss          the absolute error beyond epsilon, 0 within
    squared_epsilon_insensitive_loss  the squared error beyond epsilon, 0 within
    cauchy_loss                       quadratic near zero, logarithmic far out
    student_t_loss                    quadratic near zero, logarithmic far out, with tails to choose
    geman_mcclure_loss                quadratic near zero, constant far out
    arctan_loss                       quadratic near zero, constant beyond a scale or two
    welsch_loss                       quadratic near zero, constant beyond a few scales
    tukey_loss                        quadratic near zero, constant beyond c
    general_loss                      from the squared error to Welsch's loss by one number, alpha
    adaptive_loss                     a likelihood that learns how robust to be, with the model

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
from .losses.arctan import ArctanLoss, arctan_loss
from .losses.berhu import BerhuLoss, berhu_loss
from .losses.cauchy import CauchyLoss, cauchy_loss
from .losses.charbonnier import CharbonnierLoss, charbonnier_loss
from .losses.epsilon_insensitive import EpsilonInsensitiveLoss, epsilon_insensitive_loss
from .losses.expectile import ExpectileLoss, expectile_loss
from .losses.fair import FairLoss, fair_loss
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
from .losses.squared_epsilon_insensitive import (
    SquaredEpsilonInsensitiveLoss,
    squared_epsilon_insensitive_loss,
)
from .losses.student_t import StudentTLoss, student_t_loss
from .losses.tukey import TukeyLoss, tukey_loss
from .losses.welsch import WelschLoss, welsch_loss

__version__ = "0.1.0"

# One name a line: type checkers and documentation tools read this list, and a test holds it to the
# losses that there are.
__all__ = [
    "AdaptiveLoss",
    "ArctanLoss",
    "Array",
    "Axis",
    "BerhuLoss",
    "CauchyLoss",
    "CharbonnierLoss",
    "EpsilonInsensitiveLoss",
    "ExpectileLoss",
    "FairLoss",
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
    "SquaredEpsilonInsensitiveLoss",
    "StudentTLoss",
    "Threshold",
    "Traits",
    "TukeyLoss",
    "WelschLoss",
    "adaptive_loss",
    "arctan_loss",
    "berhu_loss",
    "cauchy_loss",
    "charbonnier_loss",
    "check_loss",
    "epsilon_insensitive_loss",
    "expectile_loss",
    "exportable",
    "fair_loss",
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
    "squared_epsilon_insensitive_loss",
    "student_t_loss",
    "total_weight",
    "tukey_loss",
    "vector_loss",
    "welsch_loss",
]
