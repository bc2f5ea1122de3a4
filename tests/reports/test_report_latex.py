"""LaTeX: any text is set as text, and what is written compiles without a warning that matters."""

import re
import shutil
import string
import subprocess
import unicodedata

import boards
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import registry
from harness.typeset import latex, latex_note

needs_tex = pytest.mark.skipif(
    shutil.which("pdflatex") is None,
    reason="no pdflatex (apt-get install texlive-latex-recommended texlive-fonts-recommended)",
)
BAD = re.compile(r"^! |Overfull|Missing character|undefined|Undefined|multiply defined", re.MULTILINE)
SPREAD = r"\newcommand{\spread}[2]{{\scriptsize\,$\pm$#1 [#2]}}" + "\n"
ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TRICKY = st.text(st.sampled_from("\\{}$&#%_^~<>|\"`'*[]-,!? ab1\n\t–λ†中é\x1b\u202e"), max_size=30)


def compiled(folder, name="table.tex"):
    """The log of two runs."""
    for _ in range(2):
        done = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", name],
            cwd=folder, capture_output=True, timeout=120,
        )  # fmt: skip
    log = (folder / name).with_suffix(".log").read_text(encoding="latin-1")
    assert done.returncode == 0, log[-2000:]
    return log


@needs_tex
@pytest.mark.parametrize("name", ["rich", "narrow", "wide", "hostile"])
def test_a_table_compiles_without_warnings(name, tmp_path):
    registry.report("latex")(getattr(boards, name)(), tmp_path)
    assert not BAD.findall(compiled(tmp_path))


@needs_tex
def test_a_caption_may_hold_what_the_fonts_lack(tmp_path):
    """The caption is set before the table that is read from its file, and written to the list of tables."""
    board = boards.rich()
    board.title, board.family = "中文任务 · 推理 + セーフティ", "中文"
    registry.report("latex")(board, tmp_path)
    whole = tmp_path / "table.tex"
    whole.write_text(whole.read_text().replace(r"\end{document}", r"\listoftables\end{document}"))
    assert not BAD.findall(compiled(tmp_path))
    if shutil.which("pdftotext"):
        words = ["pdftotext", "-layout", str(whole.with_suffix(".pdf")), "-"]
        assert "U+4E2D" in subprocess.run(words, capture_output=True, text=True).stdout


@needs_tex
@pytest.mark.parametrize("setup", [SPREAD, SPREAD + r"\twocolumn" + "\n"])
def test_errors_and_intervals_are_an_option_and_still_fit(setup, tmp_path):
    registry.report("latex")(boards.wide(), tmp_path)
    whole = tmp_path / "table.tex"
    whole.write_text(whole.read_text().replace(r"\begin{document}", setup + r"\begin{document}"))
    assert not BAD.findall(compiled(tmp_path))
    if shutil.which("pdftotext"):
        words = ["pdftotext", "-layout", str(whole.with_suffix(".pdf")), "-"]
        text = subprocess.run(words, capture_output=True, text=True).stdout
        assert "±2.2" in text and "32.8, 41.2" in text


@needs_tex
def test_the_details_compile_in_a_column(tmp_path):
    registry.report("details")(boards.rich(), tmp_path)
    (tmp_path / "page.tex").write_text(
        "\\documentclass[twocolumn]{article}\\usepackage[T1]{fontenc}\\usepackage{mathptmx,courier}\n"
        "\\begin{document}\\input{details}\\end{document}\n"
    )
    assert not BAD.findall(compiled(tmp_path, "page.tex"))


def hard_characters():
    """Everything ASCII prints, Latin, Greek, punctuation, arrows and mathematics, a few of other scripts."""
    ranges = [
        (0x20, 0x250),
        (0x370, 0x400),
        (0x1E00, 0x1F00),
        (0x2000, 0x2300),
        (0x2460, 0x2470),
        (0xFB00, 0xFB07),
    ]
    found = [chr(c) for low, high in ranges for c in range(low, high) if unicodedata.name(chr(c), "")]
    assert len(found) > 1500
    return found + list("中文任务日本語한국어ไทยعربيעברית🙂\U0001d4d0")


@needs_tex
def test_every_character_and_pair_of_specials_compiles(tmp_path):
    special = string.punctuation
    texts = ["".join(hard_characters()), *(a + b for a in special for b in special), *boards.HOSTILE]
    rows = "\n".join(rf"{latex(text, breaks=True)} & {latex_note(text)} \\" for text in texts[1:])
    page = rf"""\documentclass{{article}}
\usepackage[T1]{{fontenc}}\usepackage[utf8]{{inputenc}}\usepackage{{mathptmx,helvet,longtable}}
\newcommand{{\beyond}}[2]{{U+#1}}
\begin{{document}}\sloppy
{latex(texts[0], breaks=True)}

\begin{{longtable}}{{ll}}
{rows}
\end{{longtable}}
\end{{document}}
"""
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    assert not re.findall(r"^! |Missing character|undefined", compiled(tmp_path, "page.tex"), re.MULTILINE)


def balanced(text):
    depth = 0
    for at, char in enumerate(text):
        if char in "{}" and (at == 0 or text[at - 1] != "\\"):
            depth += 1 if char == "{" else -1
            assert depth >= 0
    return depth == 0


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(ANY, TRICKY), st.booleans())
def test_no_text_ends_a_row_a_group_or_an_argument(text, breaks):
    made = latex(text, breaks=breaks)
    assert balanced(made) and "\n" not in made
    # what means something to TeX only stands where we wrote it
    bare = re.sub(r"\\ensuremath\{\^?\\?[a-zA-Z{}-]*\}|\\[a-zA-Z]+|\\[^a-zA-Z]", "", made)
    assert not set(bare) & set("$&#%_^~\\")
    bare = re.sub(r"\\beyond\{[0-9A-F]+\}\{.\}", "", made, flags=re.DOTALL)
    assert bare.isascii() and not re.match(r"[\[*]", bare)


@pytest.mark.parametrize(
    "text, shown",
    [
        ("a_b & 50 % {x} #1 $y$", r"a\_b \& 50 \% \{x\} \#1 \$y\$"),
        ("--limit", "-{}-limit"),
        ("[a] *", "{[}a{]} {*}"),
        ("λ=0.3 ±1 é ễ", r"\ensuremath{\lambda}=0.3 \ensuremath{\pm}1 \'{e} \~{\^{e}}"),
        ("x\x1b[31my\u202e", "xy"),
        ("中", r"\beyond{4E2D}{中}"),
    ],
)
def test_text_as_latex(text, shown):
    assert latex(text) == shown


def test_a_table_is_set_as_the_papers(tmp_path):
    registry.report("latex")(boards.rich(), tmp_path)
    lines = (tmp_path / "table-body.tex").read_text().splitlines()
    heads = [
        at for at, line in enumerate(lines) if line.startswith((r"\toprule", r"\midrule", r"\bottomrule"))
    ]
    groups, rules = lines[heads[0] + 1 : heads[0] + 3]
    assert groups == (
        r" & \multicolumn{4}{c}{Reasoning} & \multicolumn{3}{c}{Safety} & \multicolumn{1}{c}{Perplexity} \\"
    )
    assert rules == r"\cmidrule(lr){2-5}\cmidrule(lr){6-8}\cmidrule(lr){9-9}"
    references, merges = lines[heads[1] + 1 : heads[2]], lines[heads[2] + 1 : heads[3]]
    assert [line.split(" & ")[0] for line in references] == [
        "base", "reasoning", r"\quad{\footnotesize paper}", "safety",
    ]  # fmt: skip
    assert not any(r"\textbf" in line or r"\underline" in line for line in references)
    ties = next(line for line in merges if line.startswith("TIES"))
    assert ties.count(r"\textit") == ties.count(r"\signs{{*}}") == 6 and r"\textbf" not in ties
    assert next(line for line in merges if line.startswith("DARE")).startswith(r"DARE\signs{\dag{}}")


def test_the_caption_says_what_was_measured(tmp_path):
    board = boards.rich()
    board.limit, board.split = 20, "validation"
    registry.report("latex")(board, tmp_path)
    caption = re.search(r"\\caption\{(.*)\}", (tmp_path / "table.tex").read_text()).group(1)
    assert "first 20 items" in caption and "validation split" in caption and r"\textit{italics}" in caption
    registry.report("latex")(boards.wide(), tmp_path)
    caption = re.search(r"\\caption\{(.*)\}", (tmp_path / "table.tex").read_text()).group(1)
    assert "italics" not in caption and "was not run" not in caption
    assert not (tmp_path / "table-kept.tex").exists()
