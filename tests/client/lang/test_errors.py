"""Whatever happens to a server, the caller gets an error that says it, and nobody waits forever."""

from __future__ import annotations

import contextlib
import http.server
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import penstock.lang as sgl
from penstock.lang.backends import http as transport

pytestmark = pytest.mark.timeout(90)

Handler = Callable[["Request"], None]


class Request(http.server.BaseHTTPRequestHandler):
    """Answers by the server's `handle_generate`."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self) -> None:
        self.answer({"extensions": ["messages"]})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.count += 1
        self.server.handler(self)

    def answer(self, body: Any, status: int = 200) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin_stream(self, *lines: str) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write("".join(f"{line}\n\n" for line in lines).encode())
        self.wfile.flush()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Nothing."""


class Server(http.server.ThreadingHTTPServer):
    """A server that does what a test wants."""

    daemon_threads = True
    count = 0
    handler: Handler


@contextlib.contextmanager
def serving(handler: Handler, **arguments: Any) -> Iterator[tuple[Server, sgl.RuntimeEndpoint]]:
    server = Server(("127.0.0.1", 0), Request)
    server.handler = staticmethod(handler)  # type: ignore[assignment]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        backend = sgl.RuntimeEndpoint(url, **arguments)
        sgl.set_default_backend(backend)
        yield server, backend
    finally:
        server.shutdown()
        server.server_close()


@sgl.function
def program(s: Any) -> None:
    s += "a" + sgl.gen("x")
    s += "b" + sgl.gen("y")


GOOD = {"text": "…", "meta_info": {}}


def test_a_refusal_has_the_servers_sentence() -> None:
    def refuse(request: Request) -> None:
        request.answer({"error": {"message": "`text` is too long"}}, 422)

    with serving(refuse), pytest.raises(sgl.BackendError, match="`text` is too long") as caught:
        program.run()
    assert caught.value.status == 422


def test_an_answer_that_is_no_json() -> None:
    def fail(request: Request) -> None:
        request.send_response(502)
        request.send_header("Content-Length", "3")
        request.end_headers()
        request.wfile.write(b"bad")

    with serving(fail), pytest.raises(sgl.BackendError, match="status 502: bad"):
        program.run()


def test_a_busy_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "FIRST_WAIT", 0.001)

    def busy_at_first(request: Request) -> None:
        if request.server.count < 3:
            request.answer({"error": {"message": "overloaded"}}, 429)
        else:
            request.answer(GOOD)

    with serving(busy_at_first) as (server, _):
        assert program.run()["y"] == "…" and server.count == 4

    def busy(request: Request) -> None:
        request.answer({"error": {"message": "overloaded"}}, 429)

    with serving(busy) as (server, _), pytest.raises(sgl.BackendError, match="overloaded"):
        program.run()
    assert server.count == transport.TRIES


def test_a_connection_that_breaks() -> None:
    def hang_up(request: Request) -> None:
        request.connection.close()
        request.close_connection = True

    with serving(hang_up), pytest.raises(sgl.BackendError, match="cannot be reached"):
        program.run()


def test_an_idle_connection_that_the_server_has_closed() -> None:
    """Is no error: the request goes over a new one."""

    def close_behind(request: Request) -> None:
        request.answer(GOOD)
        request.close_connection = True

    with serving(close_behind) as (server, _):
        assert program.run()["y"] == "…" and server.count == 2


def test_silence() -> None:
    heard = threading.Event()

    def wait(request: Request) -> None:
        heard.wait(60)

    with serving(wait, timeout=0.3):
        with pytest.raises(sgl.BackendError, match="has said nothing for 0.3 s"):
            program.run()
        heard.set()


EVENT = "data: " + json.dumps({"text": "a", "meta_info": {}})


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([EVENT], "the stream ended before its end"),
        ([EVENT, 'data: {"error": {"message": "the shards are gone", "code": 500}}'], "are gone"),
    ],
)
def test_a_stream_that_breaks(lines: list[str], sentence: str) -> None:
    with serving(lambda request: request.begin_stream(*lines)):
        state = program.run(stream=True)
        with pytest.raises(sgl.BackendError, match=sentence):
            list(state.text_iter("x"))
        with pytest.raises(sgl.BackendError, match=sentence):
            state.sync()


def test_a_server_without_what_turns_need() -> None:
    with serving(lambda request: request.answer(GOOD)) as (_, backend):
        backend._extensions = frozenset()

        @sgl.function
        def talk(s: Any) -> None:
            s += sgl.user("a")
            s += sgl.assistant(sgl.gen("x"))

        with pytest.raises(sgl.BackendError, match="does not know `messages`"):
            talk.run()


def test_urls() -> None:
    with pytest.raises(ValueError, match="`base_url` must be a URL"):
        sgl.RuntimeEndpoint("localhost:3000")
    with pytest.raises(ValueError, match="`chat_template_name` must be left out"):
        sgl.RuntimeEndpoint("http://localhost:3000", chat_template_name="chatml")
    with pytest.raises(sgl.BackendError, match="cannot be reached"):
        sgl.RuntimeEndpoint("http://127.0.0.1:1")


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ({"regex": "(("}, "invalid regex"),
        ({"json_schema": {"type": "nothing"}}, "grammar|json_schema|schema"),
        ({"grammar": "start: missing"}, "missing"),
        ({"n": 500}, "`sampling_params.n`.*Given: 500"),
    ],
)
def test_what_the_server_refuses(
    endpoint: sgl.RuntimeEndpoint, how: dict[str, Any], sentence: str
) -> None:
    @sgl.function
    def held(s: Any) -> None:
        s += "a" + sgl.gen("x", **how)

    with pytest.raises(sgl.BackendError, match=sentence) as caught:
        held.run()
    assert caught.value.status == 422


def test_a_server_that_is_killed() -> None:
    """In the middle of streams, batches and forks."""

    @sgl.function
    def long(s: Any) -> None:
        s += "Once upon a time"
        forks = s.fork(2)
        forks += sgl.gen("x", max_tokens=1900, ignore_eos=True)
        forks.join()
        s += "more" + sgl.gen("y")

    @sgl.function
    def streamed(s: Any) -> None:
        s += "Once upon a time" + sgl.gen("x", max_tokens=1900, ignore_eos=True)

    with sgl.Runtime(device="cpu") as runtime:
        states = streamed.run(stream=True, backend=runtime)
        pieces = states.text_iter("x")
        next(pieces)
        caught: list[BaseException] = []

        def batch() -> None:
            try:
                long.run_batch([{}] * 4, backend=runtime)
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=batch)
        thread.start()
        for _ in range(20):
            next(pieces)
        os.kill(runtime.server.process.pid, signal.SIGKILL)
        with pytest.raises(sgl.BackendError):
            for _ in pieces:
                pass
        thread.join(60)
        assert not thread.is_alive() and isinstance(caught[0], sgl.BackendError)
        with pytest.raises(sgl.BackendError, match="cannot be reached"):
            streamed.run(backend=runtime)
