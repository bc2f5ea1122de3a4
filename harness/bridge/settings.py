"""mergekit's parameters as ours, checked before anything is read, and back into mergekit's configuration.

mergekit ignores keys it does not know and takes 1 for a `density` that is left out; here every value is
written out. Its `lambda` is called `scale`, as everywhere in the harness.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from harness import ops
from harness.bridge.definitions import Definition, Parameter
from harness.errors import HarnessError, nearest
from harness.values import Param, check_value, param

OURS = {"lambda": "scale"}  # a keyword of Python
TYPES = {"float": float, "int": int, "bool": bool, "str": str, "typing.Optional[float]": float | None}
NOT_SILENT = ("density",)  # mergekit's default makes the method another one
NOOPS = {"lambda": 0.0, "density": 1.0}
RANGES = {  # inclusive; mergekit checks none of them
    "density": (0, 1),
    "select_topk": (0, 1),
    "gamma": (0, 1),
    "epsilon": (0, 1),
    "t": (0, None),
    "tol": (0, None),
    "eps": (0, None),
    "max_iter": (0, None),
}
HELP = {
    "weight": "weight of a model; a number, or numbers by role (a role not named has 1)",
    "density": "share of each task vector that is kept; a number, or numbers by role",
    "lambda": "mergekit's `lambda`, factor of what is added to the base",
    "t": "from the first of `models` (0) towards the second",
    "normalize": "divide by the sum of the weights",
    "rescale": "give a thinned task vector its L1 norm back",
    "int8_mask": "hold signs in 8 bits",
    "gamma": "share of the largest entries that is dropped as well",
    "select_topk": "share of the elements that is kept, by variance between the experts",
    "scale": "factor of the model; a number, or numbers by role",
}
MODELS = "roles that take part, in order; empty: {}"


def fields(definition: Definition) -> dict[str, tuple[Any, Any]]:
    """name -> (type, dataclass field) of a method's parameters, for `merge_method`."""
    who = "the experts, two of them" if definition.is_pair else "all experts"
    made = {"models": (list[str], param([], MODELS.format(who)))}
    if definition.base == "optional":
        made["use_base"] = (
            bool,
            param(True, "true: interpolate task vectors; false: the weights themselves"),
        )
    for parameter in definition.parameters:
        made[OURS.get(parameter.name, parameter.name)] = _field(definition, parameter)
    return made


def _field(definition: Definition, parameter: Parameter) -> tuple[Any, Any]:
    name, low_high = parameter.name, RANGES.get(parameter.name, (None, None))
    text = HELP.get(name, f"mergekit's `{name}`")
    made = param(_default(parameter), text, low=low_high[0], high=low_high[1], noop=NOOPS.get(name))
    return _hint(parameter), made


def _default(parameter: Parameter) -> Any:
    if parameter.name in NOT_SILENT:
        return None
    if parameter.required:
        return 1.0 if parameter.name == "weight" else None
    return parameter.default


def _hint(parameter: Parameter) -> Any:
    """A number may be a list over depth, or a list of `{filter, value}` over tensor names."""
    scalar = TYPES.get(parameter.type, Any)
    if scalar not in (float, int, float | None):
        return scalar
    hint = scalar | list[scalar] | list[dict[str, Any]]
    if parameter.scope != "shared":
        hint = hint | dict[str, Any]
    return hint if _default(parameter) is not None else hint | None


def check(method: Any, definition: Definition) -> None:
    """What a value's type alone does not say; raises `HarnessError`. Knows nothing of the family yet."""
    for parameter in definition.parameters:
        ours = OURS.get(parameter.name, parameter.name)
        value = getattr(method, ours)
        if value is None and (parameter.required or parameter.name in NOT_SILENT):
            silent = " (mergekit would take 1, and drop nothing)" if parameter.name in NOT_SILENT else ""
            raise HarnessError(
                f"`{definition.label}` needs `{ours}`, which has no default{silent}",
                f"give `--set {ours}=0.5`, or `{ours}: 0.5` in the family's row",
            )
        for where, part in _parts(value):
            _check_part(f"`{ours}{where}` of method `{definition.label}`", part, parameter)


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """The numbers and plain lists in a value, each with the place where it stands."""
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from ((f".{key}{where}", inner) for where, inner in _parts(part))
    elif isinstance(value, (list, tuple)) and any(isinstance(part, Mapping) for part in value):
        for i, part in enumerate(value):
            if not isinstance(part, Mapping) or not {"value"} <= set(part) <= {"filter", "value"}:
                raise HarnessError(
                    f"an entry of a list is {part!r}", "expected {filter: NAME, value: NUMBER}"
                )
            yield f"[{i}].value", part["value"]
    else:
        yield "", value


def _check_part(what: str, value: Any, parameter: Parameter) -> None:
    scalar = TYPES.get(parameter.type, Any)
    hint = scalar | list[scalar] if scalar in (float, int, float | None) else scalar
    if not (value is None and not parameter.required):
        low, high = RANGES.get(parameter.name, (None, None))
        check_value(what, value, hint, Param(low=low, high=high))


def lineup(method: Any, definition: Definition, roles: Sequence[str]) -> tuple[str | None, list[str]]:
    """(mergekit's `base_model`, the models listed) as roles. Raises `HarnessError` when they are too few or
    too many, unknown, or named twice."""
    around_base = definition.base == "required" or (definition.base == "optional" and method.use_base)
    free = definition.is_pair or not around_base
    known = ("base", *roles) if free else tuple(roles)
    models = list(method.models)
    for role in models:
        if role == "base" and not free:
            raise HarnessError(f"`models` of `{definition.label}` names the base", "it always takes part")
        if role not in known:
            raise HarnessError(f"`models` of `{definition.label}` names `{role}`", nearest(role, known))
    if len(set(models)) < len(models):
        raise HarnessError(f"`models` of `{definition.label}` is {models}", "name each role once")
    if not models:
        models = ["base", *roles] if definition.is_pair and len(roles) == 1 else list(roles)
    base = "base" if around_base and not definition.is_pair else models[0]
    _check_count(definition, models, base if around_base else None, roles)
    return (base if around_base or definition.base == "ignored" else None), models


def _check_count(definition: Definition, models: list[str], base: str | None, roles: Sequence[str]) -> None:
    others = [role for role in models if role != base]
    extra = 0 if base is None else 1
    least = max(definition.inputs[0] - extra, definition.non_base[0] or 0, 1)
    limits = [n - extra for n in definition.inputs[1:] if n] + [n for n in definition.non_base[1:] if n]
    most = min(limits, default=None)
    if len(others) < least or (most is not None and len(others) > most):
        pair = extra if definition.is_pair else 0
        wanted = least + pair if least == most else f"{least} or more"
        takes = f"{wanted} model{'s' if wanted != 1 else ''}" + (" besides the base" if extra - pair else "")
        raise HarnessError(
            f"`{definition.label}` takes {takes}, and was given {len(models)}: {', '.join(models)}",
            "choose them with `models: [...]`; the family has " + ", ".join(("base", *roles)),
        )


def by_role(method: Any, definition: Definition, roles: Sequence[str]) -> dict[str, dict[str, Any]]:
    """role -> mergekit's per-model parameters, for the models that have any."""
    base, models = lineup(method, definition, roles)
    per_model: dict[str, dict[str, Any]] = {role: {} for role in models}
    for parameter in definition.parameters:
        if parameter.scope == "shared":
            continue
        having = [role for role in models if parameter.scope == "input" or role != base]
        value = getattr(method, OURS.get(parameter.name, parameter.name))
        if isinstance(value, Mapping):
            value = ops.by_role(value, _default(parameter), having, parameter.name)
        for role in having:
            one = value[role] if isinstance(value, Mapping) else value
            if one is None and parameter.name in NOT_SILENT:
                raise HarnessError(
                    f"`{parameter.name}` of `{definition.label}` says nothing of `{role}`",
                    "name every expert",
                )
            if one is not None:
                per_model[role][parameter.name] = one
    return per_model


def check_roles(method: Any, definition: Definition, roles: Sequence[str]) -> None:
    """What depends on the family's roles; raises `HarnessError`."""
    per_model = by_role(method, definition, roles)
    weights = [_number(values["weight"]) for values in per_model.values() if "weight" in values]
    divided = (definition.name == "linear" and method.normalize) or getattr(
        method, "normalize_weights", False
    )
    if divided and weights and None not in weights and sum(weights) == 0:
        raise HarnessError(
            f"the weights of `{definition.label}` add up to 0", "the mean is divided by their sum"
        )
    for role, values in per_model.items():
        density, epsilon = _number(values.get("density")), _number(values.get("epsilon"))
        if None in (density, epsilon) or density in (0, 1):
            continue
        if density - epsilon <= 0 or density + epsilon >= 1:
            raise HarnessError(
                f"`{definition.label}` keeps elements of `{role}` with probability {density:g} ± {epsilon:g}",
                "choose `density` and `epsilon` so that both ends lie between 0 and 1",
            )


def configuration(
    method: Any, definition: Definition, roles: Sequence[str], out_dtype: str
) -> dict[str, Any]:
    """mergekit's configuration (its YAML as a mapping); models are called by their roles."""
    base, _ = lineup(method, definition, roles)
    per_model = by_role(method, definition, roles)
    shared = {
        p.name: value
        for p in definition.parameters
        if p.scope == "shared" and (value := getattr(method, OURS.get(p.name, p.name))) is not None
    }
    models = [
        {"model": role, **({"parameters": values} if values else {})} for role, values in per_model.items()
    ]
    return {
        "merge_method": definition.name,
        **({"base_model": base} if base else {}),
        "models": models,
        **({"parameters": shared} if shared else {}),
        "dtype": "float32",
        "out_dtype": out_dtype,
    }


def degenerate(method: Any, definition: Definition, roles: Sequence[str]) -> list[str]:
    """Sentences about settings that change nothing."""
    base, models = lineup(method, definition, roles)
    per_model = by_role(method, definition, roles)
    densities = [_number(v.get("density")) for v in per_model.values() if "density" in v]
    weights = [_number(v.get("weight")) for v in per_model.values() if "weight" in v]
    t = _number(getattr(method, "t", None))
    normal = getattr(method, "normalize", False) or getattr(method, "normalize_weights", False)
    equal = len(set(weights)) == 1 and weights[0] not in (None, 0, 1)
    each = f"{weights[0]:g}" if equal else ""
    in_base = [
        ("scale 0", _has(definition, "lambda") and ops.zero(getattr(method, "scale", 1))),
        ("density 0", densities and set(densities) == {0}),
        ("weight 0 on every expert", definition.base == "required" and weights and set(weights) == {0}),
        ("select_topk 0", getattr(method, "select_topk", 1) == 0),
    ]
    return ops.said(
        *((bool(holds), f"{what}: the result is the base") for what, holds in in_base),
        (t == 0, f"t 0: the result is `{models[0]}`"),
        (definition.name == "slerp" and t == 1, f"t 1: the result is `{models[-1]}`"),
        (bool(densities) and set(densities) == {1}, "density 1: nothing is dropped"),
        (
            bool((normal or definition.name == "nuslerp") and equal),
            f"weight {each} on every expert changes nothing: weights are normalized",
        ),
    )


def _has(definition: Definition, name: str) -> bool:
    return any(parameter.name == name for parameter in definition.parameters)


def _number(value: Any) -> float | None:
    """A plain number, or a list that repeats one; None for what varies."""
    if isinstance(value, (list, tuple)) and value and all(part == value[0] for part in value):
        value = value[0]
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None
