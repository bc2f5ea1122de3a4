"""The stories whose word perplexity is measured."""

from harness import generated
from harness.families.tiny import data


@generated("test", "validation")
def prose(split: str) -> list[dict]:
    return data.rows("prose", split)
