"""The same engine for programs with an event loop: outputs as they come."""

from __future__ import annotations

import asyncio
import json
import os
import warnings
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Self, TypeAlias

from penstock.batch import Ask, failure
from penstock.connection import Message
from penstock.embedded import ServerError
from penstock.engine import CODE, Engine, conversation_fields, tokenization
from penstock.outputs import RequestOutput
from penstock.prompts import PromptType, read_prompts
from penstock.sampling_params import RequestOutputKind, SamplingParams
from penstock_proto.offline_pb2 import Failed, Piece, Prompt, Started

ABORTED = object()
AT_ONCE = 2048  # prompts that run or wait in the server; others wait here


Messages: TypeAlias = asyncio.Queue[Message]


class AsyncLLM(Engine):
    """A model that a program has to itself. Takes LLM's arguments, and starts as LLM does, which
    takes seconds: `await AsyncLLM.create(…)` starts it in a thread."""

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        trust_remote_code: bool = False,
        **arguments: Any,
    ) -> None:
        if trust_remote_code:
            warnings.warn(CODE, stacklevel=2)
        super().__init__(model, arguments)
        self._places = asyncio.Semaphore(AT_ONCE)
        self._running: dict[str, set[Messages]] = {}  # by request id

    @classmethod
    async def create(cls, *arguments: Any, **named: Any) -> Self:
        """The same without holding up the event loop."""
        return await asyncio.to_thread(lambda: cls(*arguments, **named))

    async def generate(
        self,
        prompt: PromptType,
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        priority: int = 0,
        lora_request: None = None,
        tokenization_kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput]:
        """Outputs of one prompt as they come: what `output_kind` of its parameters says.

        Leaving the iteration, or a cancelled task, ends it in the server. Raises ValueError for
        what breaks a rule, ServerError where the server is gone.
        """
        if lora_request is not None:
            raise ValueError("lora_request is not supported: adapters are not built yet")
        [given] = read_prompts(prompt)
        params = sampling_params or self.get_default_sampling_params()
        ask = self.ask_of(
            0,
            given,
            params,
            priority=priority,
            stream=params.output_kind is not RequestOutputKind.FINAL_ONLY,
            request_id=request_id,
            extra=tokenization(tokenization_kwargs),
        )
        async with aclosing(self._outputs(ask)) as outputs:
            async for output in outputs:
                yield output

    async def chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        sampling_params: SamplingParams | None = None,
        request_id: str | None = None,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> AsyncGenerator[RequestOutput]:
        """The same for a conversation."""
        params = sampling_params or self.get_default_sampling_params()
        fields = conversation_fields(
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
        stream = params.output_kind is not RequestOutputKind.FINAL_ONLY
        message = Prompt(messages=json.dumps(list(messages)).encode(), stream=stream)
        ask = self.ask(0, message, params, prompt=None, request_id=request_id, conversation=fields)
        async with aclosing(self._outputs(ask)) as outputs:
            async for output in outputs:
                yield output

    async def abort(self, request_id: str | Sequence[str]) -> None:
        """End requests; their iterations end without a further output."""
        for one in [request_id] if isinstance(request_id, str) else request_id:
            for messages in self._running.get(one, ()):
                messages.put_nowait(ABORTED)

    async def _outputs(self, ask: Ask) -> AsyncGenerator[RequestOutput]:
        """Send a prompt and give what comes of it."""
        loop = asyncio.get_running_loop()
        messages: Messages = asyncio.Queue()

        def sink(message: Message) -> None:  # in the thread that reads
            loop.call_soon_threadsafe(messages.put_nowait, message)

        connection, name = self.connection, ask.assembly.request_id
        async with self._places:
            parameters = connection.parameters(ask.fields, ask.conversation)
            ask.message.number, ask.message.parameters = connection.number(), parameters.number
            self._running.setdefault(name, set()).add(messages)
            try:
                connection.send([ask.message], sink, [parameters])
                while not ask.assembly.finished:
                    message = await messages.get()
                    if message is ABORTED:
                        return
                    if (output := self._output(ask, message)) is not None:
                        yield output
            finally:
                self._running[name].discard(messages)
                if not self._running[name]:
                    del self._running[name]
                connection.give_up([ask.message.number], [parameters.number])

    def _output(self, ask: Ask, message: Message) -> RequestOutput | None:
        """What a message adds. Raises ValueError and ServerError."""
        assembly = ask.assembly
        match message:
            case Started():
                assembly.start(message)
                return None
            case Piece():
                assembly.add(message)
            case Failed():
                raise failure(message)
            case _:
                raise ServerError(self.server.why_gone())
        if assembly.finished or assembly.params.candidates == assembly.params.n:
            kind = assembly.params.output_kind
            if kind is RequestOutputKind.DELTA:
                return assembly.delta(message)
            if kind is RequestOutputKind.CUMULATIVE or assembly.finished:
                return assembly.output()
        return None
