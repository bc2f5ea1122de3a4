"""Checkpoints: read safetensors, check that models fit together, write merged ones in place.

Importing this package imports neither torch nor numpy; `harness.checkpoint.blocks` does.
"""

from harness.checkpoint.fit import check_fit, matched
from harness.checkpoint.identity import fingerprint
from harness.checkpoint.read import Checkpoint, TensorInfo, natural_key

__all__ = ["Checkpoint", "TensorInfo", "check_fit", "fingerprint", "matched", "natural_key"]
