"""`harness check`: the built-in methods keep the contract, and each way of breaking it is found."""

import pytest
from click.testing import CliRunner

from harness import contract, registry
from harness.cli import main

HEAD = 'from harness import merge_method, param\n\n\n@merge_method("mine", title="Mine")\nclass Mine:\n'
SCALE = '    scale: float = param(0.5, "scaling coefficient", low=0, high=2, noop=0.0)\n'
BODY = "    def merge(self, group, state):\n"
GOOD = HEAD + SCALE + BODY + "        return group.base + self.scale * sum(group.deltas.values())\n"


def check(folder, text):
    (folder / "mine.py").write_text(text)
    return CliRunner().invoke(main, ["check", "./mine.py"])


@pytest.mark.parametrize("name", ["linear", "task_arithmetic", "ties", "dare", "led", "reasonany"])
def test_built_in_methods_keep_every_promise(name):
    findings = list(contract.check(registry.method(name)))
    assert len(findings) >= 6
    assert [f for f in findings if f.fault] == []


def test_a_good_file_passes(workdir):
    result = check(workdir, GOOD)
    assert result.exit_code == 0 and "0 broken" in result.output, result.output


@pytest.mark.parametrize(
    ("text", "promise"),
    [
        (GOOD.replace("return group.base", "return group.base[1:]"), "merges 1 experts"),
        (GOOD.replace("        return", "        group.base.add_(1)\n        return"), "merges 1 experts"),
        (GOOD.replace("return group.base +", "return group.base + 0.5 +"), "is the base, bit for bit"),
        (GOOD.replace("self.scale * sum", "group.base.mean() * sum"), "another block size"),
        (GOOD.replace("return group.base", "return group.base.clone().uniform_()"), "run again"),
        (GOOD.replace("high=2", "high=9").replace("self.scale *", "[1, 2][int(self.scale)] *"), "range, 9"),
        (GOOD.replace(', low=0, high=2, noop=0.0', ""), "`scale` is declared"),
        (GOOD.replace('"scaling coefficient"', '""'), "`scale` is declared"),
        (GOOD.replace("sum(group.deltas.values())", "group.deltas['task']"), "merges 1 experts"),
    ],
    ids=["length", "writes inputs", "no-op", "block", "random", "range", "no range", "no help", "roles"],
)  # fmt: skip
def test_each_breach_is_found(workdir, text, promise):
    result = check(workdir, text)
    assert result.exit_code == 1, result.output
    assert any("✗" in line and promise in line for line in result.output.splitlines()), result.output


def test_a_file_that_does_not_load_is_two_lines(workdir):
    result = check(workdir, "import nosuch\n")
    assert result.exit_code == 2 and len(result.stderr.strip().splitlines()) == 2
