"""What a plugin author imports, and nothing else. Importing it does not import torch."""

from harness import vml
from harness.errors import HarnessError
from harness.method import Cut, Layout, Need, Reduce, TensorGroup, Threshold, merge_method
from harness.task import Score, benchmark, generated, scorer
from harness.values import param

__version__ = "0.1.0"

vml.watch()

__all__ = [
    "Cut",
    "HarnessError",
    "Layout",
    "Need",
    "Reduce",
    "Score",
    "TensorGroup",
    "Threshold",
    "benchmark",
    "generated",
    "merge_method",
    "param",
    "scorer",
]
