"""Tables on the terminal: no number is cut, however many columns there are."""

import pytest

from harness.verbs import tables


@pytest.mark.parametrize("count", [1, 5, 13, 40])
@pytest.mark.parametrize("keep", [1, 2])
def test_wide_tables_are_split_and_every_cell_is_whole(capsys, count, keep):
    names = ["", "objective", *(f"a column {i} ↑" for i in range(count))][2 - keep :]
    rows = [
        ([f"row {r}, p=0.1", f"{r}.5", *(f"{r}{i:03}.25 ± 10.5" for i in range(count))][2 - keep :], "")
        for r in (1, 2)
    ]
    tables.show(names, rows, keep=keep)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= tables.NARROWEST for line in lines) and "…" not in "".join(lines)
    for r in (1, 2):
        own = [line for line in lines if rows[r - 1][0][0] in line]
        assert all(line.startswith(rows[r - 1][0][0]) for line in own) and (len(own) > 1) == (count >= 13)
        told = " ".join(own)
        assert [told.count(f"{r}{i:03}.25 ± 10.5") for i in range(count)] == [1] * count
    assert all(sum(f"a column {i} " in line for line in lines) == 1 for i in range(count))


def test_a_label_with_brackets_is_no_markup(capsys):
    tables.show(["", "x"], [(["interval=[0,0.05]", "[bold]"], "")])
    assert "interval=[0,0.05]" in (out := capsys.readouterr().out) and "[bold]" in out
