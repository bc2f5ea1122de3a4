"""`board.json`: the whole table model; `harness.board.read_board` reads it back."""


def render(board, folder):
    """Write `folder/board.json`."""
    path = folder / "board.json"
    path.write_text(board.to_json(), encoding="utf-8", errors="replace")
    return [path]
