"""Robust regression losses for MLX: pure functions with hand-derived derivatives."""

from ._norm import RobustNorm as RobustNorm
from .losses.adaptive import adaptive_loss as adaptive_loss
from .losses.cauchy import cauchy_loss as cauchy_loss
from .losses.charbonnier import charbonnier_loss as charbonnier_loss
from .losses.geman_mcclure import geman_mcclure_loss as geman_mcclure_loss
from .losses.general import general_loss as general_loss
from .losses.huber import huber_loss as huber_loss
from .losses.l1 import l1_loss as l1_loss
from .losses.log_cosh import log_cosh_loss as log_cosh_loss
from .losses.mse import mse_loss as mse_loss
from .losses.pseudo_huber import pseudo_huber_loss as pseudo_huber_loss
from .losses.quantile import quantile_loss as quantile_loss
from .losses.quantile_huber import quantile_huber_loss as quantile_huber_loss
from .losses.smooth_l1 import smooth_l1_loss as smooth_l1_loss
from .losses.welsch import welsch_loss as welsch_loss

__version__ = "0.1.0"

__all__ = [
    "RobustNorm",
    *(name for name in dir() if name.endswith("_loss") and name[0] != "_"),
]
