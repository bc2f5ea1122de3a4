"""The parts of a family: its experts, their calibration data, decoding, the rule of collapse, the rows."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.train.recipe import Train


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expert(Strict):
    """One expert: a hub id, `id@revision` or path, or the recipe it is trained by; and the name its row
    carries (default: its role). A LoRA adapter is applied to the base, or to the model `on`."""

    model: str | None = None
    train: Train | None = None
    on: str | None = None
    label: str | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Expert:
        if (self.model is None) == (self.train is None):
            raise ValueError("an expert has a `model:`, or a `train:` that makes it; give one of the two")
        if self.train is not None and self.on is not None:
            raise ValueError("`on:` is the model of an adapter; `train:` names its own `base:`")
        return self


class Official(Strict):
    """What `profile: official` reads instead."""

    data: str | None = None
    name: str | None = None
    split: str | None = None
    text: str | None = None
    completion: str | None = None
    completion_after: str | None = None
    n: int | None = Field(None, ge=1)
    max_tokens: int | None = Field(None, ge=2)


class Calibration(Strict):
    """Rows whose gradients rank an expert's parameters. `text` is a format string over a row's columns, in
    which `{eos}` is the end token of the tokenizer that reads it. The part of it that carries the loss under
    `loss_on: completion` is `completion`, a format string too, or what follows the last `completion_after`.
    """

    data: str
    name: str | None = None
    split: str = "train"
    text: str
    completion: str | None = None
    completion_after: str | None = None
    n: int = Field(100, ge=1)
    max_tokens: int = Field(512, ge=2)
    seed: int = 0
    official: Official | None = None

    @model_validator(mode="after")
    def _one_completion(self) -> Calibration:
        if self.completion is not None and self.completion_after is not None:
            raise ValueError("`completion:` and `completion_after:` both say where the answer is; keep one")
        return self

    def in_profile(self, profile: str) -> Calibration:
        """What a statistic of `profile` (`paper` or `official`) reads."""
        if profile != "official" or self.official is None:
            return self
        return self.model_copy(update={**self.official.model_dump(exclude_unset=True), "official": None})


class Generation(Strict):
    """Decoding settings; what is left out stays as the task says."""

    max_gen_toks: int | None = Field(None, ge=1)
    do_sample: bool | None = None
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)

    def settings(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class Collapse(Strict):
    """When a merge counts as broken: word perplexity above `ppl_ratio` times the base's, or a mean share
    of unfinished, repetitive or empty responses above the limit. It is asked of the first `n` items of the
    tasks `probe` right after the merge, and of all that is evaluated; `skip` leaves the evaluation of a merge
    out that the probe found broken."""

    ppl_ratio: float = Field(3.0, gt=1)
    unfinished: float = Field(0.5, gt=0, le=1)
    repetition: float = Field(0.5, gt=0, le=1)
    empty: float = Field(0.5, gt=0, le=1)
    probe: list[str] = ["probe_chat", "probe_text"]
    n: int = Field(16, ge=1)
    skip: bool = False


class EngineSettings(Strict):
    """How models are run. `dtype` `auto` is float32 on a CPU, else the checkpoint's own; `batch_size` is how
    many sequences run at once. Of vLLM alone: GPUs per model, the share of their memory that it takes, tokens
    of prompt and response together (default: by the model's config), GiB of key-value cache on a CPU, and
    whether compiling is left out (`eager`; default: on a CPU)."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    batch_size: int | None = Field(None, ge=1)
    tensor_parallel: int = Field(1, ge=1)
    memory_fraction: float = Field(0.9, gt=0, le=1)
    max_model_len: int | None = Field(None, ge=8)
    kv_cache_gib: int = Field(1, ge=1)
    eager: bool | None = None


class Row(Strict):
    """One merge row: a method, its settings, and the label the table shows."""

    label: str
    method: str
    settings: dict[str, Any] = {}
