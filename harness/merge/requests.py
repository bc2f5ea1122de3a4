"""What methods ask for in `prepare`: generators driven in rounds, equal requests answered once.
Torch-free."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Iterator
from typing import Any

from harness.errors import HarnessError
from harness.method import Cut, Layout, Reduce

Request = Cut | Reduce


class Preparation:
    """The `prepare` of one method: `waiting` is what it asked for last (None once it is done), `state` its
    result."""

    def __init__(self, method: Any, layout: Layout) -> None:
        self.state: Any = None
        self.waiting: Any = None
        self._generator = None
        prepare = getattr(method, "prepare", None)
        if prepare is None:
            return
        made = prepare(layout)
        if inspect.isgenerator(made):
            self._generator = made
            self.answer(None)
        else:
            self.state = made

    @property
    def asks(self) -> bool:
        """Whether it waits for an answer."""
        return self.waiting is not None

    def answer(self, results: Any) -> None:
        """Give the results of what was asked for, and run on to the next request or the end."""
        try:
            self.waiting = self._generator.send(results)
        except StopIteration as end:
            self.waiting, self.state = None, end.value


def requests_in(asked: Any) -> Iterator[Request]:
    """The requests in a request, list, tuple or dict, nested as the method likes."""
    if isinstance(asked, (Cut, Reduce)):
        yield asked
    elif isinstance(asked, dict):
        for item in asked.values():
            yield from requests_in(item)
    elif isinstance(asked, (list, tuple)):
        for item in asked:
            yield from requests_in(item)
    else:
        raise HarnessError(
            f"`prepare` yielded a {type(asked).__name__}",
            "yield a `Cut`, a `Reduce`, or a list, tuple or dict of them",
        )


def replaced(asked: Any, answer: Callable[[Request], Any]) -> Any:
    """`asked` with every request replaced by its answer."""
    if isinstance(asked, dict):
        return {key: replaced(item, answer) for key, item in asked.items()}
    if isinstance(asked, (list, tuple)):
        return type(asked)(replaced(item, answer) for item in asked)
    return answer(asked)


def signature(request: Request) -> tuple[Any, ...]:
    """Equal for requests that have the same answer: functions count by code and closure, not by identity."""
    fields = [
        getattr(request, name)
        for name in request.__dataclass_fields__
        if name not in ("values", "where", "about")
    ]
    functions = (getattr(request, name, None) for name in ("values", "where", "about"))
    return (type(request), *map(function_key, functions), *fields)


def can_wait(asked: Any) -> bool:
    """Whether all requests are such that the pass of the next ones can answer them on its way."""
    return all(
        isinstance(one, Reduce) and one.scope == "tensor" and one.about is not None
        for one in requests_in(asked)
    )


def function_key(function: Any) -> Any:
    """Hashable, and equal for functions of the same code over the same values."""
    if isinstance(function, functools.partial):
        keywords = tuple(sorted((k, _value_key(v)) for k, v in function.keywords.items()))
        return ("partial", function_key(function.func), tuple(map(_value_key, function.args)), keywords)
    if isinstance(function, types.MethodType):
        return ("method", function_key(function.__func__), _value_key(function.__self__))
    if not isinstance(function, types.FunctionType):
        return ("object", function if function is None else id(function))
    try:
        cells = tuple(_value_key(cell.cell_contents) for cell in function.__closure__ or ())
    except ValueError:  # a cell that is not filled yet
        return ("object", id(function))
    defaults = tuple(map(_value_key, function.__defaults__ or ()))
    keywords = tuple(sorted((k, _value_key(v)) for k, v in (function.__kwdefaults__ or {}).items()))
    return ("function", function.__code__, id(function.__globals__), cells, defaults, keywords)


def _value_key(value: Any) -> Any:
    """Plain values count by type and value, functions by `function_key`, anything else by identity."""
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return (type(value), value)
    if isinstance(value, (tuple, list)):
        return (type(value), tuple(map(_value_key, value)))
    if isinstance(value, dict):
        return (dict, tuple((_value_key(k), _value_key(v)) for k, v in value.items()))
    if isinstance(value, (types.FunctionType, types.MethodType, functools.partial)):
        return function_key(value)
    return ("object", id(value))
