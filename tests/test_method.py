"""The method contract: parameters are checked, errors name the parameter, lists run over depth."""

from typing import Literal

import pytest

from harness.errors import HarnessError
from harness.method import TensorGroup, configure, merge_method, parameters
from harness.values import param


@merge_method("sample", title="Sample")
class Sample:
    scale: float | list[float] = param(1.0, "scaling coefficient", low=0, high=2, noop=0.0)
    steps: int = param(3, "steps", low=1)
    variant: Literal["linear", "ties"] = param("linear", "which form")
    rescale: bool = param(True, "rescale or not")
    p_task: float | None = param(None, "share", low=0, high=1)

    def merge(self, group, state):
        return group.base


def test_parameters_are_read_from_the_class():
    listed = parameters(Sample)
    assert list(listed) == ["scale", "steps", "variant", "rescale", "p_task"]
    assert listed["scale"][1] == 1.0 and listed["scale"][2].noop == 0.0


@pytest.mark.parametrize(
    "given", [{}, {"scale": 2}, {"scale": [0.1, 0.9]}, {"p_task": None}, {"variant": "ties"}]
)
def test_good_settings_are_taken(given):
    made = configure(Sample, given)
    assert all(getattr(made, key) == value for key, value in given.items())


@pytest.mark.parametrize(
    ("given", "told", "hint"),
    [
        ({"scael": 1}, "no parameter `scael`", "`scale`"),
        ({"scale": 2.5}, "2.5, out of range", "0 <= value <= 2"),
        ({"scale": float("nan")}, "nan, out of range", ""),
        ({"scale": [0.1, 3]}, "3, out of range", ""),
        ({"scale": "big"}, "`scale` of method `sample` is 'big'", "a number"),
        ({"scale": True}, "is True", "a number"),
        ({"steps": 1.5}, "is 1.5", "a whole number"),
        ({"steps": 0}, "is 0, out of range", "1 <= value"),
        ({"variant": "sum"}, "is 'sum'", "`linear`"),
        ({"rescale": "yes"}, "is 'yes'", "true or false"),
    ],
)
def test_bad_settings_are_told(given, told, hint):
    with pytest.raises(HarnessError) as caught:
        configure(Sample, given)
    assert told in caught.value.message and hint in caught.value.hint


def test_a_list_is_spread_over_the_layers():
    def group(module, layer):
        return TensorGroup("t", module, layer, 5, (1,), 0, None, {}, {})

    values = [group("q_proj", layer).at([0.0, 1.0]) for layer in range(5)]
    assert values == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert group("embed_tokens", None).at([0.2, 0.8]) == 0.2
    assert group("norm", None).at([0.2, 0.8]) == 0.8
    assert group("norm", None).at(0.3) == 0.3
