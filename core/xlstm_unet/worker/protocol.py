"""The messages: one UTF-8 JSON line, followed by the raw bytes of the arrays that it names.

Both ends use this module; it needs numpy and the standard library only. ``docs/worker-protocol.md`` describes
every message.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xlstm_unet.worker.errors import ProtocolError

MAGIC = "xlstm-unet-worker"
PROTOCOL_VERSION = 1
MAX_HEADER_BYTES = 4 * 2**20
MAX_ARRAYS = 64
MAX_AXES = 8
MAX_PAYLOAD_BYTES = 16 * 2**30
MAX_BANNER_BYTES = 8 * 2**10
"""What a client skips before the first message: ssh banners, messages of the day."""

CHUNK_BYTES = 2**20
START_OF_HELLO = b'{"magic":"' + MAGIC.encode() + b'"'

DTYPES = ("|b1", "|u1", "|i1", "<u2", "<i2", "<u4", "<i4", "<u8", "<i8", "<f2", "<f4", "<f8")

FIELDS: Mapping[str, frozenset[str]] = {
    "request": frozenset({"type", "id", "method", "params", "arrays"}),
    "cancel": frozenset({"type", "id"}),
    "progress": frozenset({"type", "id", "stage", "done", "total", "values"}),
    "result": frozenset({"type", "id", "values", "arrays"}),
    "error": frozenset({"magic", "type", "id", "code", "message", "hint"}),
    "cancelled": frozenset({"type", "id"}),
}
"""Fields of each message; the hello is read by its magic word and versions alone."""

Array = npt.NDArray[Any]


class Stream(Protocol):
    """A raw binary stream such as `io.FileIO`."""

    def readinto(self, buffer: memoryview, /) -> int | None:
        """Fill a part of ``buffer``; 0 at the end."""

    def write(self, data: memoryview, /) -> int | None:
        """Write a part of ``data``; return how much."""


class EndOfStreamError(Exception):
    """The other end closed the stream between two messages."""


@dataclass(frozen=True)
class Reply:
    """What a method answers: values that JSON can hold, and arrays."""

    values: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array] = field(default_factory=dict)
    last: bool = False
    """The worker ends after sending it."""


@dataclass(frozen=True)
class ArraySpec:
    """One announced array."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


@dataclass(frozen=True)
class Header:
    """A parsed JSON line; ``check`` says whether its message may be accepted."""

    fields: dict[str, Any]
    payload_bytes: int

    @property
    def type(self) -> str:
        """Kind of message."""
        return str(self.fields.get("type"))

    @property
    def id(self) -> int | None:
        """Number of the request that the message belongs to."""
        number = self.fields.get("id")
        return number if _is_count(number) else None

    def check(self) -> tuple[ArraySpec, ...]:
        """Return the announced arrays after checking every field against the protocol's bounds.

        Raises
        ------
        ProtocolError
            If a field is unknown or missing, or an array is of a forbidden type, size or shape.
        """
        expected = FIELDS.get(self.type)
        if expected is None:
            raise ProtocolError(f"Unknown message type {self.type!r}, expected one of {', '.join(FIELDS)}.")
        if unknown := sorted(set(self.fields) - expected):
            raise ProtocolError(f"Unknown field {unknown[0]!r} in a message of type {self.type!r}.")
        if self.id is None and not (self.type == "error" and self.fields.get("id") is None):
            raise ProtocolError(f"id is {self.fields.get('id')!r}, expected a whole number from 0.")
        entries = self.fields.get("arrays", [])
        if len(entries) > MAX_ARRAYS:
            raise ProtocolError(
                f"The message announces {len(entries)} arrays, at most {MAX_ARRAYS} may come."
            )
        if self.payload_bytes > MAX_PAYLOAD_BYTES:
            raise ProtocolError(
                f"The message announces {self.payload_bytes} bytes, at most {MAX_PAYLOAD_BYTES} are allowed.",
                "Choose a smaller region.",
            )
        specs = tuple(_checked_spec(entry) for entry in entries)
        if len({spec.name for spec in specs}) < len(specs):
            raise ProtocolError(f"Two arrays share a name: {[spec.name for spec in specs]}.")
        return specs


class MessageReader:
    """Reads messages from a raw stream, for one thread."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    def skip_to_hello(self) -> bytes:
        """Drop what stands before the magic word and return it.

        Raises
        ------
        ProtocolError
            If the magic word is not within the first few KB; the message shows the bytes.
        EndOfStreamError
            If the stream ends before; its argument is what was read.
        """
        while (start := self._buffer.find(START_OF_HELLO)) < 0:
            if len(self._buffer) > MAX_BANNER_BYTES + len(START_OF_HELLO):
                raise ProtocolError(
                    f"No worker's hello in {MAX_BANNER_BYTES} bytes, but {excerpt(self._buffer)}.",
                    "Check the command: it must start xlstm-unet's worker and print nothing else.",
                )
            if not self._fill():
                raise EndOfStreamError(bytes(self._buffer))
        banner = bytes(self._buffer[:start])
        del self._buffer[:start]
        return banner

    def read_header(self) -> Header:
        """Read one JSON line.

        Raises
        ------
        EndOfStreamError
            At a clean end.
        ProtocolError
            If it is no header, or one whose payload has no known length: nothing after it can be read.
        """
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_HEADER_BYTES:
                break
            if not self._fill():
                if not self._buffer:
                    raise EndOfStreamError(b"")
                raise ProtocolError(f"The stream ended within a message that began {excerpt(self._buffer)}.")
        if end < 0 or end > MAX_HEADER_BYTES:
            raise ProtocolError(
                f"A header has more than {MAX_HEADER_BYTES} bytes; it begins {excerpt(self._buffer)}."
            )
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return _parse_header(line)

    def read_payload(self, specs: tuple[ArraySpec, ...]) -> dict[str, Array]:
        """Read the announced arrays.

        Raises
        ------
        MemoryError
            If there is no room for them; nothing has been read then.
        ProtocolError
            If the stream ends before.
        """
        arrays = {spec.name: np.empty(spec.shape, np.dtype(spec.dtype)) for spec in specs}
        for spec in specs:
            if spec.nbytes:
                self._read_exactly(_bytes_of(arrays[spec.name]), spec)
        return arrays

    def drain(self, nbytes: int) -> None:
        """Read and forget the payload of a refused message."""
        from_buffer = min(nbytes, len(self._buffer))
        del self._buffer[:from_buffer]
        left = nbytes - from_buffer
        waste = memoryview(bytearray(min(left, CHUNK_BYTES)))
        while left:
            count = self._stream.readinto(waste[:left])
            if not count:
                raise EndOfStreamError(b"")
            left -= count

    def _fill(self) -> bool:
        chunk = bytearray(2**16)
        count = self._stream.readinto(memoryview(chunk))
        self._buffer += chunk[: count or 0]
        return bool(count)

    def _read_exactly(self, view: memoryview, spec: ArraySpec) -> None:
        done = min(len(view), len(self._buffer))
        view[:done] = self._buffer[:done]
        del self._buffer[:done]
        while done < len(view):
            count = self._stream.readinto(view[done:])
            if not count:
                raise ProtocolError(
                    f"The stream ended after {done} of the {spec.nbytes} bytes of array {spec.name!r}."
                )
            done += count


class MessageWriter:
    """Writes messages to a raw stream, one at a time, from any thread."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self.lock = threading.Lock()

    def write(self, line: bytes, payload: Sequence[Array]) -> None:
        """Write one message, as `encode` made it.

        Raises
        ------
        OSError
            If the other end is gone.
        """
        with self.lock:
            self._write_all(memoryview(line))
            for array in payload:
                if array.nbytes:
                    self._write_all(_bytes_of(array))

    def _write_all(self, view: memoryview) -> None:
        done = 0
        while done < len(view):
            done += self._stream.write(view[done : done + CHUNK_BYTES]) or 0


def encode(message: Mapping[str, Any], arrays: Mapping[str, Array]) -> tuple[bytes, list[Array]]:
    """Return the JSON line and the arrays in C order and little-endian, as they are written.

    Raises
    ------
    ProtocolError
        If a value is not JSON, an array's type is not allowed, or the whole is too large.
    """
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    specs = [
        {
            "name": name,
            "dtype": _wire_dtype(name, array).str,
            "shape": list(array.shape),
            "nbytes": array.nbytes,
        }
        for name, array in plain.items()
    ]
    fields = {**message, "arrays": specs} if specs else dict(message)
    try:
        line = json.dumps(fields, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ProtocolError(f"A message of type {message.get('type')!r} is not JSON: {error}.") from error
    if len(line) > MAX_HEADER_BYTES:
        raise ProtocolError(f"The message's header has {len(line)} bytes, at most {MAX_HEADER_BYTES} may be.")
    if specs:
        Header(fields, sum(array.nbytes for array in plain.values())).check()
    return line, [np.asarray(array, _wire_dtype(name, array), order="C") for name, array in plain.items()]


def excerpt(data: bytes | bytearray, length: int = 120) -> str:
    """Return the beginning of ``data`` as readable text."""
    return repr(bytes(data[:length])) + ("..." if len(data) > length else "")


def _wire_dtype(name: str, array: Array) -> np.dtype[Any]:
    dtype = array.dtype.newbyteorder("<")
    if dtype.str not in DTYPES:
        raise ProtocolError(
            f"Array {name!r} has type {array.dtype}, expected boolean, integer or real of at most 64 bits."
        )
    return dtype


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_header(line: bytes) -> Header:
    try:
        fields = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"Expected a message, found {excerpt(line)} ({error}).") from error
    if not isinstance(fields, dict):
        raise ProtocolError(f"Expected a JSON object, found {excerpt(line)}.")
    entries = fields.get("arrays", [])
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and _is_count(entry.get("nbytes")) for entry in entries
    ):
        raise ProtocolError(f"arrays must be a list of objects with nbytes, found {excerpt(line)}.")
    return Header(fields, sum(entry["nbytes"] for entry in entries))


def _checked_spec(entry: dict[str, Any]) -> ArraySpec:
    name, dtype, shape, nbytes = (entry.get(key) for key in ("name", "dtype", "shape", "nbytes"))
    named = isinstance(name, str) and 0 < len(name) <= 64
    if not named or set(entry) != {"name", "dtype", "shape", "nbytes"}:
        raise ProtocolError(f"An array is announced as {entry!r}, expected name, dtype, shape and nbytes.")
    if dtype not in DTYPES:
        raise ProtocolError(f"Array {name!r} has dtype {dtype!r}, expected one of {', '.join(DTYPES)}.")
    if not isinstance(shape, list) or len(shape) > MAX_AXES or not all(_is_count(size) for size in shape):
        raise ProtocolError(f"Array {name!r} has shape {shape!r}, expected at most {MAX_AXES} sizes.")
    itemsize = int(dtype[2:])
    if math.prod(max(size, 1) for size in shape) * itemsize > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"Array {name!r} has shape {shape}, more than {MAX_PAYLOAD_BYTES} bytes.")
    if nbytes != (needed := math.prod(shape) * itemsize):
        raise ProtocolError(
            f"Array {name!r} announces {nbytes} bytes, but {shape} of {dtype} takes {needed}."
        )
    return ArraySpec(str(name), str(dtype), tuple(shape), needed)
