from __future__ import annotations

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlstm_unet.worker.errors import ProtocolError
from xlstm_unet.worker.protocol import (
    MAX_BANNER_BYTES,
    MAX_HEADER_BYTES,
    EndOfStreamError,
    MessageReader,
    MessageWriter,
    encode,
)

REQUEST = {"type": "request", "id": 1, "method": "echo", "params": {"text": "naïve 空"}}


def written(message, arrays=None) -> bytes:
    stream = io.BytesIO()
    MessageWriter(stream).write(*encode(message, arrays or {}))
    return stream.getvalue()


def announce(**changes) -> dict:
    spec = {"name": "image", "dtype": "<f4", "shape": [2, 3], "nbytes": 24}
    return {**REQUEST, "arrays": [{**spec, **changes}]}


def header_of(fields) -> MessageReader:
    return MessageReader(io.BytesIO(json.dumps(fields).encode() + b"\n")).read_header()


class Dripping(io.RawIOBase):
    """A stream that gives one to seven bytes at a time, as pipes may."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place, self.step = data, 0, 0

    def readinto(self, buffer):
        self.step = self.step % 7 + 1
        piece = self.data[self.place : self.place + min(self.step, len(buffer))]
        buffer[: len(piece)] = piece
        self.place += len(piece)
        return len(piece)


ARRAYS = {
    "scalar": np.array(3, np.int16),
    "empty": np.zeros((0, 5), np.float32),
    "strided": np.arange(24, dtype=np.float64).reshape(4, 6)[::2, ::3],
    "fortran": np.asfortranarray(np.arange(6, dtype=np.uint16).reshape(2, 3)),
    "big_endian": np.arange(5, dtype=">i4"),
    "mask": np.array([True, False]),
    "half": np.array([[0.5]], np.float16),
}


def test_arrays_of_every_kind_arrive_as_they_were():
    reader = MessageReader(Dripping(written(REQUEST, ARRAYS) + written({"type": "cancel", "id": 1})))
    header = reader.read_header()
    assert header.fields["params"] == REQUEST["params"]
    arrays = reader.read_payload(header.check())
    assert list(arrays) == list(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], array)
        assert arrays[name].dtype == array.dtype.newbyteorder("=")
        assert arrays[name].shape == array.shape
    assert reader.read_header().type == "cancel"
    with pytest.raises(EndOfStreamError):
        reader.read_header()


@pytest.mark.parametrize(
    ("array", "named"),
    [(np.array(["a"]), "<U1"), (np.array([None]), "object"), (np.zeros(2, complex), "complex128")],
)
def test_arrays_of_other_types_are_not_sent(array, named):
    with pytest.raises(ProtocolError, match=named):
        written(REQUEST, {"image": array})


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        (announce(nbytes=25), "announces 25 bytes"),
        (announce(shape=[2**20, 2**20], nbytes=2**42), "at most"),
        (announce(shape=[0, 2**62], nbytes=0), "more than"),
        (announce(shape=[-1], nbytes=4), "shape"),
        (announce(shape=[1.0], nbytes=4), "shape"),
        (announce(shape=[True], nbytes=4), "shape"),
        (announce(shape=[1] * 9, nbytes=4), "at most 8 sizes"),
        (announce(dtype="|O", nbytes=48), "dtype"),
        (announce(dtype=">f4"), "dtype"),
        (announce(name=""), "announced"),
        (announce(order="F"), "announced"),
        ({**REQUEST, "arrays": announce()["arrays"] * 2}, "share a name"),
        ({**REQUEST, "arrays": announce()["arrays"] * 65}, "at most 64"),
        ({**REQUEST, "colour": 1}, "Unknown field 'colour'"),
        ({**REQUEST, "type": "order"}, "Unknown message type 'order'"),
        ({**REQUEST, "id": -1}, "id is -1"),
        ({**REQUEST, "id": True}, "id is True"),
        ({"type": "cancel"}, "id is None"),
    ],
)
def test_messages_out_of_bounds_are_refused_before_anything_is_allocated(fields, named):
    header = header_of(fields)
    with pytest.raises(ProtocolError, match=named):
        header.check()


@pytest.mark.parametrize(
    "line",
    [
        b"Traceback (most recent call last):",
        b"[1, 2]",
        b'"text"',
        b"\xff\xfe{}",
        b'{"type": "request", "arrays": [{"nbytes": -1}]}',
        b'{"type": "request", "arrays": {"nbytes": 1}}',
        b'{"type": "request", "arrays": [7]}',
        b'{"value": NaN}',
        b"[" * 100_000,
        b'{"id": ' + b"9" * 10_000 + b"}",
    ],
)
def test_lines_without_a_known_length_are_shown(line):
    with pytest.raises(ProtocolError):
        MessageReader(io.BytesIO(line + b"\n")).read_header()


@given(st.binary(max_size=200))
def test_random_bytes_raise_only_protocol_errors(data):
    reader = MessageReader(io.BytesIO(data))
    try:
        while True:
            reader.read_payload(reader.read_header().check())
    except (ProtocolError, EndOfStreamError):
        pass


def test_endless_header_is_refused_within_its_bound():
    class Endless(io.RawIOBase):
        given = 0

        def readinto(self, buffer):
            buffer[:] = b"{" * len(buffer)
            self.given += len(buffer)
            return len(buffer)

    stream = Endless()
    with pytest.raises(ProtocolError, match="more than"):
        MessageReader(stream).read_header()
    assert stream.given < MAX_HEADER_BYTES + 2**18


def test_large_headers_are_not_written():
    with pytest.raises(ProtocolError, match="at most"):
        written({**REQUEST, "params": {"text": "x" * MAX_HEADER_BYTES}})


@pytest.mark.parametrize("cut", [1, 30, -1])
def test_cut_streams_are_told(cut):
    data = written(REQUEST, {"image": np.ones((10, 10))})[:cut]
    reader = MessageReader(io.BytesIO(data))
    with pytest.raises(ProtocolError, match="ended"):
        reader.read_payload(reader.read_header().check())


def test_drained_payload_leaves_the_next_message():
    reader = MessageReader(Dripping(written(REQUEST, {"image": np.ones(100)}) + written(REQUEST)))
    reader.drain(reader.read_header().payload_bytes)
    assert reader.read_header().id == 1


HELLO = {"magic": "xlstm-unet-worker", "type": "hello"}


@pytest.mark.parametrize("banner", [b"", b"Welcome!\n", b"no newline", b'{"magic":"xlstm-un', b"x" * 8000])
def test_banner_before_the_hello_is_skipped(banner):
    reader = MessageReader(Dripping(banner + written(HELLO)))
    assert reader.skip_to_hello() == banner
    assert reader.read_header().fields == HELLO


def test_endless_banner_is_shown():
    with pytest.raises(ProtocolError, match="MOTD"):
        MessageReader(io.BytesIO(b"MOTD " * MAX_BANNER_BYTES)).skip_to_hello()
