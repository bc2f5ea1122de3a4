"""Gradient statistics on calibration data. Importing it does not import torch."""

from harness.scores.calibration import load_rows
from harness.scores.gradients import compute

__all__ = ["compute", "load_rows"]
