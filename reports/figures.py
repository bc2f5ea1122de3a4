"""`figures/`: reasoning against the domain, masks by module, cost of the merges; each in four formats."""

from harness.figures import cost, masks, scatter, write

OF_A_BOARD = {"reasoning-domain": scatter, "masks": masks, "cost": cost}


def render(board, folder):
    """Write `folder/figures/NAME.{pdf,svg,json,csv}`; a figure without data is left out."""
    written = []
    for name, figure in OF_A_BOARD.items():
        written += write(figure, name, figure.rows(board), folder / "figures")
    return written
