"""Every format of two hand-made boards, to the byte; a change shows in the diff of `golden/`.

python tests/reports/test_golden_reports.py     writes the files anew
"""

import io
import json
import sys
import tempfile
from pathlib import Path

import pytest
from rich.console import Console

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import boards  # noqa: E402

from harness import registry  # noqa: E402

GOLDEN = Path(__file__).parent / "golden"
MADE = {"rich": boards.rich, "wide": boards.wide, "hostile": boards.hostile}
PRINTED, DATA = ("markdown", "latex", "details"), ("csv", "json")


def rendered(board):
    """File name -> text of every format; of the wide board, of those that set it out."""
    with tempfile.TemporaryDirectory() as temporary:
        folder, found = Path(temporary), {}
        data = board.family != "wide"
        for name in PRINTED + DATA * data:
            for path in registry.report(name)(board, folder):
                found[path.name] = path.read_bytes().decode("utf-8")
        if data:
            found["table.parquet.json"] = parquet(registry.report("parquet")(board, folder)[0])
    for width in (80, 140):
        found[f"terminal-{width}.txt"] = terminal(board, width)
    return found


def terminal(board, width):
    report = registry.report("terminal")
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=True, width=width, highlight=False, color_system="truecolor", _environ={}
    )
    sys.modules[report.__module__].show(console, board)
    return out.getvalue().replace("\x1b", "␛")


def parquet(path):
    """Types and rows as text: the bytes of the file are the library's."""
    from pyarrow.parquet import read_table

    table = read_table(path)
    types = {field.name: str(field.type) for field in table.schema}
    return json.dumps({"types": types, "rows": table.to_pylist()}, indent=1, ensure_ascii=False) + "\n"


@pytest.mark.parametrize("name", MADE)
def test_every_format_is_the_golden_one(name):
    found = rendered(MADE[name]())
    kept = {path.name: path.read_bytes().decode("utf-8") for path in (GOLDEN / name).iterdir()}
    assert set(found) == set(kept)
    for file, text in found.items():
        assert text == kept[file], f"{name}/{file} changed; see the top of this file"


def test_rendering_twice_gives_the_same():
    assert rendered(boards.rich()) == rendered(boards.rich())


if __name__ == "__main__":
    for name, make in MADE.items():
        folder = GOLDEN / name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
        for file, text in rendered(make()).items():
            (folder / file).write_bytes(text.encode("utf-8"))
            print(folder / file)
