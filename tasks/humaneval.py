"""HumanEval: the function that a response defines, put through the benchmark's own tests in the sandbox.

The official 3 s are counted as CPU time, so that a busy machine changes no verdict. What the prompt defines
besides the function (helpers, imports) is there for the program, and the tests have their own copy of it.
"""

import re

from harness import Score, benchmark, scorer
from harness.sandbox import Limits, blocks, check, last_block

LIMITS = Limits(seconds=15, cpu_seconds=3)
BODY = re.compile(r"[ \t]+\S|(return|if|for|while|try|with|import|from)\b|[a-z_]\w* *=")
TOP_LEVEL = re.compile(r"(async |def |class |import |from |@|#|[A-Za-z_]\w* *=|[)\]}\"'])")


@benchmark
def rows(row: dict) -> dict:
    target = row["prompt"] + row["canonical_solution"]
    found = {name: row[name] for name in ("prompt", "entry_point", "test")}
    return {"id": row["task_id"], **found, "target": f"```python\n{target}```"}


@scorer("pass@1", parallel=True)
def score(response: str, row: dict) -> Score:
    code = program(response, row["prompt"], row["entry_point"])
    if code is None:
        return Score(0.0, unparsed=True)
    return Score(float(check(code, row["entry_point"], row["test"], row["prompt"], LIMITS).ok))


def program(response: str, prompt: str, entry: str) -> str | None:
    """The program of a response: the last fenced block that defines `entry`; else the text from its first
    line of code on, where the text defines it; else the response as the body that continues the prompt.
    None when there is nothing like code."""
    defines = re.compile(rf"^(async )?def {re.escape(entry)}\b", re.M)
    whole = [code for _, code in blocks(response) if defines.search(code)]
    if whole:
        return f"{prompt}\n{whole[-1]}"
    block = last_block(response)
    if block is None and defines.search(response):
        return f"{prompt}\n{code_lines(response)}"
    body = response if block is None else block
    if not BODY.match(body.lstrip("\n")):
        return None
    return prompt + indented(cut(body.strip("\n")))


def code_lines(text: str) -> str:
    """`text` from its first line of code at the margin to the last before prose."""
    lines = text.splitlines()
    start = next(
        i for i, line in enumerate(lines) if re.match(r"(async )?def |import |from \S+ import|@|class ", line)
    )
    end = next((i for i, line in enumerate(lines) if i > start and prose(line)), len(lines))
    return "\n".join(lines[start:end]) + "\n"


def cut(body: str) -> str:
    """The body of a function, up to the first line at the margin after an indented first line."""
    lines = body.splitlines()
    if not lines[0].startswith((" ", "\t")):
        return body
    end = next(
        (i for i, line in enumerate(lines) if line[:1].strip() and not line.startswith("#")), len(lines)
    )
    return "\n".join(lines[:end])


def prose(line: str) -> bool:
    return bool(line[:1].strip()) and not TOP_LEVEL.match(line)


def indented(body: str) -> str:
    lines = body.splitlines()
    width = len(lines[0]) - len(lines[0].lstrip())
    shift = " " * max(0, 4 - width)
    return "\n".join(shift + line if line.strip() else line for line in lines) + "\n"
