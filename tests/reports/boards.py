"""Hand-made boards for the reports' tests: every mark once, a wide one, hostile text."""

from harness.board import Average, Board, BoardRow, Cell, Heading, Test

GSM = Heading("gsm8k", "exact_match", "GSM8K", "Reasoning", True, "accuracy", detectable=0.03)
MATH = Heading("math500", "exact_match", "MATH-500", "Reasoning", True, "accuracy")
LENGTH = Heading("math500", "tokens", "tokens", "Reasoning", False, "score", main=False)
HARM = Heading("safety_tuned", "harmfulness", "Safety-Tuned", "Safety", False, "score")
ATTACK = Heading("harmbench", "attack_success", "HarmBench", "Safety", False, "accuracy")
CHAIN = Heading("safechain", "safe", "SafeChain", "Safety", True, "score")
PPL = Heading("wikitext", "word_perplexity", "PPL", "Perplexity", False, "perplexity")
MIXED = ["engine vllm 0.9.1, the column's is hf", "limited to the first 200 items"]
DETAILS = {
    "models": [
        {"row": "base", "role": "base", "model": "Qwen/Qwen2.5-7B", "hub": True, "sha256": "ab" * 32,
         "revision": "d149729398750b98c0af14eb82c78cfe92750796", "training": None},
        {"row": "reasoning", "role": "reasoning", "model": "deepseek-ai/DeepSeek-R1-Distill-Qwen-7B",
         "hub": True, "revision": None, "sha256": None, "training": None},
        {"row": "safety", "role": "task", "model": None, "hub": False, "revision": None, "sha256": None,
         "training": {"recipe": "lora", "base": "Qwen/Qwen2.5-7B-Instruct", "data": "org/tuned", "n": 2000,
                      "r": 8, "alpha": 16.0, "dropout": 0.05, "targets": ["q_proj", "v_proj"], "epochs": 3.0,
                      "batch_size": 128, "learning_rate": 0.0003, "warmup_steps": 10, "max_tokens": 256,
                      "seed": 0}},
    ],
    "tokenizer": "reasoning", "vocab": "error", "seed": 0, "limit": None, "split": "test",
    "merges": [
        {"row": "Task Arithmetic", "method": "task_arithmetic", "title": "Task Arithmetic",
         "paper": "arXiv:2212.04089", "settings": {"scale": 0.3}, "statistics": []},
        {"row": "DARE", "method": "dare", "title": "DARE", "paper": "arXiv:2311.03099",
         "settings": {"density": 0.1, "scale": 0.3}, "statistics": [], "seeds": [0, 1, 2]},
        {"row": "ReasonAny", "method": "reasonany", "title": "ReasonAny", "paper": "arXiv:2601.05560",
         "settings": {"p": 0.05, "scale": [0.5, 1.0], "use_task": True}, "statistics": ["gradient"]},
    ],
    "calibration": [
        {"role": "task", "row": "safety", "data": "Anthropic/hh-rlhf", "hub": True, "config": None,
         "split": "train", "n": 100, "max_tokens": 512, "seed": 0, "revision": None, "for": ["ReasonAny"]},
    ],
    "tasks": [
        {"name": "gsm8k", "title": "GSM8K", "paper": "arXiv:2110.14168", "split": "test",
         "place": "openai/gsm8k", "revision": "740312add88f781978c0658806c59bc2815b9866", "profile": "paper",
         "repeats": 1, "decoding": {"do_sample": False, "max_gen_toks": 4096}, "own_decoding": False,
         "judge": None},
        {"name": "safechain", "title": "SafeChain", "paper": "arXiv:2502.12025", "split": "train",
         "place": "allenai/wildjailbreak", "revision": None, "profile": "paper", "repeats": 4,
         "decoding": {"do_sample": False}, "own_decoding": False,
         "judge": {"kind": "api", "model": "o4-mini", "revision": None}},
    ],
    "decoding": [
        {"rows": ["base", "safety"], "settings": {"max_gen_toks": 4096, "do_sample": False}},
        {"rows": ["reasoning", "merges"],
         "settings": {"max_gen_toks": 32768, "do_sample": True, "temperature": 0.6, "top_p": 0.95}},
    ],
    "chat_template": "auto", "engines": [{"engine": "vllm", "dtype": "checkpoint"}],
    "versions": {"merge-harness": ["0.1.0"], "torch": ["2.13.0"], "vllm": ["0.9.1"], "python": ["3.11.7"]},
}  # fmt: skip
HOSTILE = (
    "a|b*c_d_ <b>&amp; 100% #1 $x$ ^~\\ {y} [z](u) `q`",
    "\x1b[31mred\x1b[0m \x1b]0;own\x07title \u202egnp.exe\u202c \u200bend",
    "λ=0.3 θ τ ± – † → 中文任务 é ễ ø ²",
)


def cell(heading, value, n=500, **more):
    """A cell with the standard error of a share, or 2 % of another value."""
    share = heading.kind == "accuracy"
    error = (value * (1 - value) / n) ** 0.5 if share else 0.02 * value
    ends = [max(0.0, value - 1.96 * error), value + 1.96 * error]
    return Cell(value, error, n, {"unparsed": 0.01}, f"evals/{heading.task}", interval=ends, **more)


def row(label, role, cells, averages=(), **more):
    made = {(h.task, h.metric): c for h, c in cells}
    method = label.split(" ")[0].lower() if role == "merge" else None
    return BoardRow(label, role, method, {"scale": 0.3} if method else {}, f"models/{label}", made,
                    averages=list(averages), **more)  # fmt: skip


def better(difference, p, p_holm):
    return Test(difference, [difference - 0.04, difference + 0.04], p, p_holm, "exact McNemar", 500)


def rich():
    """Every mark: best, second, ties, collapsed, older code, imported, footnotes, seeds, paper, tests."""
    up = ("Reasoning", True, "accuracy")
    rows = [
        row("base", "base", [(GSM, cell(GSM, 0.7004)), (MATH, cell(MATH, 0.5)), (HARM, cell(HARM, 2.1)),
                             (PPL, cell(PPL, 7.25))], [Average(*up, 60.02, True)], peak_mib=812.5),
        row("reasoning", "reasoning", [(GSM, cell(GSM, 0.8723, paper=0.8723)), (MATH, cell(MATH, 0.862)),
                                       (LENGTH, cell(LENGTH, 3120.0)), (HARM, cell(HARM, 1.91)),
                                       (ATTACK, cell(ATTACK, 0.46, 200)), (CHAIN, cell(CHAIN, 4.61, 200)),
                                       (PPL, cell(PPL, 9.5))], [Average(*up, 86.715, True)]),
        row("safety", "task", [(GSM, cell(GSM, 0.6942)), (HARM, cell(HARM, 1.18)), (PPL, cell(PPL, 7.4))]),
        row("Task Arithmetic", "merge", [
            (GSM, cell(GSM, 0.6217, second=True, kept=0.7127, paper=0.6217)),
            (MATH, cell(MATH, 0.428, second=True, kept=0.4965, paper=0.428, stale=True,
                        test=better(-0.18, 0.0001, 0.0009))),
            (HARM, cell(HARM, 2.31, paper=2.31, footnotes=[0, 1])),
            (ATTACK, cell(ATTACK, 0.4, 200, second=True)), (CHAIN, cell(CHAIN, 4.66, 200, second=True)),
            (PPL, cell(PPL, 7.9, best=True))], [Average(*up, 52.485, True)], seconds={"merge": 1.5}),
        row("TIES", "merge", [
            (GSM, cell(GSM, 0.0083)), (MATH, cell(MATH, 0.026)), (HARM, cell(HARM, 1.95)),
            (ATTACK, cell(ATTACK, 0.02, 200)), (PPL, cell(PPL, 1.23e7))], [Average(*up, 1.715, True)],
            collapsed=["PPL 1.23e+07 > 3 × base's 7.25"]),
        row("DARE", "merge", [
            (GSM, cell(GSM, 0.5042, values=[0.49, 0.50, 0.5226], sd=0.0166, sd_items=0.0224,
                       folders=["a", "b", "c"])),
            (MATH, cell(MATH, 0.31, imported=True))], [Average(*up, 40.71, True)], stale=True),
        row("LED-Merging", "merge", [(GSM, cell(GSM, 0.7248))], [Average(*up, None, False)], imported=True),
        row("ReasonAny", "merge", [
            (GSM, cell(GSM, 0.8571, best=True, kept=0.9826, paper=0.8628,
                       test=better(0.138, 1e-6, 1e-5))),
            (MATH, cell(MATH, 0.694, best=True, kept=0.8051, paper=0.694, test=better(0.1, 0.04, 0.2))),
            (LENGTH, cell(LENGTH, 2950.0)),
            (HARM, cell(HARM, 1.19, best=True, paper=0.84,
                        paper_note="table 1 prints 1.19 for the same run", test=better(-1.2, 1e-5, 1e-4))),
            (ATTACK, cell(ATTACK, 0.08, 200, best=True)),
            (CHAIN, cell(CHAIN, 4.86, 200, best=True, kept=1.0542)),
            (PPL, cell(PPL, 7.9, best=True))], [Average(*up, 77.84, True, best=True)]),
    ]  # fmt: skip
    notes = ["bold: best merge, underlined: second · * collapsed: word perplexity > 3 × base; – not run",
             "TIES: PPL 1.23e+07 > 3 × base's 7.25",
             "`harness clean --rows LABEL` makes a row † anew"]  # fmt: skip
    headings = [GSM, MATH, LENGTH, HARM, ATTACK, CHAIN, PPL]
    return Board("qwen7b-safety", "Qwen2.5-7B · reasoning + safety", headings, rows, notes,
                 baseline="LED-Merging", mixed=list(MIXED), with_paper=True, details=DETAILS,
                 settings={"collapse": "word perplexity > 3 × base"})  # fmt: skip


def narrow():
    """Four columns without intervals or tests."""
    board = rich()
    board.headings, board.with_paper = [GSM, MATH, HARM, PPL], False
    return board


def wide(columns=15, merges=9):
    """As the paper's widest, and wider: `columns` benchmarks in four groups."""
    groups = ("Reasoning", "Knowledge", "Safety", "Biomedicine")
    names = ("GSM8K", "MATH-500", "AIME24", "HumanEval", "LiveCodeBench", "ARC-C", "ARC-E", "MMLU",
             "GPQA-Diamond", "Safety-Tuned", "HarmBench", "SafeChain", "Over-refusal", "PubMedQA",
             "MedQA")  # fmt: skip
    starts = (0, 5, 9, 13)
    headings = [
        Heading(f"t{i}", "m", names[i % 15], groups[sum(i >= s for s in starts) - 1], i not in (9, 10),
                "score" if i in (9, 11) else "accuracy")
        for i in range(columns)
    ]  # fmt: skip

    def cells(seed):
        return [(h, cell(h, 0.2 + (seed * 37 + i * 17) % 71 / 100, best=seed == 8, second=seed == 5))
                for i, h in enumerate(headings)]  # fmt: skip

    averages = [
        Average("Reasoning", True, "accuracy", 61.5, True),
        Average("Knowledge", True, "accuracy", 44.25, True),
    ]
    rows = [row(name, role, cells(i), averages) for i, (name, role) in
            enumerate((("base", "base"), ("reasoning", "reasoning"), ("safety", "task")))]  # fmt: skip
    rows += [row(f"Method {i}", "merge", cells(i), averages) for i in range(merges)]
    return Board("wide", "Fifteen benchmarks", headings, rows, ["one note under the table"])


def hostile():
    """Text that means something to a terminal, to Markdown or to LaTeX, everywhere text can stand."""
    one, two, three = HOSTILE
    first = Heading("t", "m", one, three, True, "accuracy")
    second = Heading("u", "m", two, one, False, "perplexity")
    made = [(first, cell(first, 0.5, footnotes=[0], best=True, paper=0.4, paper_note=one)),
            (second, cell(second, 3.0))]  # fmt: skip
    rows = [row(one, "base", made), row(two, "merge", made), row(three, "merge", made)]
    return Board(three, one, [first, second], rows, [one, two, three], mixed=[one], with_paper=True)
