"""Bytes at the port: no request may have an answer of 500, a fault in the log, or a hand in what
others are answered."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import uvloop
from tests.fuzz.mutate import mutated_json
from tests.fuzz.target import Target

from support.fake_engine import FakeEngine
from support.small_text import byte_level, write_folder

KEY = "k"
STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)
FINE = {200, 400, 401, 404, 405, 408, 413, 415, 422, 429}
SECONDS = 120.0  # that an answer may take on a machine that is busy
HEAD = "Host: x\r\nAuthorization: Bearer k\r\nContent-Type: application/json\r\n"


FORM = "multipart/form-data; boundary=b"
CANARY = f"GET /info HTTP/1.1\r\nConnection: close\r\n{HEAD}\r\n".encode()


class _Faults(logging.Handler):
    """Keeps what is logged as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        self.found.append(f"{record.getMessage()} {error!r}")


class World:
    """The API on a loopback port, over an engine that generates two tokens."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self.engine = FakeEngine(script=[10, 2])
        self._faults = _Faults()
        logging.getLogger().addHandler(self._faults)
        logging.getLogger("penstock_router").setLevel(logging.ERROR)
        self.loop.set_exception_handler(
            lambda loop, context: self._faults.found.append(str(context))
        )
        self.loop.run_until_complete(self._start())

    async def _start(self) -> None:
        from aiohttp import web

        from penstock_router.api import bodies, file_upload, make_app, make_runner
        from penstock_router.api.service import SERVICE
        from penstock_router.metrics import Metrics
        from penstock_router.text import TextModel
        from router.api.conftest import CONFIG

        # what is sent is there at once: nobody need wait long for what never comes
        bodies.STALL_SECONDS = file_upload.STALL_SECONDS = 0.5
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-fuzz-"))
        write_folder(self._folder / "model", byte_level())
        self._text = TextModel.load(self._folder / "model", None, 1)
        config = dataclasses.replace(
            CONFIG,
            api_key=({"name": "a", "key": KEY, "tokens_per_minute": 10**12},),
            batch_folder=str(self._folder / "batches"),
            batch_storage_limit=10**6,
            header_timeout=5.0,
            idle_timeout=5.0,
        )
        app = make_app(config, self.engine, self._text, Metrics(64, 96))
        self._permits = app[SERVICE].permits
        self._free = self._permits.free
        self._runner = make_runner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._port = self._runner.addresses[0][1]

    def run(self, data: bytes) -> None:
        self.loop.run_until_complete(self._play(data))

    async def _play(self, data: bytes) -> None:
        answer = await self.ask(data)
        canary = await self.ask(CANARY)
        assert canary.startswith(b"HTTP/1.1 200"), canary[:200]
        async with asyncio.timeout(SECONDS):
            while self.engine.live or self._permits.free != self._free:
                await asyncio.sleep(0.001)
        found, self._faults.found = self._faults.found, []
        assert not found, found[0]
        head = STATUS.match(answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n"))
        assert not answer or head, answer[:200]
        assert not head or int(head[1]) in FINE, answer[:500]
        self.engine.jobs.clear()

    async def ask(self, data: bytes) -> bytes:
        """Everything until the server ends the connection; the client sends no more."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(data)
            writer.write_eof()
            return await asyncio.wait_for(reader.read(), SECONDS)
        except ConnectionError:
            return b""
        finally:
            writer.close()

    def close(self) -> None:
        self.loop.run_until_complete(self._runner.cleanup())
        self._text.close()
        self.loop.close()
        shutil.rmtree(self._folder)


def _post(path: str, body: str, head: str = HEAD) -> bytes:
    return f"POST {path} HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def raw() -> Target:
    """What is no HTTP, or hardly."""
    world = World()
    chunked = b"POST /generate HTTP/1.1\r\nTransfer-Encoding: chunked\r\n" + HEAD.encode() + b"\r\n"
    form = '--b\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    file = form % ("purpose", "", "batch") + form % ("file", '; filename="a"', "{}") + "--b--\r\n"
    seeds = [
        _post("/generate", '{"inputs":"hi"}'),
        _post("/generate_stream", '{"inputs":"hi"}') * 2,
        chunked + b'f\r\n{"inputs":"hi"}\r\n0\r\n\r\n',
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
        b"HEAD /v1/models/m HTTP/1.1\r\n" + HEAD.encode() + b"\r\n",
        b"OPTIONS /generate HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\n"
        b"Access-Control-Request-Method: POST\r\n\r\n",
        _post("/v1/files", file, HEAD.replace("application/json", FORM)),
        _post("/", '{"inputs":"hi"}', HEAD + "Expect: 100-continue\r\nx-request-timeout: 5\r\n"),
        b"GET /v1/files?limit=5&order=asc&after=x HTTP/1.0\r\n" + HEAD.encode() + b"\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    return Target(seeds, world.run, close=world.close)


_CHAT = [{"role": "system", "content": "be"}, {"role": "user", "content": "hi"}]
_TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"a": {}}}},
}
_SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "a+"}}}
BODIES: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "/generate",
        {
            "inputs": "hi",
            "parameters": {
                "max_new_tokens": 5, "temperature": 0.5, "top_k": 5, "top_p": 0.9, "seed": 1,
                "stop": ["x"], "details": True, "decoder_input_details": True, "top_n_tokens": 2,
                "repetition_penalty": 1.1, "watermark": True, "best_of": 1, "truncate": 5,
                "typical_p": 0.9, "frequency_penalty": 0.1, "do_sample": True,
                "grammar": {"type": "json", "value": _SCHEMA},
            },
        },
    ),
    ("/generate", {"text": "hi", "sampling_params": {"max_new_tokens": 4, "regex": "a+"}}),
    ("/generate", {"input_ids": [[5, 6]], "sampling_params": [{"n": 2}], "return_logprob": True}),
    (
        "/v1/chat/completions",
        {
            "model": "m", "messages": _CHAT, "max_tokens": 5, "stream": True, "n": 2,
            "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 2,
            "tools": [_TOOL], "tool_choice": "auto", "logit_bias": {"5": 1.5}, "stop": "x",
            "response_format": {"type": "json_schema", "json_schema": {"schema": _SCHEMA}},
            "chat_template_kwargs": {"a": 1}, "min_p": 0.1, "priority": 1, "cache_salt": "s",
        },
    ),
    (
        "/v1/chat/completions",
        {"messages": [*_CHAT, {"role": "assistant", "content": None, "tool_calls": [
            {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "x"}]}]},
    ),
    (
        "/v1/completions",
        {
            "prompt": ["a", "b"], "max_tokens": 3, "echo": True, "logprobs": 2, "best_of": 2,
            "suffix": None, "presence_penalty": 0.5, "user": "u", "prompt_logprobs": 1,
            "bad_words": ["x"], "allowed_token_ids": [5, 6], "min_tokens": 1,
        },
    ),
    ("/v1/completions", {"prompt": [5, 6, 7], "guided_regex": "(a|b)+", "max_tokens": 2}),
    ("/v1/responses", {"input": "hi", "instructions": "be", "tools": [], "max_output_tokens": 3}),
    ("/v1/responses", {"input": [{"role": "user", "content": "hi"}], "stream": True}),
    (
        "/v1/messages",
        {"model": "m", "max_tokens": 4, "system": "be", "messages": _CHAT[1:], "stream": False,
         "tools": [{"name": "f", "input_schema": {"type": "object"}}]},
    ),
    ("/v1/messages/count_tokens", {"model": "m", "messages": _CHAT[1:]}),
    ("/invocations", {"inputs": "hi"}),
    ("/vertex", {"instances": [{"inputs": "hi"}, {"messages": _CHAT}]}),
    ("/tokenize", {"prompt": "hi", "add_special_tokens": True}),
    ("/tokenize", {"messages": _CHAT}),
    ("/detokenize", {"tokens": [5, 6]}),
    ("/chat_tokenize", {"messages": _CHAT}),
    ("/abort_request", {"rid": "x"}),
    ("/v1/batches", {"input_file_id": "file-" + "0" * 32, "endpoint": "/v1/completions",
                     "completion_window": "24h", "metadata": {"a": "b"}}),
)  # fmt: skip


def bodies() -> Target:
    """JSON that the schemas have not seen: a path and a body."""
    world = World()

    def run(data: bytes) -> None:
        try:
            path, body = json.loads(data)
            path.encode("ascii")
        except (AttributeError, RecursionError, TypeError, ValueError):
            path, body = "/generate", None
        text = data.decode("latin-1") if body is None else json.dumps(body)
        if re.fullmatch(r"/[\w/]*", path):
            world.run(_post(path, text, HEAD + "Connection: close\r\n"))

    seeds = [json.dumps(one).encode() for one in BODIES]
    return Target(seeds, run, mutate=mutated_json, close=world.close)
