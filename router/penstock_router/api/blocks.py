"""Answers as blocks: what is generated of one kind, one after the other.

OpenAI's responses and Anthropic's messages show an answer so, each in its own words.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock_router.api.errors import ApiError
from penstock_router.api.logprobs import ChatLogprobs
from penstock_router.api.output import Output
from penstock_router.api.reply import ReplyOutput
from penstock_router.api.sequence_group import SequenceListener
from penstock_router.request import Finish, GenerationRequest, TopTokens
from penstock_router.tools.events import Arguments, CallEnded, CallStarted, Event, Reasoning, Text


class BlockKind(enum.Enum):
    """What stands in a block."""

    TEXT = enum.auto()
    REASONING = enum.auto()
    CALL = enum.auto()


@dataclass(slots=True)
class Block:
    """A block, as far as it is generated. id, name: of a call. complete: not cut."""

    kind: BlockKind
    index: int
    id: str = ""
    name: str = ""
    pieces: list[str] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    complete: bool = False

    @property
    def text(self) -> str:
        """Its text, or the JSON of a call's arguments."""
        return "".join(self.pieces)


class BlockListener(Protocol):
    """Hears of blocks in their order: each starts, grows and stops before the next starts."""

    def start(self, block: Block) -> None: ...

    def grow(self, block: Block, piece: str, logprobs: Sequence[dict[str, Any]]) -> None: ...

    def stop(self, block: Block) -> None: ...


class Blocks:
    """Turns the events of an answer into blocks."""

    def __init__(self, listener: BlockListener | None = None) -> None:
        self.all: list[Block] = []
        self._listener = listener
        self._open: Block | None = None

    @property
    def called(self) -> bool:
        """Whether there is a call."""
        return any(block.kind is BlockKind.CALL for block in self.all)

    def take(self, events: Iterable[Event], logprobs: Sequence[dict[str, Any]] = ()) -> None:
        """logprobs: of the text among the events."""
        for event in events:
            match event:
                case Text(text=piece):
                    self._grow(BlockKind.TEXT, piece, logprobs)
                    logprobs = ()
                case Reasoning(text=piece):
                    self._grow(BlockKind.REASONING, piece)
                case CallStarted(id=call_id, name=name):
                    self._start(BlockKind.CALL, call_id, name)
                case Arguments(json=piece):
                    self._grow(BlockKind.CALL, piece)
                case CallEnded():
                    self._stop(complete=True)

    def end(self, complete: bool) -> None:
        """Nothing follows. complete: the answer was not cut."""
        self._stop(complete)

    def _start(self, kind: BlockKind, call_id: str = "", name: str = "") -> Block:
        self._stop(complete=True)
        block = self._open = Block(kind, len(self.all), call_id, name)
        self.all.append(block)
        if self._listener is not None:
            self._listener.start(block)
        return block

    def _grow(self, kind: BlockKind, piece: str, logprobs: Sequence[dict[str, Any]] = ()) -> None:
        block = self._open
        if block is None or block.kind is not kind:
            block = self._start(kind)
        block.pieces.append(piece)
        block.logprobs += logprobs
        if self._listener is not None:
            self._listener.grow(block, piece, logprobs)

    def _stop(self, complete: bool) -> None:
        block, self._open = self._open, None
        if block is not None:
            block.complete = complete
            if self._listener is not None:
                self._listener.stop(block)


class AnswerWriter(BlockListener, Protocol):
    """Streams an answer."""

    def begin(self) -> None:
        """The first token is there."""

    def end(self, listener: BlockStream, finish: Finish) -> None:
        """All blocks have stopped."""

    def error_event(self, error: ApiError) -> bytes:
        """The last event of a stream that failed."""


class BlockStream(SequenceListener):
    """A sequence whose answer is blocks."""

    def __init__(
        self,
        request: GenerationRequest,
        output: Output,
        logprobs: ChatLogprobs | None,
        writer: AnswerWriter | None = None,
    ) -> None:
        """writer: where it is streamed."""
        super().__init__(request, output)
        self.blocks = Blocks(writer)
        self._logprobs = logprobs
        self._writer = writer
        self._silent = True

    def token(self, token_id: int, logprob: float, top: TopTokens, rank: int) -> bool:
        shown = self.output.push(token_id)
        if self._silent:
            self._begin()
        if self._logprobs is not None:
            self._logprobs.add(token_id, shown, logprob, top)
        self._tell()
        return self.output.stopped

    def finish(self, finish: Finish) -> None:
        if self._silent:
            self._begin()
        self.output.close()
        self._tell()
        self.blocks.end(complete=finish.reason is not finish.reason.LENGTH)
        self.end = finish
        if self._writer is not None:
            self._writer.end(self, finish)
        super().finish(finish)

    @property
    def reasoning_tokens(self) -> int:
        return self.output.reasoning_tokens if isinstance(self.output, ReplyOutput) else 0

    def _begin(self) -> None:
        self._silent = False
        if self._writer is not None:
            self._writer.begin()

    def _tell(self) -> None:
        output = self.output
        if isinstance(output, ReplyOutput):
            events: Sequence[Event] = output.events
        else:
            events = [Text(output.released)] if output.released else ()
        if events:
            # What was not text by now is none; what waits for a stop sequence is still to come.
            taken = [] if self._logprobs is None else self._logprobs.take()["content"]
            self.blocks.take(events, taken)
