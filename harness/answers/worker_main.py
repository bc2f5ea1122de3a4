"""The worker process: `[gold, found]` as JSON lines in, `1` or `0` out. A script that imports no harness."""

import json
import math
import os
import resource
import sys
import time

MEMORY = 2 << 30  # bytes of address space


def same(gold: str, found: str) -> bool:
    from math_verify import parse, verify

    given = [parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (gold, found)]
    return all(given) and verify(*given, timeout_seconds=None)


def serve(seconds: int) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints is no answer
    same("\\frac{1}{2}", "\\frac12")  # the parser's tables are built before the clock runs
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        until = math.ceil(time.process_time()) + seconds
        resource.setrlimit(resource.RLIMIT_CPU, (until, resource.RLIM_INFINITY))
        try:
            verdict = same(*json.loads(line))
        except MemoryError:
            return  # its state is no longer to be trusted; the parent starts another
        except (Exception, RecursionError):  # sympy raises anything on what is no mathematics
            verdict = False
        print(int(verdict), file=answers, flush=True)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
