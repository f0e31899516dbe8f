"""The worker's end of the pipe: one thread reads requests, one for each lane works on them.

Only the standard library is imported here before the streams are the worker's own (see ``main``).
"""

from __future__ import annotations

import faulthandler
import os
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from xlstm_unet import __version__
from xlstm_unet.allocator import tune_allocator
from xlstm_unet.errors import CancelledError, XLSTMUNetError
from xlstm_unet.worker.stdio import take_over

if TYPE_CHECKING:
    from xlstm_unet.progress import Progress
    from xlstm_unet.worker.protocol import Header, Reply, Stream
    from xlstm_unet.worker.registry import Method, Params, Task

MAX_WAITING = 64
NICENESS = 5
"""What a worker adds to its own on Unix: a window on the same cores must not wait for it."""
FAREWELL_SECONDS = 0.5
"""What running work gets to remove its temporary files once the client is gone."""

Description = Mapping[str, Any]
Prepare = Callable[[], "tuple[Callable[[], Description], Iterable[Method]]"]
"""Imports what is heavy; returns what describes the worker (devices, models) and its methods."""


def main() -> NoReturn:
    """Run the worker on stdin and stdout until stdin closes.

    Call it before anything is printed: from here on, whatever prints to stdout prints to stderr.
    """
    tune_allocator()
    if hasattr(os, "nice"):  # on Windows the client starts it with a lower priority
        os.nice(NICENESS)
    serve(_prepare)


def serve(prepare: Prepare) -> NoReturn:
    """Take stdin and stdout over and serve the methods that ``prepare`` returns; never returns."""
    incoming, outgoing = take_over()
    faulthandler.enable()
    Server(incoming, outgoing).run(prepare)


def _prepare() -> tuple[Callable[[], Description], Iterable[Method]]:
    from xlstm_unet.worker.session import Session

    session = Session()
    return session.describe, session.methods()


@dataclass(frozen=True)
class _Request:
    """An accepted request."""

    id: int
    method: Method
    params: Params
    task: Task
    key: str | None


class Server:
    """Answers the messages of one client.

    Parameters
    ----------
    incoming, outgoing
        Raw binary streams.
    """

    def __init__(self, incoming: Stream, outgoing: Stream) -> None:
        from xlstm_unet.worker.protocol import MessageReader, MessageWriter

        self._reader = MessageReader(incoming)
        self._writer = MessageWriter(outgoing)
        self._ready = threading.Event()
        self._methods: dict[str, Method] = {}
        self._requests: dict[int, _Request] = {}
        self._lock = threading.Lock()
        self._lanes: dict[str, queue.SimpleQueue[_Request]] = {
            "job": queue.SimpleQueue(),
            "quick": queue.SimpleQueue(),
            "network": queue.SimpleQueue(),
        }

    def run(self, prepare: Prepare) -> NoReturn:
        """Say hello and serve until the client closes the stream; ends the process."""
        from xlstm_unet.worker.protocol import MAGIC, PROTOCOL_VERSION

        threading.Thread(target=self._read, name="stdin", daemon=True).start()
        versions = {"protocol": PROTOCOL_VERSION, "version": __version__}
        try:
            describe, methods = prepare()
            self._register(methods, lambda: {**versions, "pid": os.getpid(), **describe()})
            hello = {"magic": MAGIC, "type": "hello", **self._describe(), "methods": sorted(self._methods)}
        except Exception as error:
            traceback.print_exc()
            code, message, hint = _explain(error)
            self._send(
                {"magic": MAGIC, "type": "error", "id": None, "code": code, "message": message, "hint": hint}
            )
            self._end(1)
        self._send(hello)
        self._ready.set()
        for lane in ("quick", "network"):
            threading.Thread(target=self._work, args=[lane], name=lane, daemon=True).start()
        self._work("job")

    def _register(self, methods: Iterable[Method], describe: Callable[[], dict[str, Any]]) -> None:
        from xlstm_unet.worker.protocol import Reply
        from xlstm_unet.worker.registry import Method, Params

        own = (
            Method("hello", Params, lambda params, task: Reply(describe()), lane="quick"),
            Method("shutdown", Params, lambda params, task: Reply(last=True), lane="quick"),
        )
        self._methods = {method.name: method for method in (*own, *methods)}
        self._describe = describe

    def _read(self) -> None:
        """Read messages until the end of the stream, which is the end of the worker."""
        from xlstm_unet.worker.errors import ProtocolError
        from xlstm_unet.worker.protocol import EndOfStreamError

        try:
            while True:
                header = self._reader.read_header()
                self._ready.wait()
                self._take(header)
        except (EndOfStreamError, OSError):
            self._end(0)
        except ProtocolError as error:
            self._send_error(None, error)
        except BaseException as error:
            traceback.print_exc()
            self._send_error(None, error)
        self._end(2)

    def _take(self, header: Header) -> None:
        try:
            specs = header.check()
            if header.type == "cancel":
                self._cancel(header.id)
                return
            request = self._accept(header, self._checked(header))
            request.task.arrays = self._reader.read_payload(specs)
        except (XLSTMUNetError, MemoryError) as error:
            self._send_error(header.id, error)
            self._reader.drain(header.payload_bytes)
            return
        self._enqueue(request)

    def _checked(self, header: Header) -> tuple[Method, Params]:
        from xlstm_unet.worker.errors import ProtocolError
        from xlstm_unet.worker.registry import find

        if header.type != "request":
            raise ProtocolError(f"A worker takes requests and cancels, no message of type {header.type!r}.")
        method = find(self._methods, header.fields.get("method"))
        return method, method.check(header.fields.get("params", {}), header.check())

    def _accept(self, header: Header, checked: tuple[Method, Params]) -> _Request:
        from xlstm_unet.worker.errors import ProtocolError, WorkerError
        from xlstm_unet.worker.registry import Task

        method, params = checked
        number = header.id
        assert number is not None
        with self._lock:
            if number in self._requests:
                raise ProtocolError(f"Request {number} is still being answered, expected a new id.")
            if len(self._requests) >= MAX_WAITING:
                raise WorkerError(
                    f"{MAX_WAITING} requests are waiting, no more are taken.",
                    "Wait for them, or cancel some.",
                )
        key = method.replaces(params) if method.replaces else None
        return _Request(number, method, params, Task(lambda step: self._send_progress(number, step)), key)

    def _enqueue(self, request: _Request) -> None:
        with self._lock:
            replaced = [
                other.id
                for other in self._requests.values()
                if request.key is not None
                and (other.method.name, other.key) == (request.method.name, request.key)
            ]
            self._requests[request.id] = request
        for number in replaced:
            self._cancel(number)
        self._lanes[request.method.lane].put(request)

    def _cancel(self, number: int | None) -> None:
        """Stop a running request; answer for a waiting one; nothing if it has been answered already."""
        with self._lock:
            request = self._requests.get(number) if number is not None else None
            waiting = request is not None and not request.task.started
            if request is not None:
                request.task.cancel()
                if waiting:
                    del self._requests[request.id]
                    request.task.arrays.clear()
        if waiting:
            self._send({"type": "cancelled", "id": number})

    def _work(self, lane: str) -> NoReturn:
        while True:
            self._answer(self._lanes[lane].get())

    def _answer(self, request: _Request) -> None:
        reply: Reply | None = None
        problem: BaseException | None = None
        with self._lock:
            if request.task.cancelled():  # answered while it waited
                return
            request.task.started = True
        try:
            reply = request.method.run(request.params, request.task)
        except (Exception, SystemExit) as error:
            problem = error
        request.task.arrays.clear()
        with self._lock:
            del self._requests[request.id]
        if reply is not None:
            self._send_reply(request.id, reply)
        elif isinstance(problem, CancelledError):
            self._send({"type": "cancelled", "id": request.id})
        else:
            self._send_error(request.id, problem)

    def _send_reply(self, number: int, reply: Reply) -> None:
        try:
            self._send({"type": "result", "id": number, "values": reply.values}, reply.arrays)
        except XLSTMUNetError as error:  # a reply that the protocol cannot carry
            self._send_error(number, error)
        if reply.last:
            self._end(0)

    def _send_progress(self, number: int, step: Progress) -> None:
        message = {"type": "progress", "id": number}
        message |= {"stage": step.stage, "done": step.done, "total": step.total}
        self._send({**message, "values": dict(step.values)} if step.values else message)

    def _send_error(self, number: int | None, error: BaseException | None) -> None:
        if not isinstance(error, XLSTMUNetError):
            traceback.print_exception(error, file=sys.stderr)
        code, message, hint = _explain(error)
        self._send({"type": "error", "id": number, "code": code, "message": message, "hint": hint})

    def _send(self, message: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
        from xlstm_unet.worker.protocol import encode

        line, payload = encode(message, arrays or {})
        try:
            self._writer.write(line, payload)
        except OSError:  # the client is gone
            self._end(0)

    def _end(self, exit_code: int) -> NoReturn:
        """End the process, after a moment in which running work may tidy up."""
        with self._lock:
            requests = list(self._requests.values())
        for request in requests:
            request.task.cancel()
        deadline = time.monotonic() + FAREWELL_SECONDS
        while (
            any(request.task.started for request in self._requests.copy().values())
            and time.monotonic() < deadline
        ):
            time.sleep(0.01)
        os._exit(exit_code)


def _explain(error: BaseException | None) -> tuple[str, str, str]:
    """Return code, message and hint of an error."""
    from xlstm_unet.worker.errors import InternalError, MemoryShortageError

    if isinstance(error, XLSTMUNetError):
        return error.code, error.message, error.hint
    text = f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError) or "not enough memory" in text or "out of memory" in text:
        hint = "Choose a smaller region, or close other programs; then try again."
        return MemoryShortageError.code, f"There is not enough memory ({text}).", hint
    return InternalError.code, text, "Please report it, with the worker's last lines."
