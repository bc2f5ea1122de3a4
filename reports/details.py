r"""`details.md` and `details.tex`: the implementation details of the table, as a paper tells them.

`details.tex` is to be \input; it needs no package.
"""

from harness.typeset import latex, latex_note, markdown, markdown_note, paragraphs

BEYOND = r"\providecommand{\beyond}[2]{U+#1}% characters that pdfTeX's fonts lack"


def render(board, folder):
    """Write both; no file where nothing is known."""
    found = paragraphs(board)
    if not found:
        return []
    lines = [f"# Implementation details of {markdown(board.family)}", ""]
    parts = [BEYOND]
    for heading, text in found:
        lines += [f"**{markdown(heading)}.** {markdown_note(text)}", ""]
        parts.append(rf"\paragraph{{{latex(heading)}.}} {latex_note(text)}")
    paths = [folder / "details.md", folder / "details.tex"]
    for path, written in zip(paths, (lines[:-1], parts), strict=True):
        path.write_text("\n".join(written) + "\n", encoding="utf-8")
    return paths
