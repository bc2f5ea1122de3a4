"""`index.html`: the table as a page with its samples and figures, in one file that opens from disk."""

from pathlib import Path

from harness.page import write

ASSETS = Path(__file__).with_suffix("")


def render(board, folder):
    """Write `folder/index.html`; above 20 MB the answers go into chunks in `folder/samples/`."""
    return write(board, folder, ASSETS)
