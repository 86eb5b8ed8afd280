"""How the pictures of the notebooks look."""

from __future__ import annotations

import matplotlib.pyplot as plt
from cycler import cycler

# Of Okabe and Ito, told apart by colour-blind eyes.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#222222")
GREY = "#888888"


def style() -> None:
    """Set colours, grid, fonts, and a resolution that is light in git."""
    plt.rcParams.update(
        {
            "axes.prop_cycle": cycler(color=COLOURS),
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#dddddd",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "figure.dpi": 80,
            "figure.constrained_layout.use": True,
            "font.size": 11,
            "legend.frameon": False,
        }
    )
