"""What lm-eval's own command writes of a tiny checkpoint."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def evaluated(to, tasks, limit):
    """Its results file for the tiny reasoning expert; the samples lie beside it."""
    model = ROOT / "harness" / "families" / "tiny" / "reasoning"
    given = {"--model": "hf", "--model_args": f"pretrained={model},dtype=float32", "--device": "cpu",
             "--include_path": ROOT / "tasks", "--tasks": tasks, "--limit": limit,
             "--output_path": to}  # fmt: skip
    options = [str(part) for pair in given.items() for part in pair]
    command = [sys.executable, "-m", "lm_eval", *options, "--apply_chat_template", "--log_samples"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-2000:]
    (file,) = to.rglob("results_*.json")
    return file
