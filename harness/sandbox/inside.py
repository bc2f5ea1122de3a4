"""What runs inside the sandbox, as `python -c TEXT_OF_THIS_FILE MODE USER LIMITS SITE [FD FD]`.

It needs nothing but the standard library and has three modes. `script` runs a program with the rest of stdin
as its input. `serve` runs a program and answers calls of one of its functions. `grade` runs a benchmark's
tests, in a process that the program cannot reach, with a stand-in that asks a `serve` process for each call.
Between the two go frames (4 bytes of length, then JSON) that hold plain data and nothing else, so equality
is decided by the grader on objects that it built. Nothing here defends `serve` from the program that it
runs: a program can only lie about its own answers.
"""

import os
import resource
import sys

READY = b"ready\n"  # first line of stderr: the limits are set, what follows is the program's doing
FRAME = 64 * 2**20  # bytes of a frame
ITEMS, DEPTH = 4_000_000, 200  # of one value
OPEN_FILES = 64
TAGS = {
    "int": lambda body: int(body, 16),
    "tuple": tuple,
    "set": set,
    "frozenset": frozenset,
    "dict": dict,
    "range": lambda body: range(*body),
    "iterator": iter,
}


class Unsendable(Exception):
    """A value that is not plain data, or too much of it."""


class CandidateFailed(BaseException):
    """The program raised, ended, or answered what is no answer. Not an `Exception`: no test may catch it."""


class CandidateLate(CandidateFailed):
    """No answer within the time that a call may take."""


def plain(value):
    """`value` in terms of JSON: what is not a JSON type becomes a one-key object, `{"tuple": [...]}`.

    A subclass is sent as the plain type it derives from; another number as int or float; another iterable
    as an iterator, which equals nothing. Raises `Unsendable`.
    """
    left = ITEMS

    def each(items, depth):
        return [walk(item, depth + 1) for item in items]

    def walk(value, depth):
        nonlocal left
        left -= 1
        if left < 0 or depth > DEPTH:
            raise Unsendable(f"more than {ITEMS} items or {DEPTH} levels")
        if value is None or value is True or value is False:
            return value
        if isinstance(value, int):
            number = int.__pos__(value)
            return number if -(2**63) <= number < 2**63 else {"int": hex(number)}
        if isinstance(value, float):
            return float.__pos__(value)
        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, list):
            return each(list.__iter__(value), depth)
        for kind in (tuple, set, frozenset):
            if isinstance(value, kind):
                return {kind.__name__: each(kind.__iter__(value), depth)}
        if isinstance(value, dict):
            return {"dict": [[walk(k, depth + 1), walk(v, depth + 1)] for k, v in dict.items(value)]}
        if isinstance(value, range):
            return {"range": each((value.start, value.stop, value.step), depth)}
        if hasattr(type(value), "__index__"):
            return walk(int(value.__index__()), depth)
        if hasattr(type(value), "__float__"):
            return float(value)
        if hasattr(type(value), "__iter__"):
            return {"iterator": each(value, depth)}
        raise Unsendable(f"a value of type `{type(value).__name__}` is not plain data")

    return walk(value, 0)


def dumps(value):
    """A frame's content: `value` as bytes. Raises `Unsendable`."""
    import json

    data = json.dumps(plain(value)).encode("ascii")
    if len(data) > FRAME:
        raise Unsendable(f"a value of {len(data)} bytes, the limit is {FRAME}")
    return data


def loads(data):
    """What `dumps` was given, built of plain types. `data` may be hostile: else ValueError."""
    import json

    def revive(pairs):
        ((tag, body),) = pairs
        if type(body) is not (str if tag == "int" else list):
            raise ValueError(tag)
        return TAGS[tag](body)

    try:
        return json.loads(data, object_pairs_hook=revive)
    except (ValueError, TypeError, KeyError, RecursionError, MemoryError, OverflowError) as error:
        raise ValueError(f"an answer that is not plain data ({type(error).__name__})") from None


def read(fd, count, deadline=None):
    """Exactly `count` bytes, or b"" when the other end closed. Raises `CandidateLate` after `deadline`."""
    import select
    import time

    parts, missing = [], count
    while missing:
        if deadline is not None and not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise CandidateLate("no answer in time")
        part = os.read(fd, min(missing, 2**16))
        if not part:
            return b""
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def read_frame(fd, deadline=None):
    """The next frame's content, b"" at the end. ValueError when it claims to be too long."""
    size = int.from_bytes(read(fd, 4, deadline), "big")
    if size > FRAME:
        raise ValueError(f"a frame of {size} bytes, the limit is {FRAME}")
    return read(fd, size, deadline)


def framed(data):
    """`data` as one frame."""
    return len(data).to_bytes(4, "big") + data


def write_frame(fd, data):
    data = framed(data)
    while data:
        data = data[os.write(fd, data) :]


def told(error):
    """An exception in one line, whatever its own `__str__` does."""
    try:
        text = " ".join(str(error).split())
    except BaseException:
        text = "cannot be printed"
    return f"{type(error).__name__}: {text}"[:300].removesuffix(": ")


def limit(pid, memory, cpu, processes, file_bytes):
    """Limit a process (0: this one) and all it will start, for good. 0 processes: any number."""
    limits = {"AS": memory, "CPU": cpu + 1, "FSIZE": file_bytes, "CORE": 0, "NOFILE": OPEN_FILES}
    for name, most in {**limits, **({"NPROC": processes} if processes else {})}.items():
        which = getattr(resource, f"RLIMIT_{name}")
        hard = resource.prlimit(pid, which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        soft = min(cpu, most) if name == "CPU" else most  # SIGXCPU comes before SIGKILL
        resource.prlimit(pid, which, (soft, most))


def confine(uid, sizes, keep):
    """Close what was inherited but `keep`, set the limits and become `uid` (0: stay who we are)."""
    import ctypes

    edges = [2, *sorted(keep), 2**20]
    for low, high in zip(edges, edges[1:], strict=False):
        os.closerange(low + 1, high)
    with open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")  # short of memory, the kernel ends this first, not the harness
    limit(0, *sizes)
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    option = ctypes.CDLL(None).prctl
    option(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE, unset by the change of user: else no /dev/stdin
    option(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: SIGKILL when the parent dies
    os.write(2, READY)


def run_as(name, program):
    """Run `program` as the module `name`; its namespace."""
    import _sitebuiltins
    import builtins

    for word in ("exit", "quit"):  # `site`, which is not loaded, would have set them
        setattr(builtins, word, _sitebuiltins.Quitter(word, "Ctrl-D"))
    module = sys.modules[name] = type(sys)(name)
    module.__dict__["__builtins__"] = builtins
    sys.argv = ["program.py"]
    exec(compile(program, "program.py", "exec"), module.__dict__)
    return module.__dict__


def channel():
    """(in, out) as new descriptors; stdin becomes empty and stdout the same as stderr for all that is run."""
    pair = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return pair


def script():
    run_as("__main__", read_frame(0).decode("utf-8", "surrogatepass"))


def find(namespace, entry):
    """The function `f`, or the method `Class.f` of a new instance."""
    owner, _, name = entry.rpartition(".")
    if (owner or name) not in namespace:
        raise NameError(f"`{owner or name}` is not defined")
    return getattr(namespace[owner](), name) if owner else namespace[name]


def serve():
    source, target = channel()
    write_frame(target, dumps(["value", None]))  # it is here: the grader may begin
    try:
        program, entry = loads(read_frame(source))
        function = find(run_as("solution", program), entry)
    except BaseException as error:
        return write_frame(target, dumps(["error", told(error)]))
    while data := read_frame(source):
        arguments, options = loads(data)
        try:
            reply = dumps(["value", function(*arguments, **options)])
        except BaseException as error:
            reply = dumps(["error", told(error)])
        write_frame(target, reply)


def stand_in(source, target, seconds):
    """A function that asks the process behind the two descriptors."""
    import time

    def candidate(*arguments, **options):
        question = dumps([list(arguments), options])
        try:
            write_frame(target, question)
        except BrokenPipeError:
            pass  # it ended; what it said last is still to be read
        try:
            data = read_frame(source, time.monotonic() + seconds if seconds else None)
            kind, value = loads(data) if data else ("error", "the program ended before it answered")
        except (ValueError, TypeError) as error:
            raise CandidateFailed(told(error)) from None
        if kind != "value":
            raise CandidateFailed(str(value)[:300])
        return value

    return candidate


def grade(source, target):
    import random

    questions, verdict = channel()
    job = loads(read_frame(questions))
    write_frame(target, dumps([job["program"], job["entry"]]))
    read_frame(source)  # its greeting
    candidate = stand_in(source, target, job["seconds"])
    try:
        namespace = run_as("tests", job["setup"])
        namespace[job["entry"]] = candidate
        exec(compile(job["test"], "tests.py", "exec"), namespace)
        check = namespace["check"]
    except CandidateFailed as error:
        return write_frame(verdict, dumps(["failed", str(error)]))
    except BaseException as error:
        return write_frame(verdict, dumps(["broken", told(error)]))
    random.seed(0)
    try:
        check(candidate)
        result = ["ok", ""]
    except CandidateLate as error:
        result = ["time", str(error)]
    except CandidateFailed as error:
        result = ["failed", str(error)]
    except BaseException as error:
        result = ["failed", told(error)]
    write_frame(verdict, dumps(result))


def main(mode, uid, memory, cpu, processes, file_bytes, site, *fds):
    fds = list(map(int, fds))
    confine(int(uid), map(int, (memory, cpu, processes, file_bytes)), fds)
    sys.path.append(site)
    {"script": script, "serve": serve, "grade": grade}[mode](*fds)


if __name__ == "__main__":
    main(*sys.argv[1:])
