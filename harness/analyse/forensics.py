"""What the masks of stored merges consist of, from their `masks.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.merge.block import place_of
from harness.store import Folder

Told = Mapping[str, Any]  # a masks.json
DROP_BOTH = {"led"}  # methods that always do; of others their parameter `exclusion` says it


def read(folder: Path) -> Told | None:
    """The figures of a merge's masks; None where it has none. `drops_both` says whether its method takes what
    two roles select from both."""
    path = folder / "masks.json"
    told = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not told.get("masks"):
        return None
    recipe = Folder(folder).recipe() if (folder / "recipe.yaml").is_file() else {}
    rule = recipe.get("parameters", {}).get("exclusion")
    return {**told, "drops_both": rule == "drop_both" or recipe.get("method") in DROP_BOTH}


def totals(label: str, told: Told) -> list[dict[str, Any]]:
    """One row for each role: shares of all elements selected, in embeddings, with zero gradient, lost to the
    output dtype; energy |M*tau|^2/|tau|^2; overlap of the roles before exclusion as Jaccard index."""
    overlap = jaccard(told["total"]["roles"]) if told.get("drops_both") else None
    return [
        {
            "row": label, "role": role, "selected": own["selected_share"], "energy": own["energy"],
            "embeddings": own["embeddings_share"], "zero_gradient": own.get("zero_gradient_share"),
            "zero_delta": own.get("zero_delta_share"), "unchanged": own.get("unchanged_share"),
            "removed": own.get("removed_share"), "jaccard": overlap,
        }
        for role, own in told["total"]["roles"].items()
    ]  # fmt: skip


def jaccard(roles: Mapping[str, Mapping[str, Any]]) -> float | None:
    """|A and B| / |A or B| of two roles' masks before an exclusion that took the overlap from both; None
    where there are not two roles, or the same was not taken from both."""
    if len(roles) != 2 or any("removed" not in own for own in roles.values()):
        return None
    one, other = roles.values()
    if one["removed"] != other["removed"]:
        return None
    union = one["selected"] + other["selected"] + one["removed"]
    return one["removed"] / union if union else None


def composition(label: str, told: Told, by: str) -> list[dict[str, Any]]:
    """One row for each role and part of the model, `by` module or layer: the part's share of the elements
    and of the selection, the share of the part that is selected, and of a module the energy that is kept."""
    if by == "module":
        parts = told["modules"]
    else:
        parts = {}
        for name, own in told["tensors"].items():
            layer, _ = place_of(name)
            parts.setdefault("outside" if layer is None else layer, []).append(own)
        parts = {layer: _added(own) for layer, own in parts.items()}
    elements = told["total"]["elements"]
    rows = []
    for role, whole in told["total"]["roles"].items():
        for part, own in parts.items():
            mine = own["roles"].get(role)
            if mine is not None:
                energy = {"energy": mine.get("energy")} if by == "module" else {}
                rows.append({
                    "row": label, "role": role, by: part, "of_elements": own["elements"] / elements,
                    "of_selected": _share(mine["selected"], whole["selected"]),
                    "selected": _share(mine["selected"], own["elements"]), **energy,
                })  # fmt: skip
    return rows


def _added(parts: Sequence[Told]) -> dict[str, Any]:
    roles = {role for part in parts for role in part["roles"]}
    return {
        "elements": sum(part["elements"] for part in parts),
        "roles": {
            role: {"selected": sum(p["roles"][role]["selected"] for p in parts if role in p["roles"])}
            for role in sorted(roles)
        },
    }


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None
