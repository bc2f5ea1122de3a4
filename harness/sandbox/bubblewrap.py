"""The command lines that start a confined Python: through `bwrap`, or bare where the user allowed that."""

from __future__ import annotations

import functools
import importlib.util
import itertools
import os
import shutil
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

from harness.sandbox import seccomp

FIRST_USER, USERS = 30000, 30000  # ids that sandboxes started by root run as, one after the other
SITE = "/site"  # where the optional packages appear inside
OPTIONAL_PACKAGES = ("numpy",)
FLAGS = ("-s", "-P", "-S", "-B", "-X", "utf8")  # no site-packages, no .pth files, no bytecode, UTF-8
ENVIRONMENT = {
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",  # the same verdict whenever it is asked for
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
_lock = threading.Lock()
_users = itertools.count()


def interpreter() -> str:
    """The Python behind `sys.executable`, past any virtual environment."""
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def python(arguments: list[str]) -> list[str]:
    """The interpreter with the text of `inside.py` as its program."""
    return [interpreter(), *FLAGS, "-c", _inside(), *arguments]


@functools.cache
def _inside() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")


def optional_packages() -> dict[str, Path]:
    """name -> folder of what a program may import besides the standard library, where it is installed."""
    found = {}
    for name in OPTIONAL_PACKAGES:
        spec = importlib.util.find_spec(name)
        folders = [Path(p) for p in (spec.submodule_search_locations or [])] if spec else []
        for folder in [*folders[:1], *(f.with_name(f"{name}.libs") for f in folders[:1])]:
            if folder.is_dir():
                found[folder.name] = folder
    return found


def next_user() -> int:
    """An id of its own for a sandbox when root starts it, else 0 (stay who we are).

    The kernel does not hold root to its limit on processes, even inside a user namespace.
    """
    return FIRST_USER + next(_users) % USERS if os.geteuid() == 0 else 0


def wrapped(command: list[str], file_bytes: int, info: int, filter_fd: int) -> tuple[list[str], list[int]]:
    """`command` under bubblewrap, and the descriptors that it must inherit.

    info: descriptor to which bwrap writes the process id of the sandbox's first process.
    filter_fd: descriptor to read the system call filter from; -1 for none.
    """
    line, keep = [shutil.which("bwrap") or "bwrap"], [info]
    if os.geteuid() == 0:
        keep.append(_namespace())
        line += ["--userns", str(keep[-1]), "--unshare-ipc", "--unshare-pid", "--unshare-net"]
        line += ["--unshare-uts", "--unshare-cgroup-try", "--cap-drop", "ALL"]
        line += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]  # inside.py drops both with its user
    else:
        line += ["--unshare-all", "--unshare-user", "--cap-drop", "ALL"]
    line += ["--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]
    line += ["--info-fd", str(info)]
    if filter_fd >= 0:
        keep.append(filter_fd)
        line += ["--seccomp", str(filter_fd)]
    for name, value in ENVIRONMENT.items():
        line += ["--setenv", name, value]
    line += _mounts()
    line += ["--proc", "/proc", "--dev", "/dev", "--remount-ro", "/dev"]  # /dev/shm would have no size
    line += ["--size", str(file_bytes), "--perms", "1777", "--tmpfs", "/tmp", "--remount-ro", "/"]
    return [*line, "--chdir", "/tmp", "--", *command], keep


@functools.cache
def _mounts() -> list[str]:
    """What Python needs of the system, read-only: system libraries, the interpreter, its standard library."""
    prefix = Path(sys.base_prefix)
    system = [Path(p) for p in ("/usr/lib", "/usr/lib64", "/lib", "/lib64")]
    binds = {p: p for p in (*system, Path("/etc/ld.so.cache"), prefix / "lib", prefix / "lib64")}
    binds |= {Path(interpreter()): Path(interpreter())}
    binds |= {folder: Path(SITE) / name for name, folder in optional_packages().items()}
    present = {source: target for source, target in binds.items() if source.exists()}
    # parents first, because bwrap makes those that it needs for itself accessible to one user only
    parents = {parent for target in present.values() for parent in target.parents if parent != Path("/")}
    links = {target for target in present if target in system and target.is_symlink()}
    line = [
        word for p in sorted(parents) if not any(_within(p, s) for s in present) for word in ("--dir", str(p))
    ]
    for source, target in present.items():
        if source in links:
            line += ["--symlink", os.readlink(source), str(target)]
        elif not any(_within(target, other) for other in present.values() if other != target):
            line += ["--ro-bind", str(source), str(target)]
    packages = Path(sysconfig.get_path("purelib", vars={"base": sys.base_prefix}))
    if packages.is_dir() and any(_within(packages, p) for p in present):
        line += ["--size", "4096", "--tmpfs", str(packages), "--remount-ro", str(packages)]
    return line


def _within(path: Path, folder: Path) -> bool:
    return path == folder or folder in path.parents


def _namespace() -> int:
    """Descriptor of a user namespace that maps root and the ids of sandboxes, made once per process."""
    with _lock:
        return _make_namespace()


@functools.cache
def _make_namespace() -> int:
    wait = "import ctypes, sys\nctypes.CDLL(None).unshare(0x10000000) or print(flush=True)\nsys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([interpreter(), "-I", "-S", "-c", wait], **pipes) as holder:
        if holder.stdout.read(1) != b"\n":
            raise OSError("a user namespace cannot be made (`unshare` is refused)")
        for kind in ("uid", "gid"):
            with open(f"/proc/{holder.pid}/{kind}_map", "w", encoding="ascii") as file:
                file.write(f"0 0 1\n{FIRST_USER} {FIRST_USER} {USERS}\n")
        return os.open(f"/proc/{holder.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)


def filter_pipe() -> int:
    """A descriptor that holds the system call filter to its end, -1 where there is none for this machine."""
    program = seccomp.program()
    if not program:
        return -1
    reader, writer = os.pipe()
    os.write(writer, program)
    os.close(writer)
    return reader
