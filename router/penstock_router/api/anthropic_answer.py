"""Answers of Anthropic's /v1/messages, whole and as events."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from penstock_router.api.blocks import Block, BlockKind, BlockStream
from penstock_router.api.errors import ApiError, anthropic_error
from penstock_router.request import Finish, FinishReason, GenerationRequest

_DELTAS = {
    BlockKind.TEXT: ("text_delta", "text"),
    BlockKind.REASONING: ("thinking_delta", "thinking"),
    BlockKind.CALL: ("input_json_delta", "partial_json"),
}


@dataclass(frozen=True, slots=True)
class MessageWording:
    """Of one request."""

    model: str
    id: str = field(default_factory=lambda: "msg_" + secrets.token_hex(12))

    def message(
        self, content: list[dict[str, Any]], stop: dict[str, Any], usage: dict[str, int]
    ) -> dict[str, Any]:
        """The `message` object."""
        head = {"id": self.id, "type": "message", "role": "assistant", "model": self.model}
        return {**head, "content": content, **stop, "usage": usage}

    def whole(self, listener: BlockStream) -> dict[str, Any]:
        content = [_content(block) for block in listener.blocks.all]
        return self.message(content, stop_of(listener, listener.end), usage_of(listener))

    def writer(self, request: GenerationRequest, push: Callable[[bytes], None]) -> MessageWriter:
        return MessageWriter(self, len(request.prompt), push)


class MessageWriter:
    """The events of a stream. Blocks are counted as they come."""

    def __init__(
        self, wording: MessageWording, input_tokens: int, push: Callable[[bytes], None]
    ) -> None:
        self._wording = wording
        self._input_tokens = input_tokens
        self._push = push

    def begin(self) -> None:
        stop = {"stop_reason": None, "stop_sequence": None}
        message = self._wording.message([], stop, _usage(self._input_tokens, 0, 0))
        self._send("message_start", message=message)
        self._send("ping")

    def start(self, block: Block) -> None:
        empty = Block(block.kind, block.index, block.id, block.name)
        self._send("content_block_start", index=block.index, content_block=_content(empty))

    def grow(self, block: Block, piece: str, logprobs: Sequence[dict[str, Any]]) -> None:
        kind, name = _DELTAS[block.kind]
        self._send("content_block_delta", index=block.index, delta={"type": kind, name: piece})

    def stop(self, block: Block) -> None:
        if block.kind is BlockKind.REASONING:
            signature = {"type": "signature_delta", "signature": ""}
            self._send("content_block_delta", index=block.index, delta=signature)
        self._send("content_block_stop", index=block.index)

    def end(self, listener: BlockStream, finish: Finish) -> None:
        self._send("message_delta", delta=stop_of(listener, finish), usage=usage_of(listener))
        self._send("message_stop")

    def error_event(self, error: ApiError) -> bytes:
        return b"event: error\ndata: %b\n\n" % orjson.dumps(anthropic_error(error))

    def _send(self, name: str, **fields: Any) -> None:
        data = orjson.dumps({"type": name, **fields})
        self._push(b"event: %b\ndata: %b\n\n" % (name.encode(), data))


def stop_of(listener: BlockStream, finish: Finish) -> dict[str, Any]:
    """Why an answer ended, and at which stop sequence."""
    found = listener.output.stop_reason
    if finish.reason is FinishReason.LENGTH:
        reason, found = "max_tokens", None
    elif isinstance(found, str):
        reason = "stop_sequence"
    else:
        reason = "tool_use" if listener.blocks.called else "end_turn"
    return {"stop_reason": reason, "stop_sequence": found if isinstance(found, str) else None}


def usage_of(listener: BlockStream) -> dict[str, int]:
    """Tokens under this API's names, where cached ones are no input."""
    end = listener.end
    return _usage(len(listener.request.prompt), end.cached_tokens, end.generated_tokens)


def _usage(prompt: int, cached: int, generated: int) -> dict[str, int]:
    return {
        "input_tokens": prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": generated,
    }


def _content(block: Block) -> dict[str, Any]:
    match block.kind:
        case BlockKind.TEXT:
            return {"type": "text", "text": block.text}
        case BlockKind.REASONING:
            return {"type": "thinking", "thinking": block.text, "signature": ""}
    return {"type": "tool_use", "id": block.id, "name": block.name, "input": _input(block.text)}


def _input(text: str) -> Any:
    """A call that was cut has no object of arguments."""
    try:
        return orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}
