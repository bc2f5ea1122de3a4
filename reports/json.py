"""`board.json`: the whole table model; `harness.board.read_board` reads it back."""

from harness.store import write_text


def render(board, folder):
    """Write `folder/board.json`."""
    path = folder / "board.json"
    write_text(path, board.to_json(), errors="replace")
    return [path]
