"""Studies, searches and equal budgets as whole commands: what they leave, again elsewhere, and killed."""

import csv
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

SEED = int(os.environ.get("HARNESS_KILL_SEED", "11"))
STUDY = """title: a small one of every kind
method: reasonany
rows: {as it is: {}, twice: {scale: 2.0}}
grid: {scale_reasoning: [0.5, 1.0]}
spread: scale_reasoning
claims:
- {sentence: Twice is better, row: {row: twice}, than: {row: as it is}, group: Reasoning}
- {sentence: It hardly matters, row: {row: twice}, than: {row: as it is}, within: 0.2}
- {sentence: It is steadier, row: {row: twice}, than: {row: as it is}, steadier_over: scale_reasoning}
"""
LESS = ["--tasks", "tiny_chain,tiny_refusal", "--limit", "8"]
COMMANDS = {
    "study": ["study", "./mine.yaml"],
    "sweep": ["sweep", "reasonany", "--grid", "scale=0:2", "--grid", "p=log:0.01:0.5", "--search", "tpe",
              "--budget", "5", "--tune-on", "test", "--allow-test"],
    "budget": ["compare", "--methods", "linear,ties,task_arithmetic", "--equal-budget", "2"],
}  # fmt: skip
COSTS = {"merge_seconds", "peak_mib", "model_folder", "eval_folder", "eval_folders"}


@dataclass(frozen=True)
class Run:
    """One command in a folder of its own."""

    what: str
    cwd: Path

    def start(self) -> subprocess.Popen:
        self.cwd.mkdir(parents=True, exist_ok=True)
        (self.cwd / "mine.yaml").write_text(STUDY)
        command = [sys.executable, "-m", "harness.cli", *COMMANDS[self.what], *LESS]
        files = [(self.cwd / name).open("w") for name in ("out.txt", "err.txt")]
        try:
            return subprocess.Popen(
                command, cwd=self.cwd, stdout=files[0], stderr=files[1], start_new_session=True
            )
        finally:
            for file in files:
                file.close()

    def finish(self) -> float:
        """Seconds that it took."""
        begun = time.monotonic()
        assert self.start().wait() == 0, (self.cwd / "err.txt").read_text()
        return time.monotonic() - begun

    def kill(self, after: float) -> None:
        """Start, and end the whole process group after some seconds."""
        child = self.start()
        time.sleep(after)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()

    @property
    def folder(self) -> Path:
        found = [p for k in ("studies", "sweeps", "equal-budget") for p in self.cwd.glob(f"results/*/{k}/*")]
        (only,) = found
        return only

    def left(self) -> dict[str, object]:
        """File -> contents, without what it cost and where it lay; and what was printed."""
        found: dict[str, object] = {"stdout": (self.cwd / "out.txt").read_text()}
        for path in sorted(p for p in self.folder.rglob("*") if p.is_file()):
            name = str(path.relative_to(self.folder))
            if name == "table.csv":
                found[name] = [{k: v for k, v in line.items() if k not in COSTS} for line in rows(path)]
            elif path.suffix != ".lock" and name not in ("board.json", "rendered.json", ".lock"):
                found[name] = path.read_bytes()
        return found


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module", params=list(COMMANDS))
def undisturbed(request, tmp_path_factory):
    run = Run(request.param, tmp_path_factory.mktemp(request.param))
    return run, run.finish()


@pytest.mark.slow
def test_killed_twice_it_leaves_the_same(undisturbed, tmp_path):
    usual, seconds = undisturbed
    run, draw = Run(usual.what, tmp_path / "killed"), random.Random(f"{usual.what} {SEED}")
    partial = {"study": "rows.csv"}.get(usual.what, "trials.csv")
    final = rows(usual.folder / partial)
    for _ in range(2):
        run.kill(draw.uniform(0.3, 1.0) * seconds)
        for path in run.cwd.glob(f"results/*/*/*/{partial}"):
            so_far = rows(path)
            assert len(so_far) <= len(final) and list(so_far[0]) == list(final[0])
            for line, whole in zip(so_far, final, strict=False):  # what is there stays
                assert all(value in ("", "0", whole[key]) for key, value in line.items()), (line, whole)
    run.finish()
    assert "Traceback" not in (run.cwd / "err.txt").read_text()
    left, wanted = run.left(), usual.left()
    assert list(left) == list(wanted) and len(wanted) > 5
    assert [name for name in wanted if left[name] != wanted[name]] == []


@pytest.mark.slow
def test_what_they_say_of_themselves(undisturbed):
    run, _ = undisturbed
    told, table = (run.cwd / "out.txt").read_text(), (run.folder / "table.md").read_text()
    if run.what == "study":
        assert [line["row"] for line in rows(run.folder / "rows.csv")] == ["as it is"] * 2 + ["twice"] * 2
        claims = rows(run.folder / "claims.csv")
        assert len(claims) == 3 and all(line["verdict"].endswith(" here") and line["n"] for line in claims)
        for line in claims:
            assert re.search(rf"{line['verdict']} +{line['sentence']}", told)
            assert f"{line['sentence']}: {line['verdict']}" in table
        assert {line["row"] for line in rows(run.folder / "spread.csv")} == {"as it is", "twice"}
        assert "mean ± standard deviation over 2 values of scale_reasoning" in told
    elif run.what == "sweep":
        warned = "the settings were compared on the test split: the best of them is no fair estimate"
        assert warned in " ".join(told.split()) and warned in table
        trials = rows(run.folder / "trials.csv")
        assert len(trials) == 5 and all(line["value"] and line["limit"] == "8" for line in trials)
        best = yaml.safe_load((run.folder / "best.yaml").read_text())
        top = max(trials, key=lambda line: float(line["value"]))
        assert best["method"] == "reasonany" and best["scale"] == float(top["scale"])
    else:
        trials = rows(run.folder / "trials.csv")
        assert [line["row"] for line in trials] == ["ties"] * 2 + ["task_arithmetic"] * 2
        best = yaml.safe_load((run.folder / "best.yaml").read_text())["methods"]
        for name, settings in best.items():
            own = [line for line in trials if line["row"] == name]
            top = max(own, key=lambda line: float(line["value"]))
            assert settings["scale"] == float(top["scale"])
        assert "equal budget: 2 trials of each method" in table and "on the validation split" in table
        assert "without a space to search: linear" in table and len(rows(run.folder / "table.csv")) > 5
