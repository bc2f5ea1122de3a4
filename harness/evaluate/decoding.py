"""Which generation settings a request ends up with. Light."""

from __future__ import annotations

from typing import Any

SAMPLER = ("temperature", "top_p", "top_k", "min_p")


def decoding(own: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The task's generation settings with the family's over them. A temperature means sampling."""
    merged = {**own, **wanted}
    if "do_sample" not in wanted and "temperature" in wanted:
        merged["do_sample"] = wanted["temperature"] > 0
    if not merged.get("do_sample"):  # greedy: settings of a sampler would only make equal requests differ
        merged = {k: v for k, v in merged.items() if k not in SAMPLER}
    return merged


def samples(own: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Whether something is drawn, so that asking again may give another response."""
    return bool(decoding(own, wanted).get("do_sample"))
