"""How the parent and its engine talk: JSON messages with a length before each, over a pair of pipes.

JSON keeps every float exactly (shortest round-trip form) and can carry `NaN` and `Infinity`.
"""

from __future__ import annotations

import json
import struct
from typing import Any, BinaryIO

LENGTH = struct.Struct(">Q")


def send(pipe: BinaryIO, message: Any) -> None:
    """Write one message. Raises BrokenPipeError when the other side is gone."""
    body = json.dumps(message, ensure_ascii=False).encode("utf-8", "surrogatepass")
    pipe.write(LENGTH.pack(len(body)) + body)
    pipe.flush()


def receive(pipe: BinaryIO) -> Any:
    """Read one message. Raises EOFError when the other side is gone, between messages or within one."""
    (length,) = LENGTH.unpack(_exactly(pipe, LENGTH.size))
    return json.loads(_exactly(pipe, length).decode("utf-8", "surrogatepass"))


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    data = pipe.read(count)
    if len(data) < count:
        raise EOFError("the other side of the pipe is gone")
    return data
