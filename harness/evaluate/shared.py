"""Whether a folder lies on a file system that several machines may share. Light."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from harness.errors import HarnessError, nearest

SETTING = "HARNESS_STORE"  # `local` or `network` overrules what the file system says of itself
CHOICES = ("local", "network")
# `f_type` of statfs(2): Linux' magic.h, and the file systems' own sources for those outside the kernel.
MAGIC = {
    0x6969: "NFS", 0xFF534D42: "CIFS", 0xFE534D42: "SMB2", 0x517B: "SMB", 0x0BD00BD0: "Lustre",
    0x47504653: "GPFS", 0x19830326: "BeeGFS", 0x00C36400: "Ceph", 0x5346414F: "AFS", 0x6B414653: "kAFS",
    0x01021997: "9P", 0xAAD7AAEA: "PanFS", 0x01161970: "GFS2", 0x7461636F: "OCFS2", 0x73757245: "Coda",
    0x65735546: "FUSE", 0x20030528: "OrangeFS", 0x786F4256: "vboxsf",
}  # fmt: skip


def on_network(folder: Path) -> bool:
    """By `HARNESS_STORE` where it is set, else by the file system. FUSE counts as a network: it cannot be
    told what is behind it. OSError where there is no such folder."""
    chosen = os.environ.get(SETTING)
    if chosen:
        if chosen not in CHOICES:
            raise HarnessError(f"`{SETTING}` is `{chosen}`", nearest(chosen, CHOICES))
        return chosen == "network"
    return file_system(folder) is not None


def file_system(folder: Path) -> str | None:
    """The name of the network file system that a folder is on; None for a local one, and off Linux."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    room = ctypes.create_string_buffer(512)  # struct statfs is 120 bytes; its first word is `f_type`
    if libc.statfs(os.fsencode(folder), room):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(folder))
    return MAGIC.get(ctypes.c_long.from_buffer(room).value & 0xFFFFFFFF)
