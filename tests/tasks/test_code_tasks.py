"""HumanEval and LiveCodeBench on real rows: gold programs as chat models write them pass, others do not."""

import base64
import json
import pickle
import shutil
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from real import SHARED, TASKS, function, rows_of

from harness import sandbox
from harness.errors import HarnessError
from harness.evaluate.syntax import load_module
from harness.evaluate.task_file import load_task

pytestmark = [
    pytest.mark.skipif(not sandbox.available(), reason=f"no bubblewrap here: {sandbox._fault()}"),
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"real rows are not here: {SHARED}"),
]
humaneval, livecodebench = (load_module(TASKS / f"{name}.py") for name in ("humaneval", "livecodebench"))


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory):
    home = tmp_path_factory.mktemp("data")
    (home / "humaneval").mkdir()
    shutil.copy(SHARED / "humaneval" / "humaneval_first60.jsonl", home / "humaneval" / "HumanEval.jsonl")
    (home / "livecodebench").mkdir()
    shutil.copy(SHARED / "livecodebench" / "lcb_derived_4rows.jsonl", home / "livecodebench" / "test.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HARNESS_DATA", str(home))
        yield home


def values(name, pairs):
    """pass@1 of (row, response) pairs, four at once, and how many had no code."""
    score = function(name, "process_results").score
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: score(pair[1], pair[0]), pairs))
    return [score.value for score in found], sum(score.unparsed for score in found)


def solutions(row):
    return row["target"].removeprefix("```python\n").removesuffix("```")


WAYS = {
    "block": "{target}",
    "prose around a block": "Here is the function.\n\n{target}\n\nIt goes through the list once.",
    "usage in a second block": "{target}\n\nUse it so:\n\n```python\nprint({entry})\n```\n\n```\n42\n```",
    "a draft first": "First try:\n```python\ndef {entry}(*_):\n    return None\n```\nBetter:\n{target}",
    "no fence": "{code}",
    "no fence, prose around": "Sure, here is the code:\n\n{code}\nThis runs in linear time.",
    "a fence never closed": "```python\n{code}",
    "upper case, other fence": "~~~Python3\n{code}~~~",
    "in a list": "1. The code:\n\n   ```python\n{shifted}   ```\n",
    "the body alone": "{body}",
    "the body in a block": "```python\n{body}```",
    "the body and more": "{body}\n\ndef main():\n    print('unfinished",
}


def written(way, row):
    code = solutions(row)
    shifted = "".join("   " + line for line in code.splitlines(keepends=True))
    blanks = {"{target}": row["target"], "{entry}": row["entry_point"], "{code}": code, "{shifted}": shifted,
              "{body}": code.removeprefix(row["prompt"])}  # fmt: skip
    text = WAYS[way]
    for name, value in blanks.items():
        text = text.replace(name, value)
    return text


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_every_canonical_solution_passes(way):
    rows = rows_of("humaneval")
    some = rows if way == "block" else rows[::6] + rows[32:33] + rows[38:39]
    found, unparsed = values("humaneval", [(row, written(way, row)) for row in some])
    assert [row["id"] for row, value in zip(some, found, strict=True) if value != 1.0] == []
    assert unparsed == 0


@pytest.mark.slow
def test_every_mutated_solution_fails():
    rows = rows_of("humaneval")
    wrong = "\n\n_right = {0}\n\ndef {0}(*args):\n    found = _right(*args)\n    return {1}\n"
    found, unparsed = values(
        "humaneval", [(row, f"```python\n{solutions(row)}{mutation(wrong, row)}```") for row in rows]
    )
    assert ([row["id"] for row, value in zip(rows, found, strict=True) if value], unparsed) == ([], 0)


def mutation(wrong, row):
    number = "found + 1 if isinstance(found, (int, float)) else [found]"
    broken = f"not found if isinstance(found, bool) else {number}"
    return wrong.format(row["entry_point"], broken)


def test_an_answer_without_code_is_unparsed():
    row = rows_of("humaneval")[0]
    for response in ("", "I cannot do that.", "The answer is 42.", "```text\nnothing\n```"):
        assert function("humaneval", "process_results")(row, [response])["unparsed"] == 1.0, response


def test_near_misses():
    row = rows_of("humaneval")[0]
    code = solutions(row)
    for response in (
        f"<think>{row['target']}</think>I do not know.",
        f"```python\n{code.replace(row['entry_point'], 'other')}```",
        f"```python\nimport sys\nsys.exit(0)\n{code}```",
        f"```python\n{code}\nraise SystemExit(0)\n```",
        f"```python\n{code.replace('return True', 'return 1 / 0')}```",
    ):
        assert function("humaneval", "process_results")(row, [response])["pass@1"] == 0.0, response
    thought = f"<think>```python\ndef {row['entry_point']}(): pass```</think>{row['target']}"
    assert function("humaneval", "process_results")(row, [thought])["pass@1"] == 1.0


SUM_OF_POWERS = """class Solution:
    def sumOfPower(self, nums: List[int]) -> int:
        total = below = 0
        for x in sorted(nums):
            total += x * x * (x + below)
            below = 2 * below + x
        return total % (10**9 + 7)
"""
COUNT = """class Solution:
    def count(self, num1: str, num2: str, min_sum: int, max_sum: int) -> int:
        @cache
        def below(digits, left, tight):
            if left < 0: return 0
            if not digits: return 1
            top = int(digits[0]) if tight else 9
            return sum(below(digits[1:], left - d, tight and d == top) for d in range(top + 1))
        def good(digits):
            return below(digits, max_sum, True) - below(digits, min_sum - 1, True)
        inside = min_sum <= sum(map(int, num1)) <= max_sum
        return (good(num2) - good(num1) + inside) % (10**9 + 7)
"""
GAME = "for _ in range(int(input())):\n    print('Second' if int(input()) % 3 == 0 else 'First')\n"
ARRAY = """import sys
def main():
    data = iter(sys.stdin.read().split())
    for _ in range(int(next(data))):
        n = int(next(data))
        best = run = -10**9
        last = None
        for x in (int(next(data)) for _ in range(n)):
            run = max(run, 0) + x if last is not None and (x - last) % 2 else x
            best, last = max(best, run), x
        print(best)
if __name__ == '__main__':
    main()
"""
RIGHT = {"1899_A": GAME, "1899_C": ARRAY, "2757": COUNT, "2784": SUM_OF_POWERS}
WRONG = {
    "1899_A": [GAME.replace("== 0", "== 1"), "print('First')", "raise SystemExit(0)", "pass", "1 / 0"],
    "1899_C": [
        ARRAY.replace("max(run, 0)", "run"),
        ARRAY.replace("    main()\n", "    pass\n"),
        "print(15)\n" * 7,
    ],
    "2757": [COUNT.replace("+ inside", ""), "class Solution: pass", "def count(*a): return 11"],
    "2784": [
        SUM_OF_POWERS.replace("2 * below", "below"),
        "class Solution:\n    def sumOfPower(self, nums): return 141",
    ],
}


def test_livecodebench_right_and_wrong():
    rows = {row["id"]: row for row in rows_of("livecodebench")}
    assert set(rows) == set(RIGHT)
    right = [(rows[name], f"Let me see.\n```python\n{code}```\nDone.") for name, code in RIGHT.items()]
    assert values("livecodebench", right) == ([1.0] * 4, 0)
    wrong = [(rows[name], f"```python\n{code}\n```") for name, codes in WRONG.items() for code in codes]
    assert values("livecodebench", wrong) == ([0.0] * len(wrong), 0)
    assert values("livecodebench", [(rows["2784"], "I do not know.")]) == ([0.0], 1)


def test_the_last_block_counts():
    row = next(row for row in rows_of("livecodebench") if row["id"] == "1899_A")
    good, bad = f"```python\n{GAME}```\n", "```python\nprint(1)\n```\n"
    assert values("livecodebench", [(row, bad + good), (row, good + bad)])[0] == [1.0, 0.0]


def test_the_tests_decode():
    for row in rows_of("livecodebench"):
        cases = livecodebench.tests(row)
        assert len(cases) == 2 * len(json.loads(row["public"]))  # these rows hold the same tests twice
        assert all(isinstance(given, list if row["function"] else str) for given, _ in cases)


def encoded(data):
    return base64.b64encode(zlib.compress(data)).decode()


class Attack:
    def __reduce__(self):
        return print, ("pickles ran",)


@pytest.mark.parametrize(
    "hidden",
    [
        encoded(pickle.dumps(Attack())),
        encoded(pickle.dumps(["[]"])),
        encoded(pickle.dumps(b"[]")),
        encoded(b"cos\nsystem\n(S'id'\ntR."),
        encoded(b"\x80\x04\x8c\x02[]\x8c\x02[]."),
        encoded(b"\x80\x04" + b"\x94" * 10**6 + b"."),
        encoded(b""),
        encoded(pickle.dumps("not JSON")),
        encoded(pickle.dumps("[1]")),
        base64.b64encode(zlib.compress(pickle.dumps("[]"))[:-4]).decode(),
        base64.b64encode(zlib.compress(pickle.dumps("[]")) * 1)[:-1].decode() + "*",
        base64.b64encode(b"not zlib").decode(),
        "",
    ],
)  # fmt: skip
def test_hidden_tests_that_are_something_else(hidden, capfd):
    row = {"id": "x", "function": "", "public": "[]", "hidden": hidden}
    with pytest.raises(HarnessError, match="livecodebench `x`: its tests cannot be read"):
        livecodebench.tests(row)
    assert "pickles ran" not in capfd.readouterr().out


def test_a_bomb_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(livecodebench, "UNPACKED", 2**20)
    with pytest.raises(HarnessError, match="more than 1048576 bytes"):
        livecodebench.tests({"id": "x", "function": "", "public": "[]", "hidden": encoded(bytes(2**24))})


def test_all_string_pickles_decode():
    for protocol in range(6):
        for text in ("[]", "é" * 300, "x" * 70000):
            assert livecodebench.unpacked(encoded(pickle.dumps(text, protocol))) == text


@pytest.mark.parametrize(
    "found, wanted, same",
    [
        ("1\n2\n", "1\n2", True),
        ("  1 \n 2\t\n\n", "1\n2\n", True),
        ("1.0 2.50", "1 2.5", True),
        ("1e3", "1000", True),
        ("50000000000000001", "50000000000000000", False),
        ("0.1", "0.10000000000000001", False),
        ("Yes", "YES", False),
        ("1 2", "1\n2", False),
        ("1\n\n2", "1\n2", False),
        ("1  2", "1 2", True),
        ("a  b", "a b", False),
        ("", "0", False),
        ("", "\n", True),
        ("nan", "NaN", False),
        ("sNaN", "1", False),
        ("1e999999999", "1", False),
        ("12", "1 2", False),
    ],
)
def test_outputs_are_compared_as_officially(found, wanted, same):
    assert livecodebench.same(found, wanted) is same


def test_functional_results():
    def passed(code, wanted, given=([1],)):
        cases = [
            {
                "input": "\n".join(map(json.dumps, given)),
                "output": json.dumps(wanted),
                "testtype": "functional",
            }
        ]
        row = {"id": "x", "function": "f", "public": json.dumps(cases), "hidden": "[]"}
        return livecodebench.called(code, row)

    assert passed("def f(x): return (1, 2)", [1, 2])
    assert not passed("def f(x): return [(1, 2)]", [[1, 2]])
    assert passed("def f(x): return 2.0", 2)
    assert not passed("def f(x): return '2'", 2)
    assert passed("class Solution:\n    def f(self, x): return True", True)
    assert passed("def f(x, y): return x + y", 3, (1, 2))
    assert passed(
        "class Solution:\n    def f(self, x): return [Counter(x)[1], sqrt(4), gcd(4, 6), inf > 1]",
        [1, 2, 2, True],
    )
    assert not passed("def f(x):\n    class A(list):\n        __eq__ = lambda *a: True\n    return A()", [1])


def test_many_calls_go_in_parts():
    cases = [{"input": str(n), "output": str(n * n)} for n in range(25)]
    row = {"id": "x", "function": "f", "public": json.dumps(cases), "hidden": "[]"}
    assert livecodebench.called("def f(x): return x * x", row)
    assert not livecodebench.called("def f(x): return x * x if x < 24 else 0", row)


@pytest.mark.parametrize("name", ["humaneval", "humaneval_paper", "livecodebench", "livecodebench_paper"])
def test_the_files(name):
    task = load_task(TASKS / f"{name}.yaml")
    assert task.executes_code and task.columns[0].key == "pass@1"
    assert task.profile == ("paper" if name.endswith("paper") else "standard")
    assert len(rows_of(name)) in (60, 4)
