"""Is a cosine the same in every process? Forks that compute a rotary table as their first torch function, in
turns as torch is and after `harness.vml.settle`:

    python benchmarks/first_calls.py --forks 12000 --beside 4
"""

from __future__ import annotations

import argparse
import os
import runpy
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch

# By its path: importing the package would settle torch here, and so in every fork.
SETTLE = runpy.run_path(str(Path(__file__).parents[1] / "harness" / "vml.py"))["settle"]
FREQUENCIES = [10000.0 ** (-i / 16) for i in range(16)]


def table() -> torch.Tensor:
    """Cosines of 512 positions and a head of 32, of which every thread computes a part."""
    return (torch.arange(512.0)[:, None] * torch.tensor(FREQUENCIES)).cos()


def cold() -> bool:
    """Is the first table of a process another than its second?"""
    return not torch.equal(table(), table())


def settled() -> bool:
    SETTLE(torch)
    return cold()


def in_a_fork(work: Callable[[], bool]) -> int:
    child = os.fork()
    if child == 0:
        os._exit(work())
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def storm(turns: int) -> tuple[int, int]:
    """How many of `turns` forks were wrong: (cold, settled)"""
    found = [(in_a_fork(cold), in_a_fork(settled)) for _ in range(turns)]
    return sum(one for one, _ in found), sum(other for _, other in found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--forks", type=int, default=12000)
    parser.add_argument("--beside", type=int, default=4, help="processes that fork at once")
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    turns = given.forks // 2 // given.beside
    with get_context("fork").Pool(given.beside) as pool:
        found = pool.map(storm, [turns] * given.beside, chunksize=1)
    for name, wrong in zip(("cold", "settled"), map(sum, zip(*found, strict=True)), strict=True):
        print(f"{name}: the first table is wrong in {wrong} of {turns * given.beside} processes")


if __name__ == "__main__":
    main()
