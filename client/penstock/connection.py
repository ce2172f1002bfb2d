"""The Unix socket to the router of an embedded server: frames of offline.proto, in both ways."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Sequence

from penstock.embedded import ServerError
from penstock_proto.offline_pb2 import FromRouter, Hello, Parameters, Prompt, ToRouter

PREFIX = 4  # bytes of a frame's length
HELLO_SECONDS = 30.0

Message = object  # Started, Piece or Failed; None: the server is gone
Sink = Callable[[Message], None]


class Connection:
    """Thread-safe. A thread of its own reads, and hands each prompt's messages to the sink that it
    was sent with; a sink that gets None will get nothing more."""

    def __init__(self, path: str, why: Callable[[], str]) -> None:
        """why: says why the server is gone, once it is. Raises ServerError where it is at once."""
        self.why = why
        self._socket = socket.socket(socket.AF_UNIX)
        self._numbers = itertools.count(1)
        self._sending = threading.Lock()
        self._lock = threading.Lock()  # of the sinks
        self._sinks: dict[int, Sink] = {}
        self._gone = False
        self._greeted = threading.Event()
        self.hello = Hello()
        try:
            self._socket.connect(path)
        except OSError as error:
            raise ServerError(f"{why()} ({error})") from None
        self._thread = threading.Thread(target=self._read, name="penstock-read", daemon=True)
        self._thread.start()
        if not self._greeted.wait(HELLO_SECONDS) or self._gone:
            self.close()
            raise ServerError(why())

    def parameters(self, fields: bytes, conversation: bytes) -> Parameters:
        """A message that says how to continue prompts, under a number of its own."""
        number = next(self._numbers)
        return Parameters(number=number, fields=fields, conversation=conversation)

    def number(self) -> int:
        """For a prompt."""
        return next(self._numbers)

    def send(
        self, prompts: Sequence[Prompt], sink: Sink, parameters: Iterable[Parameters] = ()
    ) -> None:
        """Send prompts, and parameters before them. Raises ServerError where the server is gone."""
        with self._lock:
            if self._gone:
                raise ServerError(self.why())
            self._sinks.update((prompt.number, sink) for prompt in prompts)
        self._write(ToRouter(parameters=parameters, prompt=prompts))

    def release(self, number: int) -> None:
        """A prompt has ended: its sink gets nothing more."""
        with self._lock:
            self._sinks.pop(number, None)

    def give_up(self, numbers: Sequence[int], parameters: Sequence[int] = ()) -> None:
        """Nobody wants these prompts, nor these parameters, any more. Never raises."""
        with self._lock:
            for number in numbers:
                self._sinks.pop(number, None)
        with contextlib.suppress(ServerError):
            self._write(ToRouter(cancel=numbers, forget=parameters))

    def close(self) -> None:
        """Whatever runs is given up."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _write(self, message: ToRouter) -> None:
        data = message.SerializeToString()
        frame = len(data).to_bytes(PREFIX, "little") + data
        try:
            with self._sending:
                self._socket.sendall(frame)
        except OSError:
            raise ServerError(self.why()) from None

    def _read(self) -> None:
        with contextlib.suppress(OSError), self._socket.makefile("rb") as source:
            while prefix := source.read(PREFIX):
                self._take(FromRouter.FromString(source.read(int.from_bytes(prefix, "little"))))
        with self._lock:
            self._gone = True
            sinks = set(self._sinks.values())
            self._sinks.clear()
        self._greeted.set()
        for sink in sinks:
            sink(None)

    def _take(self, frame: FromRouter) -> None:
        if frame.HasField("hello"):
            self.hello = frame.hello
            self._greeted.set()
        for messages in (frame.started, frame.piece, frame.failed):
            for message in messages:
                with self._lock:
                    sink = self._sinks.get(message.prompt)
                if sink is not None:
                    sink(message)
