"""Equal budgets: who is tuned over what; spaces that do not fit are told before any work."""

import pytest
from click.testing import CliRunner

from harness import registry
from harness.cli import main
from harness.errors import HarnessError
from harness.family import load_family
from harness.sweep import equal, grid

PAPER = {"task_arithmetic": {"scale": 0.3}, "ties": {"density": 0.1, "scale": 0.3},
         "led": {"p": 0.1, "scale": 1.0},
         "dare": {"density": 0.1, "scale": 0.3}, "reasonany": {"p": 0.05, "scale": 1.0}}  # fmt: skip


def family(**changes):
    return load_family("tiny-safety").model_copy(update=changes)


def test_every_space_fits_its_method_and_holds_the_papers_settings():
    known = equal.spaces(family())
    assert set(known) <= set(registry.find("methods"))
    for method, axes in known.items():
        grid.check(method, axes, {})
        for key, value in PAPER.get(method, {}).items():
            assert axes[key].low <= value <= axes[key].high
    streaming = set(registry.streaming_methods())
    assert streaming - set(known) == {"linear"}, "linear has no setting; a new method needs a space"


def test_rows_that_differ_only_in_what_is_searched_are_one_contender():
    tuned, kept = equal.contenders(family(), family().rows())
    assert [one.label for one in tuned] == ["task_arithmetic", "ties", "dare", "led", "reasonany"]
    assert [row.label for row in kept] == ["linear"] and all(one.fixed == {} for one in tuned)
    other = family(
        methods={"ties": {}, "ties (mergekit)": {"method": "ties", "profile": "mergekit", "scale": 0.5}}
    )
    tuned, _ = equal.contenders(other, other.rows())
    assert [(one.label, one.fixed) for one in tuned] == [
        ("ties", {}),
        ("ties (mergekit)", {"profile": "mergekit"}),
    ]


def test_a_familys_own_space_comes_first():
    own = family(tune={"ties": {"density": [0.2, 0.4]}, "linear": {"normalize": [True, False]}})
    tuned, kept = equal.contenders(own, own.rows())
    by_label = {one.label: one.axes for one in tuned}
    assert by_label["ties"] == {"density": [0.2, 0.4]} and by_label["linear"] == {"normalize": [True, False]}
    assert kept == [] and "dare" in by_label
    off = family(tune={"ties": {}})
    assert "ties" in [row.label for row in equal.contenders(off, off.rows())[1]]


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ({"tiess": {"scale": "0:1"}}, "`tune:` names `tiess`"),
        ({"ties": {"lambda": "0:1"}}, "no parameter `lambda`"),
        ({"ties": {"density": "0:7"}}, "out of range"),
        ({"ties": {"density": []}}, "no values of `density`"),
        ({"ties": {"density": "1:0"}}, "empty range"),
    ],
)
def test_a_space_that_does_not_fit_is_refused(tune, message):
    own = family(tune=tune)
    with pytest.raises(HarnessError, match=message):
        equal.contenders(own, own.rows())


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--search", "tpe"], "--search without a budget"),
        (["--tune-on", "test"], "--tune-on without a budget"),
        (["--equal-budget", "2", "--tune-on", "test"], "numbers that are reported"),
        (["--equal-budget", "0"], "0 is not in the range"),
        (["--equal-budget", "2", "--seeds", "2", "--plan"], "does not go with --seeds, --plan"),
        (["--equal-budget", "2", "--executor", "ray"], "does not go with --executor"),
        (["--equal-budget", "2", "--methods", "linear"], "none of these methods"),
        (["--equal-budget", "2", "--objective", "tiny_chan"], "no column is called `tiny_chan`"),
    ],
)
def test_what_does_not_go_together_is_two_lines(workdir, args, told):
    result = CliRunner().invoke(main, ["compare", *args])
    assert result.exit_code == 2 and told in result.stderr and len(result.stderr.strip().splitlines()) == 2
    assert not (workdir / "results").exists()
