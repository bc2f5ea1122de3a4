"""The layout shows the architecture: who imports whom is a graph without cycles, and it is in the docs."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("checkpoint", "merge", "scores", "evaluate", "families")


def python_files(*folders):
    return [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]


def imported(path):
    """Modules named in a file's import statements, those inside functions and `TYPE_CHECKING` included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            yield module
            if module == "harness":
                yield from (f"harness.{alias.name}" for alias in node.names)


def room(module):
    """`harness.checkpoint.read` -> `checkpoint`; None for what is not a room of ours."""
    parts = module.split(".")
    if parts[0] != "harness" or len(parts) < 2:
        return None
    known = (ROOT / "harness" / parts[1]).is_dir() or (ROOT / "harness" / f"{parts[1]}.py").is_file()
    return parts[1] if known else None


def graph():
    edges = {}
    for path in python_files("harness"):
        relative = path.relative_to(ROOT / "harness")
        if relative.name == "__init__.py" and len(relative.parts) == 1:
            continue
        own = relative.parts[0].removesuffix(".py")
        targets = {room(module) for module in imported(path)} - {None, own}
        edges.setdefault(own, set()).update(targets)
    return edges


@pytest.mark.parametrize(
    "path", python_files("methods", "tasks", "reports"), ids=lambda p: f"{p.parent.name}/{p.name}"
)
def test_plugin_files_import_only_harness_of_ours(path):
    ours = [
        m for m in imported(path) if m.split(".")[0] in ("methods", "tasks", "reports", "tests", "harness")
    ]
    assert all(m == "harness" or m.startswith("harness.") for m in ours)
    inner = {m for m in ours if m.count(".") >= 2 and not m.startswith("harness.families.tiny")}
    assert not inner, f"reaches into the harness: {inner}"


def test_there_are_no_cycles():
    edges, done = graph(), set()

    def walk(node, trail):
        assert node not in trail, " -> ".join([*trail, node])
        if node not in done:
            for target in sorted(edges.get(node, ())):
                walk(target, [*trail, node])
            done.add(node)

    for node in edges:
        walk(node, [])


def test_the_graph_in_the_docs_is_the_graph_of_the_code():
    text = (ROOT / "docs" / "architecture.md").read_text()
    block = re.search(r"```mermaid\n(.*?)```", text, re.DOTALL).group(1)
    drawn = {tuple(line.strip().split(" --> ")) for line in block.splitlines() if "-->" in line}
    assert drawn == {(a, b) for a, targets in graph().items() for b in targets if b != "errors"}


def test_files_stay_small():
    for path in python_files("harness", "methods", "tasks", "reports"):
        limit = 60 if path.parent.name == "methods" else 300
        lines = len(path.read_text().splitlines())
        assert lines <= limit, f"{path.relative_to(ROOT)} has {lines} lines, the limit is {limit}"


def drawn_graph():
    """The block for docs/architecture.md; `python tests/test_architecture.py` prints it."""
    edges = [(a, b) for a, targets in sorted(graph().items()) for b in sorted(targets) if b != "errors"]
    return "graph TD\n" + "\n".join(f"    {a} --> {b}" for a, b in edges) + "\n"


if __name__ == "__main__":
    print(drawn_graph(), end="")
