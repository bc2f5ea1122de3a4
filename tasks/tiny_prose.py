"""The stories whose word perplexity is measured."""

from harness.families.tiny import data
from harness import generated


@generated("test", "validation")
def prose(split: str) -> list[dict]:
    return data.rows("prose", split)
