r"""`details.md` and `details.tex`: the implementation details of the table, as a paper tells them.

`details.tex` is to be \input; it needs no package.
"""

from harness.store import write_text
from harness.typeset import latex, latex_note, markdown, markdown_note, paragraphs

BEYOND = r"\providecommand{\beyond}[2]{U+#1}% characters that pdfTeX's fonts lack"


def render(board, folder):
    """Write both; neither is there where nothing is known."""
    found, paths = paragraphs(board), [folder / "details.md", folder / "details.tex"]
    if not found:
        for path in paths:
            path.unlink(missing_ok=True)
        return []
    lines = [f"# Implementation details of {markdown(board.family)}", ""]
    parts = [BEYOND]
    for heading, text in found:
        lines += [f"**{markdown(heading)}.** {markdown_note(text)}", ""]
        parts.append(rf"\paragraph{{{latex(heading)}.}} {latex_note(text)}")
    for path, written in zip(paths, (lines[:-1], parts), strict=True):
        write_text(path, "\n".join(written) + "\n")
    return paths
