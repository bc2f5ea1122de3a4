"""The fenced blocks of a response."""

import pytest

from harness.sandbox import blocks, last_block


@pytest.mark.parametrize(
    "text, found",
    [
        ("", []),
        ("no code `x = 1` here", []),
        ("```python\nx = 1\n```", [("python", "x = 1\n")]),
        ("a\n```\nx\n```\nb\n```Py\ny\n```\n", [("", "x\n"), ("py", "y\n")]),
        ("```python\nx = 1", [("python", "x = 1\n")]),
        ("```python\n```", [("python", "\n")]),
        ("````md\n```python\nx\n```\n````", [("md", "```python\nx\n```\n")]),
        ("~~~\n```\n~~~", [("", "```\n")]),
        ("- so:\n  ```python\n  if x:\n      y\n  ```\n", [("python", "if x:\n    y\n")]),
        ("```python title=x\nx\n```", [("python", "x\n")]),
        ("```c++\nx\n```", [("c++", "x\n")]),
        ("```python\r\nx\r\n```\r\n", [("python", "x\n")]),
        ("```python\ns = '''\n```python\n'''\n```", [("python", "s = '''\n```python\n'''\n")]),
    ],
)
def test_blocks(text, found):
    assert blocks(text) == found


def test_the_last_block_is_the_last_one_in_python():
    assert last_block("nothing") is None
    assert last_block("```\nx\n```\n```python\ny\n```\n```\n42\n```\n```json\n{}\n```") == "y\n"
    assert last_block("```\nx\n```\n```\ny\n```") == "y\n"


def test_long_text_takes_no_time():
    assert blocks("```" + "`" * 10**6) == [("", "\n")]
    assert len(blocks("```\n" * 200_000)) == 100_000
    assert blocks(" " * 10**6 + "x") == []
