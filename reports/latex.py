r"""`table-body.tex` to \input into a paper, `table-kept.tex` likewise, and `table.tex`, a document of both.

The body needs booktabs and graphicx. The macros at its top are yours to define before \input; \spread, the
standard error and the interval behind a value, shows nothing unless you do.
"""

from harness.board import NOT_RUN
from harness.store import write_text
from harness.typeset import LEAST, grid, kept, latex, latex_note, notes, signs, tabular

WIDE = 9  # columns from which the document is set in landscape
BEYOND = r"""\ifdefined\beyond\else\ifdefined\Umathchar\DeclareRobustCommand{\beyond}[2]{#2}\else
  \DeclareRobustCommand{\beyond}[2]{{\scriptsize\textsf{U+#1}}}\fi\fi% characters that pdfTeX's fonts lack
"""
MACROS = r"""% Before \input, say, \newcommand{\spread}[2]{{\scriptsize\,$\pm$#1}}, or #2 for the interval.
\providecommand{\spread}[2]{}
\providecommand{\tablenotes}[1]{\par\medskip
  \begin{minipage}{\linewidth}\footnotesize\raggedright #1\end{minipage}}
\providecommand{\signs}[1]{\rlap{\textsuperscript{#1}}}
\providecommand{\fitted}[1]{{\sbox0{#1}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi}}
"""
DOCUMENT = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{mathptmx,helvet,courier,textcomp,booktabs,graphicx}
\usepackage[a4paper,%s,margin=2cm]{geometry}
%s\begin{document}
"""
FLOAT = r"""\begin{table}[htbp]
\centering
\caption{%s}
\label{tab:%s}
\medskip
\input{%s}
\end{table}
"""


def render(board, folder):
    """Write `table-body.tex`, `table-kept.tex` (where anything is kept of an expert) and `table.tex`."""
    main, shares = grid(board), kept(board)
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in board.family)
    notes_ = [rf"{_mark(mark)}{latex_note(note)}\par" for mark, note in notes(board)]
    floats = [FLOAT % (_caption(board), name, "table-body")]
    paths = [_written(folder / "table-body.tex", [*_body(main), r"\tablenotes{%", *notes_, "}"])]
    if shares is None:
        (folder / "table-kept.tex").unlink(missing_ok=True)
    else:
        paths.append(_written(folder / "table-kept.tex", _body(shares)))
        said = f"{board.title}: {shares.title[:1].lower()}{shares.title[1:]}."
        floats.append(FLOAT % (latex(said, breaks=True), f"{name}-kept", "table-kept"))
    head = DOCUMENT % ("landscape" if len(main.columns) >= WIDE else "portrait", BEYOND)
    return [*paths, _written(folder / "table.tex", [head, *floats, r"\end{document}"])]


def _caption(board):
    counts = [sum(row.is_merge for row in board.rows), len({h.task for h in board.headings})]
    nouns = [f"{n} {noun}{'s' * (n != 1)}" for n, noun in zip(counts, ("merge", "benchmark"), strict=True)]
    said = f"{board.title}: {' on '.join(nouns)}, beside the models that were merged."
    if board.limit is not None:
        said += f" Only the first {board.limit} items of each benchmark were used."
    if board.split != "test":
        said += f" Measured on the {board.split} split."
    marks = [r"The best merge of each column is in \textbf{bold}"]
    if any(cell.second for row in board.rows for cell in row.cells.values()):
        marks.append(r"the second best is \underline{underlined}")
    if any(row.collapsed for row in board.rows):
        marks.append(r"\textit{italics} with * mark a merge that collapsed")
    if any(row.cell(heading) is None for row in board.rows for heading in board.headings):
        marks.append(f"{latex(NOT_RUN)} was not run")
    return f"{latex(said, breaks=True)} {', '.join(marks)}."


def _body(table):
    return [MACROS + BEYOND, r"\fitted{%", *tabular(table), "}"]


def _written(path, lines):
    write_text(path, "\n".join(lines) + "\n")
    return path


def _mark(mark):
    if mark == LEAST:
        return latex(mark) + " "
    return rf"\textsuperscript{{{signs(mark)}}}\," if mark else ""
