"""`harness check FILE`: puts a merge method's file through the contract, on small random models.

What is promised: the method loads and declares its parameters; merges one, two and three experts (if it
takes them); gives the same bytes for any block size and number of threads, and when run again; stands the
ends of its ranges; and with `scale` at its no-op value gives the base back bit for bit. The engine itself
refuses a method that writes into its inputs.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click

from harness import registry
from harness.errors import HarnessError
from harness.method import configure, parameters
from harness.values import Param, fits

ROLES = ("reasoning", "task", "third")
HIDDEN, VOCAB, LAYERS = 64, 3000, 2
CONFIG = {"model_type": "qwen2", "hidden_size": HIDDEN, "vocab_size": VOCAB, "num_hidden_layers": LAYERS,
          "tie_word_embeddings": True, "torch_dtype": "bfloat16"}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Finding:
    """One check: what was promised, and what is wrong with it ("" when it holds)."""

    promise: str
    fault: str = ""


def check_file(name: str) -> int:
    """Print the findings on a method; 0 when every promise holds, else 1."""
    method = registry.method(name)
    findings = list(check(method))
    for finding in findings:
        click.echo(f" {'✗' if finding.fault else '✓'} {finding.promise}"
                   + (f": {finding.fault}" if finding.fault else ""))  # fmt: skip
    faults = sum(bool(finding.fault) for finding in findings)
    click.echo(f"{method.method_name}: {len(findings)} promises, {faults} broken")
    return 1 if faults else 0


def check(method: type) -> Iterator[Finding]:
    """The findings on a method class, as they are made."""
    yield from _declarations(method)
    if not hasattr(method, "merge"):
        return
    with tempfile.TemporaryDirectory() as folder:
        yield from _merges(method, _Bench(Path(folder)))


def _declarations(method: type) -> Iterator[Finding]:
    for name, (_, default, spec) in parameters(method).items():
        fault = "" if spec.help else "no sentence of help"
        if (
            isinstance(default, (int, float))
            and not isinstance(default, bool)
            and spec.low is spec.high is None
        ):
            fault = fault or ("" if spec.noop is not None else "neither a range nor a no-op value")
        yield Finding(f"parameter `{name}` is declared", fault)


def _merges(method: type, bench: _Bench) -> Iterator[Finding]:
    plain = configure(method, {})
    counts = [n for n in (1, 2, 3) if _takes(plain, ROLES[:n])]
    if not counts:
        yield Finding("merges up to three experts", "refuses one, two and three experts")
        return
    for n in counts:
        yield _try(f"merges {n} experts", lambda n=n: bench.merge(plain, n))
    n = counts[-1]
    reference, fault = bench.quietly(plain, n)
    if fault:
        return
    for what, options in {
        "the same bytes with another block size": {"block": 2**17},
        "the same bytes with another number of threads": {"threads": 3},
        "the same bytes when run again": {},
    }.items():
        yield _try(what, lambda o=options: _same(bench.merge(plain, n, **o), reference))
    if plain.plain:
        yield _try("the same bytes from compiled code", lambda: _same(_compiled(bench, plain, n), reference))
    for name, (hint, _, spec) in parameters(method).items():
        for end in _ends(hint, spec):
            yield _try(
                f"`{name}` at the end of its range, {end}",
                lambda k=name, v=end: bench.merge(configure(method, {k: v}), n),
            )
        if name == "scale" and spec.noop is not None:
            still = configure(method, {name: spec.noop})
            yield _try(
                f"`scale` {spec.noop:g} is the base, bit for bit",
                lambda m=still: _same(bench.merge(m, n), bench.base_bytes()),
            )


def _ends(hint: Any, spec: Param) -> list[Any]:
    """Values at the ends of a range, of the parameter's type; one that takes only lists gets both in one."""
    ends = [end for end in (spec.low, spec.high) if end is not None]
    if fits(1.0, hint):
        return [float(end) for end in ends]
    return [int(end) for end in ends] if fits(1, hint) else [ends] if ends else []


def _takes(method: Any, roles: tuple[str, ...]) -> bool:
    """Whether the method's own declarations accept these roles (ReasonAny wants two, say)."""
    try:
        if hasattr(method, "needs"):
            method.needs(roles)
        if hasattr(method, "degenerate"):
            method.degenerate(roles)
    except HarnessError:
        return False
    return True


def _compiled(bench: _Bench, method: Any, n: int) -> bytes:
    """Merged as a large model is, whose blocks a `plain` method only describes."""
    from harness.merge import fused

    large, fused.LARGE = fused.LARGE, 0
    try:
        return bench.merge(method, n)
    finally:
        fused.LARGE = large


def _same(found: bytes, wanted: bytes) -> None:
    if found != wanted:
        raise AssertionError("the bytes differ")


def _try(promise: str, work: Callable[[], Any]) -> Finding:
    try:
        work()
    except Exception as error:  # whatever a user's method raises is a finding about it
        return Finding(promise, str(error).splitlines()[0] if str(error) else type(error).__name__)
    return Finding(promise)


class _Bench:
    """Small random models (bf16, one tensor of three chunks) and statistics to merge with."""

    def __init__(self, root: Path) -> None:
        import torch

        self.root, self.runs = root, 0
        shapes = {"model.embed_tokens.weight": (VOCAB, HIDDEN), "model.norm.weight": (HIDDEN,)}
        for layer in range(LAYERS):
            shapes[f"model.layers.{layer}.mlp.up_proj.weight"] = (3 * HIDDEN, HIDDEN)
            shapes[f"model.layers.{layer}.self_attn.q_proj.weight"] = (HIDDEN, HIDDEN)
        draw = torch.Generator().manual_seed(0)
        base = {name: torch.randn(shape, generator=draw) * 0.05 for name, shape in shapes.items()}
        self._write("base", {name: t.bfloat16() for name, t in base.items()})
        for role in ROLES:
            tuned = {
                n: (t + torch.randn(t.shape, generator=draw) * 0.004).bfloat16() for n, t in base.items()
            }
            self._write(role, tuned)
            scores = {name: torch.randn(shape, generator=draw).relu() for name, shape in shapes.items()}
            self._write(f"scores-{role}", scores)

    def _write(self, name: str, tensors: dict) -> None:
        from safetensors.torch import save_file

        folder = self.root / name
        folder.mkdir()
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")

    def base_bytes(self) -> bytes:
        return _data(self.root / "base" / "model.safetensors")

    def merge(self, method: Any, n: int, block: int = 2**16, threads: int = 1) -> bytes:
        """The merged weights of the first `n` experts."""
        from harness.checkpoint import Checkpoint
        from harness.merge import Inputs, Job, merge

        self.runs += 1
        roles, to = ROLES[:n], self.root / f"out-{self.runs}"
        experts = {role: Checkpoint.open(self.root / role) for role in roles}
        inputs = Inputs(Checkpoint.open(self.root / "base"), experts, self.root / "base")
        needs = method.needs(roles) if hasattr(method, "needs") else ()
        scores = {need.key: Checkpoint.open(self.root / f"scores-{need.role}") for need in needs}
        merge(inputs, [Job(method, to, scores=scores)], block=block, threads=threads)
        return _data(to / "model.safetensors")

    def quietly(self, method: Any, n: int) -> tuple[bytes, str]:
        try:
            return self.merge(method, n), ""
        except Exception as error:  # told by the check that merges this many experts
            return b"", str(error)


def _data(path: Path) -> bytes:
    """Tensor data in order of name, without the header, whose metadata may differ."""
    import torch
    from safetensors.torch import load_file

    tensors = load_file(path)
    return b"".join(tensors[name].view(torch.uint8).numpy().tobytes() for name in sorted(tensors))
