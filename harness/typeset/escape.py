"""Any text, such as a row's label, as text of a terminal, of Markdown, of LaTeX: it shows, and does nothing.

LaTeX comes out as ASCII that every engine and both T1 and OT1 fonts print; only a character without a name in
LaTeX (Chinese, say) stays as it is, as the second argument of `\\beyond{4E2D}{...}`.
"""

from __future__ import annotations

import re
import unicodedata

# Control sequences: CSI to its letter; OSC, DCS, SOS, PM, APC to BEL or ST; others of two characters.
SEQUENCE = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"
    r"|\x1b[ -/]*[0-~]?"
)
# Marks of direction and joining, invisible ones, code points that are no characters.
HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}

TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%",
    "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}",
    ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''", "`": r"\textasciigrave{}", "*": "{*}", "[": "{[}",
    "]": "{]}", "–": "--", "—": "---", "‘": "`", "’": "'", "“": "``", "”": "''", "…": r"\dots{}",
    "†": r"\dag{}", "‡": r"\ddag{}", "§": r"\S{}", "¶": r"\P{}", "©": r"\copyright{}", "£": r"\pounds{}",
    "ß": r"\ss{}", "æ": r"\ae{}", "Æ": r"\AE{}", "œ": r"\oe{}", "Œ": r"\OE{}", "ø": r"\o{}", "Ø": r"\O{}",
    "ł": r"\l{}", "Ł": r"\L{}", "ı": r"\i{}", "¡": "!`", "¿": "?`", "‐": "-", "‑": "-",
    "−": r"\ensuremath{-}",
}  # fmt: skip
MATHS = {
    "±": "pm", "∓": "mp", "×": "times", "÷": "div", "·": "cdot", "•": "bullet", "∙": "cdot", "≤": "le",
    "≥": "ge", "≠": "ne", "≈": "approx", "≡": "equiv", "∼": "sim", "∞": "infty", "∝": "propto", "⋅": "cdot",
    "→": "rightarrow",
    "←": "leftarrow", "↑": "uparrow", "↓": "downarrow", "↔": "leftrightarrow", "⇒": "Rightarrow",
    "⇐": "Leftarrow", "⇔": "Leftrightarrow", "∈": "in", "∉": "notin", "⊂": "subset", "⊆": "subseteq",
    "∪": "cup", "∩": "cap", "∅": "emptyset", "∀": "forall", "∃": "exists", "¬": "neg", "∧": "wedge",
    "∨": "vee",
    "∑": "sum", "∏": "prod", "∫": "int", "∂": "partial", "∇": "nabla", "√": "surd", "⊙": "odot", "⊕": "oplus",
    "⊗": "otimes", "‖": "Vert", "ℓ": "ell", "°": "circ", "△": "triangle", "★": "star",
    "α": "alpha", "β": "beta", "γ": "gamma", "δ": "delta", "ε": "varepsilon", "ϵ": "epsilon", "ζ": "zeta",
    "η": "eta", "θ": "theta", "ϑ": "vartheta", "ι": "iota", "κ": "kappa", "λ": "lambda", "μ": "mu", "µ": "mu",
    "ν": "nu", "ξ": "xi", "ο": "mathit{o}", "π": "pi", "ρ": "rho", "σ": "sigma", "ς": "varsigma", "τ": "tau",
    "υ": "upsilon", "φ": "varphi", "ϕ": "phi", "χ": "chi", "ψ": "psi", "ω": "omega", "Γ": "Gamma",
    "Δ": "Delta", "∆": "Delta", "Θ": "Theta", "Λ": "Lambda", "Ξ": "Xi", "Π": "Pi", "Σ": "Sigma",
    "Υ": "Upsilon", "Φ": "Phi", "Ψ": "Psi", "Ω": "Omega",
}  # fmt: skip
ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0331": "b",
}  # fmt: skip
LIGATURE = re.compile(r"(?<=([-'`,!?]))(?=[-'`,])")  # pairs that TeX fonts join
INSERTED = {"\0": "{}", "\1": r"\allowbreak{}"}  # `visible` leaves none of these
BREAKS = re.compile(r"(?<=[/_])(?=\S)|(?<=[^\s/_-]{24})(?=\S)")


def visible(text: str) -> str:
    """One line of text without control sequences and invisible characters; blanks become single spaces."""
    text = SEQUENCE.sub("", str(text).encode("utf-8", "replace").decode("utf-8"))
    seen = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c) not in HIDDEN)
    return " ".join("".join(seen).split())


def markdown(text: str) -> str:
    """Text as GitHub's Markdown shows it, in a table's cell too."""
    text = re.sub(r"[\\`*\[\]|~$]|<(?=[\w/!?])|&(?=[\w#])|#(?=\d)", r"\\\g<0>", visible(text))
    text = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\\_", text)  # between letters it is no emphasis
    return re.sub(r"^(?:[-+=](?=\s|$|[-+=])|[>#]|\d{1,9}(?=[.)]))", _first, text)


def _first(found: re.Match[str]) -> str:
    """What would begin a list or a rule there."""
    return found[0] + "\\" if found[0].isdigit() else "\\" + found[0]


def markdown_note(text: str) -> str:
    """A sentence whose back-ticks mean code, which stays as it is."""
    parts = re.split(r"(`[^`]+`)", visible(text))
    return "".join(part if i % 2 else markdown_inner(part) for i, part in enumerate(parts))


def markdown_inner(text: str) -> str:
    """As `markdown`, blanks at the ends kept."""
    head, tail = (" " * (text[:1] == " "), " " * (text[-1:] == " ")) if text.strip() else (text, "")
    return head + markdown(text) + tail


def latex(text: str, *, breaks: bool = False) -> str:
    """Text as LaTeX sets it; it never ends a row, a group or an argument. `breaks`: long words may break."""
    return (_broken if breaks else _latex)(visible(text))


def latex_note(text: str) -> str:
    """A sentence whose back-ticks mean code. Long words (ids, paths) may break."""
    parts = re.split(r"`([^`]+)`", visible(text))
    return "".join(rf"\texttt{{{_broken(p)}}}" if i % 2 else _broken(p) for i, p in enumerate(parts))


def _broken(text: str) -> str:
    """LaTeX of `text` with places to break: behind / and _, and in runs of more than 24 letters."""
    return _latex(BREAKS.sub("\1", text))


def _latex(text: str) -> str:
    return "".join(map(_glyph, LIGATURE.sub("\0", unicodedata.normalize("NFC", text))))


def _glyph(char: str) -> str:
    if char in INSERTED:
        return INSERTED[char]
    if char in TEX:
        return TEX[char]
    if char in MATHS:
        return rf"\ensuremath{{{_maths(char)}}}"
    if " " <= char <= "~":
        return char
    parts = unicodedata.normalize("NFD", char)
    if len(parts) > 1 and parts[0] < "\x7f" and all(p in ACCENTS for p in parts[1:]):
        made = parts[0]
        for accent in parts[1:]:
            made = rf"\{ACCENTS[accent]}{{{made}}}"
        return made
    return _compatible(char)


def _maths(char: str) -> str:
    name = MATHS[char]
    return {"circ": r"^\circ"}.get(name, "\\" + name)


def _compatible(char: str) -> str:
    """What is a variant of simple characters (², ﬁ, Ａ) as those, in their place."""
    form = unicodedata.decomposition(char)
    plain = unicodedata.normalize("NFKC", char)
    if plain != char and all(c in TEX or c in MATHS or " " <= c <= "~" for c in plain):
        command = {"<super>": "textsuperscript", "<sub>": "textsubscript"}.get(form.split(" ")[0])
        made = "".join(map(_glyph, plain))
        return rf"\{command}{{{made}}}" if command else made
    return rf"\beyond{{{ord(char):04X}}}{{{char}}}"
