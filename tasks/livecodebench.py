"""LiveCodeBench: a response's last fenced block, put through all tests in the sandbox, 6 s each.

A program's output is compared line by line, blanks at the ends aside; lines that differ are equal as lists of
decimal numbers. A method's result is compared by `==`, a tuple as a list. The hidden tests are
base64(zlib(pickle(str))), of which nothing but one string is read.
"""

import base64
import pickletools
import zlib
from decimal import Decimal, InvalidOperation
from itertools import islice
from json import dumps, loads

from harness import HarnessError, Score, benchmark, scorer
from harness.sandbox import Limits, check, last_block, run

SECONDS, MEMORY, MIB, UNPACKED, PART = 6, 4096, 2**20, 2**29, 10  # bytes of a row's tests; calls in a process
TEXT = {"BINUNICODE", "BINUNICODE8", "SHORT_BINUNICODE", "UNICODE"}
AROUND = {"PROTO", "FRAME", "MEMOIZE", "BINPUT", "LONG_BINPUT", "PUT", "STOP"}
MODULES = """string re datetime collections heapq bisect copy math random statistics itertools functools
operator io sys json builtins typing""".split()
IMPORTS = [*(f"from {name} import *" for name in MODULES), *(f"import {name}" for name in MODULES)]
PREAMBLE = "\n".join([*IMPORTS, "sys.setrecursionlimit(50000)", ""])  # what the official runner puts first
TEST = """
import json
def check(candidate):
    for given, wanted in json.loads(CASES):
        found = candidate(*given)
        assert (list(found) if isinstance(found, tuple) else found) == wanted
"""


@benchmark
def rows(row: dict) -> dict:
    found = {"id": row["question_id"], "date": str(row["contest_date"])[:10]}
    found |= {"question": row["question_content"], "starter": row.get("starter_code") or ""}
    found |= {"function": loads(row["metadata"]).get("func_name") or ""}
    return found | {"public": row["public_test_cases"], "hidden": row["private_test_cases"]}


@scorer("pass@1", parallel=True)
def score(response: str, row: dict) -> Score:
    code = last_block(response)
    if code is None:
        return Score(0.0, unparsed=True)
    return Score(float(called(code, row) if row["function"] else printed(code, row)))


def tests(row: dict) -> list[tuple]:
    """(input, output) of a row's tests, public ones first; of calls as (arguments, result)."""
    try:
        plain = row["hidden"].lstrip().startswith("[")
        cases = loads(row["public"]) + loads(row["hidden"] if plain else unpacked(row["hidden"]))
        pairs = [(case["input"], case["output"]) for case in cases]
        return [([*map(loads, a.split("\n"))], loads(b)) for a, b in pairs] if row["function"] else pairs
    except (ValueError, KeyError, TypeError, zlib.error) as error:
        fact = f"livecodebench `{row['id']}`: its tests cannot be read: {error!r}"
        raise HarnessError(fact, "fetch the data again: `harness data fetch livecodebench`") from error


def unpacked(text: str) -> str:
    """The string in base64(zlib(pickle(string))); ValueError for anything else, and for too much."""
    stream = zlib.decompressobj()
    data = stream.decompress(base64.b64decode(text, validate=True), UNPACKED)
    if not stream.eof:
        raise ValueError(f"cut off, or more than {UNPACKED} bytes")
    steps = [(step.name, value) for step, value, _ in islice(pickletools.genops(data), 9)]
    found = [value for name, value in steps if name in TEXT]
    if len(found) != 1 or not {name for name, _ in steps} <= TEXT | AROUND:
        raise ValueError("a pickle of something else than one string")
    return found[0]


def printed(code: str, row: dict) -> bool:
    for given, wanted in tests(row):
        limits = Limits(SECONDS, SECONDS + 1, MEMORY, output_bytes=2 * len(wanted) + MIB)
        outcome = run(PREAMBLE + code, given, limits)
        if not outcome.ok or not same(outcome.stdout, wanted):
            return False
    return True


def same(found: str, wanted: str) -> bool:
    lines, right = ([line.strip() for line in text.strip().split("\n")] for text in (found, wanted))
    return len(lines) == len(right) and all(map(same_line, lines, right))


def same_line(found: str, wanted: str) -> bool:
    try:
        return found == wanted or list(map(Decimal, found.split())) == list(map(Decimal, wanted.split()))
    except InvalidOperation:
        return False


def called(code: str, row: dict) -> bool:
    entry = "Solution." * ("class Solution" in code) + row["function"]
    cases, limits = tests(row), Limits(SECONDS * (PART + 1), SECONDS * (PART + 1), MEMORY)
    texts = (f"CASES = {dumps(cases[at : at + PART])!r}{TEST}" for at in range(0, len(cases), PART))
    return all(check(PREAMBLE + code, entry, text, "", limits, SECONDS).ok for text in texts)
