"""Benchmark data: a local copy in the official layout, or the hub at a pinned revision. Light at import."""

from harness.data.read import load
from harness.data.source import Source, home, local_files, missing, repository

__all__ = ["Source", "home", "load", "local_files", "missing", "repository"]
