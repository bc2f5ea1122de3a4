"""What the machine has: cores, memory, GPUs, room on the disks. Light: asks nvidia-smi, not torch."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

MIB = 1 << 20


@dataclass(frozen=True)
class Gpu:
    """One GPU. Bytes; `name` as its driver gives it."""

    name: str
    total: int
    free: int


@dataclass(frozen=True)
class Machine:
    """`memory` and `available` are bytes of host memory; `gpus` those that a run would use."""

    cores: int
    memory: int
    available: int
    gpus: tuple[Gpu, ...]

    @property
    def device(self) -> str:
        return "gpu" if self.gpus else "cpu"

    def on(self, device: str) -> Machine:
        """The same with the GPUs that `--device` leaves: none for `cpu`, one for `cuda:1`."""
        if device in ("auto", "cuda"):
            return self
        number = int(device.partition(":")[2] or 0)
        return replace(self, gpus=self.gpus[number : number + 1] if device != "cpu" else ())


def machine() -> Machine:
    """This machine, as this process may use it (a control group's limit counts)."""
    total, free = host_memory()
    return Machine(len(os.sched_getaffinity(0)), total, free, gpus())


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that `CUDA_VISIBLE_DEVICES` leaves, () without a driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    query = [tool, "--query-gpu=index,uuid,name,memory.total,memory.free", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(query, capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    found = {}
    for line in told.strip().splitlines():
        parts = [part.strip() for part in line.split(",")]
        with contextlib.suppress(ValueError, IndexError):
            found[parts[0], parts[1]] = Gpu(parts[2], int(parts[3]) * MIB, int(parts[4]) * MIB)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return tuple(found.values())
    wanted = [name.strip() for name in visible.split(",") if name.strip()]
    return tuple(
        gpu for (index, uuid), gpu in found.items() if any(w == index or uuid.startswith(w) for w in wanted)
    )


def host_memory() -> tuple[int, int]:
    """Bytes of memory that this process may use in all, and now."""
    held = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            held[name] = int(rest.split()[0]) * 1024
    total = held.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    free = held.get("MemAvailable", total)
    limit, used = _group("memory.max"), _group("memory.current")
    if limit is not None:
        total, free = min(total, limit), min(free, max(0, limit - (used or 0)))
    return total, free


def _group(name: str) -> int | None:
    """A figure of this process's control group (version 2), None where it has none or no limit."""
    with contextlib.suppress(OSError, ValueError):
        lines = Path("/proc/self/cgroup").read_text().splitlines()
        path = next(line[3:] for line in lines if line.startswith("0::"))
        return int(Path("/sys/fs/cgroup" + path.rstrip("/"), name).read_text())
    return None


def disk(folder: Path) -> tuple[int, int]:
    """(a number that tells disks apart, free bytes) of the disk where `folder` is, or would be made."""
    folder = folder.expanduser().absolute()
    while not folder.exists():
        folder = folder.parent
    told = os.statvfs(folder)
    return os.stat(folder).st_dev, told.f_bavail * told.f_frsize


def held(folder: Path) -> int:
    """Bytes of disk that the files below `folder` take; 0 where there is none."""
    taken = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):  # another process may be at work there
                taken += os.lstat(os.path.join(place, name)).st_blocks * 512
    return taken
