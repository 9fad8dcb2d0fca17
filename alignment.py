"""What align.py found inside the models, for comparison with the paper: Tables 2 and 4, Figures 6 and 7."""

from pathlib import Path

import paper
from common import UserError
from results import Fitted


def hidden_states(fitted: Fitted) -> dict[tuple[str, float], list[float]]:
    """Cosine after each layer by (vocab, share of L1), of runs of one stage at 1x that align.py has looked at."""
    return {}


FIGURES: dict = {}


def draw(number: int, fitted: Fitted, path: Path) -> None:
    """Draw Figure 6 or 7."""
    raise UserError(f"Figure {number} {paper.SIZE}")
