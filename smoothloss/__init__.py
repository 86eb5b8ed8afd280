"""Robust regression losses for MLX: pure functions with hand-derived derivatives."""

from .losses.huber import huber_loss as huber_loss
from .losses.l1 import l1_loss as l1_loss
from .losses.mse import mse_loss as mse_loss
from .losses.smooth_l1 import smooth_l1_loss as smooth_l1_loss

__version__ = "0.1.0"

__all__ = [name for name in dir() if name.endswith("_loss") and name[0] != "_"]
