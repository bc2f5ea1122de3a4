"""The schema of `train:` in a family: how an expert is made that nobody publishes. Light: no torch, no peft.

The defaults are those of github.com/vinid/safety-tuned-llamas (training/finetuning.py @4bc1f23), which is
Alpaca-LoRA's script (github.com/tloen/alpaca-lora, finetune.py) with 10 instead of 100 steps of warm-up: what
ReasonAny's paper (arXiv:2601.05560, appendix D) names for its safety experts. Where we differ on purpose:
weights are loaded in bfloat16, not int8; a step's loss is the mean over all its predicted tokens, so
that the size of a micro-batch changes nothing; no step has rate 0; no rows are held out.
"""

from __future__ import annotations

import os
import string
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# What only says where and in which portions the work is done: written down, and in no key.
RECORDED = ("micro_batch_size", "gradient_checkpointing", "placement", "processes")
Column = Annotated[str, Field(min_length=1)]


class Train(BaseModel):
    """A LoRA (arXiv:2106.09685) trained on a model, and merged into its weights."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    recipe: Literal["lora"] = Field("lora", description="The kind of training.")
    base: str = Field(min_length=1, description="Hub id, `id@revision` or path of the model that is trained.")
    data: str = Field(
        min_length=1,
        description="Rows: a .json, .jsonl, .csv or .parquet file, a hub data set, `package.module:"
        "function`, or `github:OWNER/REPO/PATH@COMMIT`, which is fetched once.",
    )
    name: str | None = Field(
        None, description="The hub data set's configuration; a function's first argument."
    )
    split: str = Field("train", description="The hub data set's split.")
    n: int | None = Field(
        None, ge=1, description="Take the first n rows; null takes all. A function needs it."
    )

    template: Literal["alpaca", "chat", "none"] = Field(
        "alpaca",
        description="What stands around a row: Alpaca's two prompts and the tokenizer's end of text, the "
        "base's chat template, or nothing at all.",
    )
    question: Column = Field("{instruction}", description="A format string over the columns: what is asked.")
    input: str | None = Field(
        "{input}", description="Further context of the question; rows that have none are asked without."
    )
    completion: Column = Field(
        "{output}", description="A format string over the columns: what is to be said."
    )
    loss_on: Literal["all", "completion"] = Field("all", description="The tokens that carry the loss.")
    max_tokens: int = Field(256, ge=2, description="A row has at most so many tokens.")
    too_long: Literal["cut", "drop"] = Field(
        "cut", description="What happens to a longer row; it is counted."
    )

    r: int = Field(8, ge=1, description="Rank of the two factors.")
    alpha: float = Field(16.0, gt=0, description="Their product is scaled by alpha / r.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Share of a factor's inputs that a step leaves out.")
    targets: tuple[Column, ...] | Literal["all-linear"] = Field(
        ("q_proj", "v_proj"),
        description="Ends of the names of the modules that are adapted, or `all-linear`.",
    )

    epochs: float = Field(3.0, gt=0, description="How often all rows are seen.")
    batch_size: int = Field(128, ge=1, description="Rows of a step, over all devices together.")
    micro_batch_size: int = Field(4, ge=1, description="Rows that a device takes at once.")
    learning_rate: float = Field(3e-4, gt=0, description="AdamW's rate once it is warm.")
    warmup_steps: int = Field(10, ge=0, description="Steps over which the rate rises linearly.")
    decay: Literal["linear", "cosine", "none"] = Field(
        "linear", description="How the rate falls to 0 after that."
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decay of the factors.")
    clip: float = Field(1.0, gt=0, description="Greatest norm of a step's gradient.")
    seed: int = Field(0, ge=0, description="Of the factors, the order of rows and the dropout.")

    dtype: Literal["bfloat16", "float32"] = Field(
        "bfloat16", description="Of the frozen weights and the arithmetic; the factors are float32."
    )
    gradient_checkpointing: bool = Field(
        False, description="Compute activations twice instead of keeping them: less memory, half slower."
    )
    placement: Literal["copies", "layers"] = Field(
        "copies",
        description="Over several GPUs: a whole copy on each, which share the rows, or one copy whose layers "
        "are spread over them, for a model that fits none.",
    )
    processes: int | None = Field(
        None, ge=1, description="How many copies work together; null: one per GPU, or one on the CPU."
    )

    @field_validator("question", "input", "completion")
    @classmethod
    def _is_a_template(cls, value: str | None) -> str | None:
        try:
            fields = [name for _, name, _, _ in string.Formatter().parse(value or "") if name is not None]
        except ValueError as error:
            raise ValueError(f"not a format string: {error}") from error
        if value is not None and not fields:
            raise ValueError("names no column; a format string has one in braces, such as '{instruction}'")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Train:
        if not self.targets:
            raise ValueError("`targets` is empty; name modules, such as q_proj and v_proj, or `all-linear`")
        if self.placement == "layers" and (self.processes or 1) > 1:
            raise ValueError("`placement: layers` is one copy of the model, so `processes` cannot be above 1")
        return self

    @property
    def identity(self) -> dict:
        """The settings that the weights follow from. Models and rows count by content, not by name."""
        return self.model_dump(mode="json", exclude={*RECORDED, "base", "data", "name", "split", "n"})

    def steps(self, rows: int) -> int:
        """Optimizer steps for so many rows: epochs in whole batches, the last of which may begin another."""
        return max(1, -int(-(self.epochs * rows) // self.batch_size))

    @property
    def label(self) -> str:
        """A name to print."""
        return f"{self.recipe} on {os.path.basename(self.base.rstrip('/'))}"
