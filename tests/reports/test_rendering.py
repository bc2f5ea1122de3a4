"""Reports are written whole, each of one table only, and one that fails costs nothing but itself."""

import copy
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boards
import pytest

from harness.board import read_board
from harness.errors import HarnessError
from harness.screen import Screen
from harness.store import whole
from harness.verbs.rendering import write_reports

ROOT = Path(__file__).parents[2]


@pytest.fixture
def plugins(workdir):
    """`plugins(name, body)` writes a report whose `render(board, folder)` has that body."""
    (workdir / "reports").mkdir()

    def add(name, body):
        text = f"from pathlib import Path\n\n\ndef render(board, folder):\n    {body}\n"
        (workdir / "reports" / f"{name}.py").write_text(text)
        return name

    return add


def write(board, folder, *names, **more):
    with Screen() as screen:
        return write_reports(board, folder, screen, names, **more)


def other():
    board = boards.rich()
    board.title = "another run"
    return board


def test_a_table_of_another_run_is_never_called_current(tmp_path, monkeypatch):
    """Interrupted between two reports, the first has the other run's table; the next run writes it anew."""
    report = tmp_path / "report"
    write(boards.rich(), report, "markdown", "csv")
    kept = (report / "table.md").read_text()

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("harness.typeset.tidy._row", stopped)
        with pytest.raises(KeyboardInterrupt):
            write(other(), report, "markdown", "csv")
    assert "another run" in (report / "table.md").read_text()
    assert not list(report.rglob("*.tmp"))
    write(boards.rich(), report, "markdown", "csv")
    assert (report / "table.md").read_text() == kept


def test_a_report_that_fails_leaves_no_older_table(tmp_path, plugins, capsys):
    name = plugins("picky", "(folder / 'p.txt').write_text(board.title)\n"
                   "    assert board.title != 'another run'\n    return [folder / 'p.txt']")  # fmt: skip
    report = tmp_path / "report"
    assert write(boards.rich(), report, name, "json") == 0 and (report / "p.txt").is_file()
    assert write(other(), report, name, "json") == 1 and not (report / "p.txt").exists()
    assert read_board(report / "board.json").title == "another run"
    told = capsys.readouterr()
    assert "picky" in told.err + told.out and "picky.py:6" in told.err + told.out
    assert write(boards.rich(), report, name, "json") == 0
    assert (report / "p.txt").read_text() == boards.rich().title


def test_what_a_report_no_longer_writes_goes(tmp_path, plugins):
    name = plugins("some", "paths = [folder / f'{r.label}.txt' for r in board.rows]\n"
                   "    [p.write_text('x') for p in paths]\n    return paths")  # fmt: skip
    report, board = tmp_path / "report", boards.rich()
    write(board, report, name, "details", "latex")
    assert {"TIES.txt", "details.md", "details.tex", "table-kept.tex"} <= set(os.listdir(report))
    board.rows = [row for row in board.rows if row.label != "TIES"]
    for row in board.rows:
        for cell in row.cells.values():
            cell.kept, cell.stderr, cell.interval, cell.sd, cell.test = (None,) * 5
    board.details, board.settings = {}, {}
    write(board, report, name, "details", "latex")
    left = set(os.listdir(report))
    assert "base.txt" in left and not left & {"TIES.txt", "details.md", "details.tex", "table-kept.tex"}


def test_a_figure_without_data_leaves_no_older_one_nor_does_the_page_show_it(tmp_path):
    report, board = tmp_path / "fam" / "report", boards.rich()
    write(board, report, "figures", "html")
    assert (report / "figures" / "reasoning-domain.svg").is_file()
    assert "reasoning-domain" in (report / "index.html").read_text()
    for row in board.rows:
        row.cells = {key: cell for key, cell in row.cells.items() if key[0] in ("gsm8k", "math500")}
    write(board, report, "html")  # the page alone: what it shows is of this table all the same
    assert not list((report / "figures").iterdir())
    assert "reasoning-domain" not in (report / "index.html").read_text()


def test_figures_and_details_remove_what_they_do_not_write(tmp_path):
    from harness import registry

    board = boards.rich()
    for name in ("figures", "details"):
        assert registry.report(name)(board, tmp_path)
    board.rows, board.details, board.settings = [], {}, {}
    for name in ("figures", "details"):
        assert registry.report(name)(board, tmp_path) == []
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_report_that_changes_the_board_changes_no_other(tmp_path, plugins):
    name = plugins("aaa", "board.rows[0].cells.clear(); board.title = board.family = 'mine'\n    return []")
    report, board = tmp_path / "report", boards.rich()
    before = copy.deepcopy(board).to_json()
    assert write(board, report, name, "csv", "json") == 0
    assert (report / "board.json").read_text() == before == board.to_json()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return ['a.txt']", "it returned ['a.txt']"),
        ("return None", "it returned None"),
        ("return [folder / 'absent.txt']", "absent.txt, which is no file"),
        ("return [folder / '..' / 'x.txt']", "which is not in"),
        ("return [Path('/etc/hostname')]", "/etc/hostname, which is not in"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise MemoryError('much')", "MemoryError: much"),
        ("import absent_module", "ModuleNotFoundError"),
    ],
)
def test_a_report_that_misbehaves_is_named_and_the_others_are_written(tmp_path, plugins, capfd, body, told):
    name, report = plugins("aaa", body), tmp_path / "report"
    (tmp_path / "x.txt").write_text("mine")
    assert write(boards.rich(), report, name, "markdown", "json") == 1
    said = " ".join("".join(capfd.readouterr()).split())
    assert "✗ report aaa" in said and told in said and "hint: " in said
    assert (report / "table.md").is_file() and read_board(report / "board.json").family == "qwen7b-safety"
    assert (tmp_path / "x.txt").read_text() == "mine"


OUTSIDE = '{"csv": {"mark": "x", "files": ["../mine.txt", "/tmp/mine.txt"]}}'


@pytest.mark.parametrize("text", ["[]", "{", '{"csv": 3}', '{"csv": {"mark": "x"}}', '"x"', OUTSIDE])
def test_a_damaged_record_costs_nothing(tmp_path, text):
    report = tmp_path / "report"
    report.mkdir()
    (tmp_path / "mine.txt").write_text("mine")
    (report / "rendered.json").write_text(text)
    assert write(boards.rich(), report, "csv") == 0 and (report / "table.csv").is_file()
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_a_kill_never_leaves_half_a_board(tmp_path):
    """Killed again and again while it writes, `board.json` is whole each time, and what was left goes."""
    report = tmp_path / "report"
    code = (
        "import sys; sys.path[:0] = [sys.argv[1], sys.argv[2]]\n"
        "import boards, pathlib\n"
        "from harness.screen import Screen\n"
        "from harness.verbs.rendering import write_reports\n"
        "board = boards.rich()\n"
        "board.footnotes = ['x' * 200_000] * 20\n"
        "print('go', flush=True)\n"
        "while True:\n"
        "    board.title += '.'\n"
        "    write_reports(board, pathlib.Path(sys.argv[3]), Screen(), ['json'])\n"
    )
    given = [sys.executable, "-c", code, str(ROOT), str(ROOT / "tests" / "reports"), str(report)]
    for pause in (0.02, 0.05, 0.11, 0.17):
        child = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        child.stdout.readline()
        time.sleep(pause)
        child.send_signal(signal.SIGKILL)
        child.wait()
        if (report / "board.json").exists():
            assert len(read_board(report / "board.json").footnotes) == 20
    for left in report.rglob("*.tmp"):
        os.utime(left, (0, 0))
    write(boards.rich(), report, "json")
    assert not list(report.rglob("*.tmp"))
    assert read_board(report / "board.json").title == boards.rich().title


def test_two_that_write_into_one_folder_wait_for_each_other(tmp_path):
    """Whoever comes last has written everything: no file is of another table than the rest."""
    report, names = tmp_path / "report", ("markdown", "csv", "json", "latex")
    tables = []
    for number in range(4):
        board = boards.rich()
        board.title = board.rows[0].label = f"run-{number}"
        tables.append(board)
    threads = [threading.Thread(target=write, args=(board, report, *names)) for board in tables]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    last = read_board(report / "board.json").title
    for file in ("table.md", "table.csv", "table-body.tex"):
        text = (report / file).read_text()
        assert last in text and not [t.title for t in tables if t.title != last and t.title in text]
    assert set(json.loads((report / "rendered.json").read_text())) == set(names)


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "report").write_text("a file")
    with pytest.raises(HarnessError, match="cannot write .*report"):
        write(boards.rich(), tmp_path / "report", "csv")


def test_figures_may_be_drawn_where_another_process_renders(tmp_path):
    """Two sweeps of one store: what one draws is not taken for what a kill left."""
    done = threading.Event()

    def drawing():
        try:
            for _ in range(300):
                with whole(tmp_path / "figures" / "sweep.csv") as part:
                    part.write_text("points")
        finally:
            done.set()

    (tmp_path / "figures").mkdir()
    with ThreadPoolExecutor(1) as pool:
        drawn = pool.submit(drawing)
        while not done.is_set():
            write(boards.rich(), tmp_path, "csv")
        drawn.result()
    assert not list(tmp_path.rglob("*.tmp"))
