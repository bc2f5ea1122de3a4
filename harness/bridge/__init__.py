"""Other people's merge methods, run by their own code in a child process: mergekit's.

`definitions` says what mergekit registers, `settings` turns a definition into parameters of ours and into
mergekit's configuration, `merging` makes the checkpoint, `child` is the process that imports mergekit. Only
the child imports mergekit, torch or transformers.
"""

from harness.bridge.definitions import Definition, Parameter, definition, names
from harness.bridge.merging import build
from harness.bridge.settings import check, check_roles, degenerate, fields

__all__ = [
    "Definition",
    "Parameter",
    "build",
    "check",
    "check_roles",
    "definition",
    "degenerate",
    "fields",
    "names",
]
