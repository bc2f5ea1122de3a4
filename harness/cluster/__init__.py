"""`--executor ray`: a plan carried out by the machines of a Ray cluster, on a store that all of them see.

Ray places the steps, by the CPUs, GPUs and memory that each needs; this package says what is to be done.
Plans hold classes that were loaded by path, so none is sent: a worker is told what was asked (`order`), makes
the plan again, and finds its step by its folder and key.

Light: Ray is imported when a run begins.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.cluster.session import Session
    from harness.store import Store

EXECUTORS = ("local", "ray")


@contextlib.contextmanager
def chosen(
    executor: str, address: str | None, store: Store, keep_weights: str = "all"
) -> Iterator[Session | None]:
    """A connection to the Ray cluster at `address` (None: the one that RAY_ADDRESS names, or one started here
    for this run), its nodes checked on `store`; None for `local`. HarnessError, before any work, where Ray is
    not installed, the cluster cannot be reached or its nodes do not fit together."""
    if executor == "local":
        if address is not None:
            raise HarnessError(f"--address {address} is of a Ray cluster", "give `--executor ray` with it")
        yield None
        return
    if find_spec("ray") is None:
        raise HarnessError("Ray is not installed", "`pip install 'merge-harness[ray]'` on every node")
    if keep_weights == "none":
        raise HarnessError(
            "--keep-weights none keeps merges in the memory of one machine, and other nodes do not see that",
            "leave it out with `--executor ray`; `harness clean --weights` deletes them afterwards",
        )
    from harness.cluster.session import connected

    with connected(address) as session:
        session.check(store)
        yield session
