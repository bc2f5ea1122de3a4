"""Gradient statistics on calibration data. Importing it does not import torch."""

from harness.scores.calibration import load_rows
from harness.scores.gradients import compute
from harness.scores.samples import Against

__all__ = ["Against", "compute", "load_rows"]
