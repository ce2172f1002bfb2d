"""Router CPU for one streamed token, from the engine's call to the transport's write.

    python -m benchmarks.router.stream_cost

No socket and no other process: the listeners and the event stream are the router's own, the
transport only counts. `tokens a turn` is how many tokens of a stream share one turn of the event
loop, which is 1 while the device is slower than the router. Writes to stdout as JSON.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import uvloop
from aiohttp.test_utils import make_mocked_request
from benchmarks.configs import write_model_folder

from penstock_router.api.logprobs import ChatLogprobs
from penstock_router.api.openai_answer import Head
from penstock_router.api.openai_stream import CHAT, ChoiceStream, Extras
from penstock_router.api.options import Options
from penstock_router.api.output import Output
from penstock_router.api.sequence_group import Collector, SequenceListener
from penstock_router.api.sse import EventStream
from penstock_router.api.tgi_answer import GenerateStream
from penstock_router.request import GenerationRequest, Sampling
from penstock_router.text import TextModel

TEXT = "The turbine turns as long as water flows. Größer, été, 漢字 and 👍 are text, too.\n"
STREAMS = 64
TOKENS = 512
ROUNDS = 3  # the quickest counts: others run on this machine

Make = Callable[[TextModel, EventStream], SequenceListener]


class CountingTransport:
    """Takes everything at once, like a socket with room."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: bytes) -> None:
        self.bytes += len(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


def request(**sampling: Any) -> GenerationRequest:
    return GenerationRequest(prompt=(5,), max_new_tokens=TOKENS, sampling=Sampling(**sampling))


def output(text: TextModel, *stop: str) -> Output:
    return Output(text.detokenizer((5,)), text.tokenizer.special_ids, Options(stop=stop))


def chat(*stop: str, logprobs: bool = False) -> Make:
    def make(text: TextModel, stream: EventStream) -> SequenceListener:
        return ChoiceStream(
            request(logprobs=logprobs),
            output(text, *stop),
            stream,
            head=Head("chat.completion.chunk", "chatcmpl", "model"),
            shape=CHAT,
            index=0,
            logprobs=ChatLogprobs(text) if logprobs else None,
            echo=None,
            extras=Extras(),
        )

    return make


def generate(text: TextModel, stream: EventStream) -> SequenceListener:
    return GenerateStream(
        request(logprobs=True), output(text), stream, text, prefix="", details=True, samples=True
    )


def collect(text: TextModel, stream: EventStream) -> SequenceListener:
    return Collector(request(), output(text))


CASES: dict[str, Make] = {
    "chat": chat(),
    "chat, 2 stop sequences": chat("\n\nUser:", "</answer>"),
    "chat, log-probabilities": chat(logprobs=True),
    "generate_stream": generate,
    "not streamed": collect,
}


async def cost(text: TextModel, ids: list[int], make: Make, per_turn: int) -> float:
    """Microseconds a token."""
    listeners = []
    for _ in range(STREAMS):
        stream = EventStream(make_mocked_request("POST", "/"), {})
        stream._transport = cast(asyncio.WriteTransport, CountingTransport())
        listeners.append(make(text, stream))
    start = time.process_time()
    for first in range(0, TOKENS, per_turn):
        for listener in listeners:
            for i in range(first, first + per_turn):
                listener.token(ids[i % len(ids)], -1.25, (), 1)
        await asyncio.sleep(0)
    return (time.process_time() - start) * 1e6 / (STREAMS * TOKENS)


async def measure(text: TextModel) -> dict[str, dict[str, float]]:
    ids = text.tokenizer.encode(TEXT, add_special_tokens=False)
    table: dict[str, dict[str, float]] = {}
    for name, make in CASES.items():
        table[name] = {}
        for per_turn in (1, 4):
            costs = [await cost(text, ids, make, per_turn) for _ in range(ROUNDS)]
            table[name][f"{per_turn} tokens a turn"] = round(min(costs), 2)
    return table


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_model_folder("llama-3.1-8b", Path(folder))
        text = TextModel.load(folder, None, 1)
        print(json.dumps({"microseconds_a_token": uvloop.run(measure(text))}, indent=2))


if __name__ == "__main__":
    main()
