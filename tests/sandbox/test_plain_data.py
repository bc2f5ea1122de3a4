"""The encoding between a program and its grader, and the filter of system calls, which is checked by a small
interpreter of its instructions."""

import math
import struct
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import IntEnum
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.sandbox import seccomp
from harness.sandbox.inside import DEPTH, FRAME, Unsendable, dumps, framed, loads

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.recursive(
    scalars, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=4
)
values = st.recursive(
    keys,
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner) | st.dictionaries(keys, inner, max_size=4)
    | st.sets(keys, max_size=4),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(values)
def test_plain_data_comes_back_as_it_was(value):
    assert repr(loads(dumps(value))) == repr(value) or loads(dumps(value)) == value


@pytest.mark.parametrize("value", [2**64, math.inf, -math.inf, -0.0, 5e-324, "\ud800", "\0", range(3, 9, 2)])
def test_corners_come_back_as_they_were(value):
    back = loads(dumps(value))
    assert back == value and type(back) is type(value)
    assert not isinstance(value, float) or math.copysign(1, back) == math.copysign(1, value)


def test_a_number_of_many_digits_comes_back():
    assert loads(dumps(-(10**9000))) == -(10**9000)


def test_not_a_number_comes_back():
    assert math.isnan(loads(dumps(math.nan)))


def test_subclasses_come_as_what_they_derive_from():
    point = namedtuple("point", "x y")(1, 2)
    colour = IntEnum("colour", "red green").green
    counted, ordered, default = Counter("aab"), OrderedDict(a=1), defaultdict(list, a=[1])
    for value, kind in ((point, tuple), (colour, int), (counted, dict), (ordered, dict), (default, dict)):
        back = loads(dumps(value))
        assert type(back) is kind and back == value
    assert loads(dumps(Fraction(1, 2))) == 0.5


def test_an_iterator_can_be_gone_through_once_and_equals_nothing():
    back = loads(dumps(x * x for x in range(3)))
    assert back != [0, 1, 4] and list(back) == [0, 1, 4]


@pytest.mark.parametrize("value", [object(), len, Exception("x"), 1j, [lambda: 0]])
def test_other_values_cannot_be_sent(value):
    with pytest.raises(Unsendable):
        dumps(value)


def test_too_much_cannot_be_sent():
    nested = []
    for _ in range(DEPTH + 1):
        nested = [nested]
    for value in (nested, "x" * FRAME, iter(int, 1)):
        with pytest.raises(Unsendable):
            dumps(value)


NOT_PLAIN = [
    b"", b"{", b"{}", b'{"a": 1}', b'{"tuple": 1}', b'{"tuple": [], "set": []}', b'{"set": [[]]}',
    b'{"int": [1]}', b'{"dict": [[1]]}', b'{"dict": [[[], 1]]}', b'{"range": []}', b'{"int": "zz"}',
    b'{"bytes": "x"}', b'{"tuple": "x"}', b'{"a": []}', b"[" * 100_000, b"1" * 5000, b"\xff\xfe", b'"\\',
    b'{"iterator": "x"}', b"\x80\x04.",
]  # fmt: skip


@pytest.mark.parametrize("data", NOT_PLAIN)
def test_what_is_not_plain_data_is_refused(data):
    with pytest.raises(ValueError, match="not plain data"):
        loads(data)


def test_a_frame_is_its_length_and_its_content():
    assert framed(b"abc") == b"\0\0\0\3abc"


def verdict(machine, architecture, call, argument=0):
    """What the filter says of a system call: a RETURN value."""
    data = struct.pack("=iIQ6Q", call, architecture, 0, argument, 0, 0, 0, 0, 0)
    code = [line for line in struct.iter_unpack("=HBBI", seccomp.program(machine))]
    at = value = 0
    while True:
        opcode, yes, no, k = code[at]
        at += 1
        if opcode == seccomp.LOAD:
            value = struct.unpack_from("=I", data, k)[0]
        elif opcode == seccomp.RETURN:
            return k
        else:
            true = {seccomp.EQUAL: value == k, seccomp.AT_LEAST: value >= k, seccomp.ANY_BIT: bool(value & k)}
            at += yes if true[opcode] else no


@pytest.mark.parametrize("machine, column, read, fork", [("x86_64", 0, 0, 56), ("aarch64", 1, 63, 220)])
def test_the_filter_denies_what_it_should(machine, column, read, fork):
    _, architecture = seccomp.MACHINES[machine]

    def says(call, argument=0):
        return verdict(machine, architecture, call, argument)

    assert says(read) == seccomp.ALLOW
    assert {says(numbers[column]) for numbers in seccomp.DENIED.values()} == {seccomp.DENY}
    assert says(seccomp.CLONE3) == seccomp.ABSENT
    assert says(fork, 17) == seccomp.ALLOW and says(fork, 0x3D0F00) == seccomp.ALLOW  # a process, a thread
    assert says(fork, 17 | 0x10000000) == seccomp.DENY and says(fork, 17 | 0x20000000) == seccomp.DENY
    assert [says(seccomp.SOCKET[column], family) for family in (1, 2, 10, 16, 40)] == \
        [seccomp.ALLOW] + [seccomp.DENY] * 4  # fmt: skip
    assert verdict(machine, architecture ^ 1, read) == seccomp.KILL
    if machine == "x86_64":
        assert says(0x40000000 + read) == seccomp.DENY


def test_a_machine_without_a_filter_has_none():
    assert seccomp.program("riscv64") == b""
