"""Every loss as a function, under the names of ``mlx.nn.losses`` where MLX has it.

``import smoothloss.losses as losses`` is a drop-in for ``import mlx.nn.losses as losses``, as far
as regression losses go.
"""

from .adaptive import adaptive_loss
from .arctan import arctan_loss
from .berhu import berhu_loss
from .cauchy import cauchy_loss
from .charbonnier import charbonnier_loss
from .epsilon_insensitive import epsilon_insensitive_loss
from .expectile import expectile_loss
from .fair import fair_loss
from .geman_mcclure import geman_mcclure_loss
from .general import general_loss
from .huber import huber_loss
from .l1 import l1_loss
from .log_cosh import log_cosh_loss
from .mse import mse_loss
from .pseudo_huber import pseudo_huber_loss
from .quantile import quantile_loss
from .quantile_huber import quantile_huber_loss
from .smooth_l1 import smooth_l1_loss
from .squared_epsilon_insensitive import squared_epsilon_insensitive_loss
from .student_t import student_t_loss
from .tukey import tukey_loss
from .welsch import welsch_loss

__all__ = [
    "adaptive_loss",
    "arctan_loss",
    "berhu_loss",
    "cauchy_loss",
    "charbonnier_loss",
    "epsilon_insensitive_loss",
    "expectile_loss",
    "fair_loss",
    "geman_mcclure_loss",
    "general_loss",
    "huber_loss",
    "l1_loss",
    "log_cosh_loss",
    "mse_loss",
    "pseudo_huber_loss",
    "quantile_huber_loss",
    "quantile_loss",
    "smooth_l1_loss",
    "squared_epsilon_insensitive_loss",
    "student_t_loss",
    "tukey_loss",
    "welsch_loss",
]
