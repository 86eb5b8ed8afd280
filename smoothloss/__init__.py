"""Robust regression losses for MLX: pure functions with hand-derived derivatives."""

from ._learned import Learned as Learned
from ._norm import RobustNorm as RobustNorm
from .losses.adaptive import AdaptiveLoss as AdaptiveLoss, adaptive_loss as adaptive_loss
from .losses.cauchy import CauchyLoss as CauchyLoss, cauchy_loss as cauchy_loss
from .losses.charbonnier import (
    CharbonnierLoss as CharbonnierLoss,
    charbonnier_loss as charbonnier_loss,
)
from .losses.geman_mcclure import (
    GemanMcClureLoss as GemanMcClureLoss,
    geman_mcclure_loss as geman_mcclure_loss,
)
from .losses.general import GeneralLoss as GeneralLoss, general_loss as general_loss
from .losses.huber import HuberLoss as HuberLoss, huber_loss as huber_loss
from .losses.l1 import L1Loss as L1Loss, l1_loss as l1_loss
from .losses.log_cosh import LogCoshLoss as LogCoshLoss, log_cosh_loss as log_cosh_loss
from .losses.mse import MSELoss as MSELoss, mse_loss as mse_loss
from .losses.pseudo_huber import (
    PseudoHuberLoss as PseudoHuberLoss,
    pseudo_huber_loss as pseudo_huber_loss,
)
from .losses.quantile import QuantileLoss as QuantileLoss, quantile_loss as quantile_loss
from .losses.quantile_huber import (
    QuantileHuberLoss as QuantileHuberLoss,
    quantile_huber_loss as quantile_huber_loss,
)
from .losses.smooth_l1 import SmoothL1Loss as SmoothL1Loss, smooth_l1_loss as smooth_l1_loss
from .losses.welsch import WelschLoss as WelschLoss, welsch_loss as welsch_loss

__version__ = "0.1.0"

__all__ = [
    "Learned",
    "RobustNorm",
    *(name for name in dir() if name.lower().endswith("loss") and name[0] != "_"),
]
