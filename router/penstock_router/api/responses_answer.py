"""Answers of OpenAI's /v1/responses: items, and the events that they grow by."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from penstock_router.api.blocks import Block, BlockKind, BlockStream
from penstock_router.api.errors import ApiError
from penstock_router.api.responses_schema import ResponsesRequest
from penstock_router.request import Finish, FinishReason, GenerationRequest

_PREFIXES = {BlockKind.TEXT: "msg", BlockKind.REASONING: "rs", BlockKind.CALL: "fc"}


@dataclass(frozen=True, slots=True)
class ResponseWording:
    """Of one request."""

    body: ResponsesRequest
    model: str
    sampling: dict[str, float]  # temperature and top_p as they are used
    id: str = field(default_factory=lambda: secrets.token_hex(24))
    created: float = field(default_factory=time.time)

    def response(
        self,
        status: str,
        output: Sequence[dict[str, Any]] = (),
        usage: dict[str, Any] | None = None,
        error: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """The `response` object."""
        body = self.body
        cut = {"reason": "max_output_tokens"} if status == "incomplete" else None
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self.created,
            "completed_at": time.time() if status == "completed" else None,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": cut,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "model": self.model,
            "output": list(output),
            "parallel_tool_calls": body.parallel_tool_calls,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning.effort, "summary": None},
            "store": False,
            **self.sampling,
            "text": {"format": body.text.format or {"type": "text"}},
            "tool_choice": body.tool_choice or "auto",
            "tools": [tool.model_dump() for tool in body.tools],
            "top_logprobs": body.top_logprobs or 0,
            "truncation": body.truncation,
            "usage": usage,
            "metadata": body.metadata or {},
        }

    def whole(self, listener: BlockStream) -> dict[str, Any]:
        blocks = listener.blocks.all or [Block(BlockKind.TEXT, 0, complete=True)]
        items = [self.item(block, "completed") for block in blocks]
        return self.response(status_of(listener.end), items, usage_of(listener))

    def writer(self, request: GenerationRequest, push: Callable[[bytes], None]) -> ResponseWriter:
        return ResponseWriter(self, push)

    def item_id(self, block: Block) -> str:
        return f"{_PREFIXES[block.kind]}_{self.id}{block.index}"

    def item(self, block: Block, status: str) -> dict[str, Any]:
        """An item of `output`. status: of one that is not cut."""
        if status == "completed" and not block.complete:
            status = "incomplete"
        head = {"id": self.item_id(block), "status": status}
        parts = [] if status == "in_progress" else [self.part(block)]
        match block.kind:
            case BlockKind.TEXT:
                return {**head, "type": "message", "role": "assistant", "content": parts}
            case BlockKind.REASONING:
                shown = {"summary": [], "content": parts, "encrypted_content": None}
                return {**head, "type": "reasoning", **shown}
        called = {"call_id": block.id, "name": block.name, "arguments": block.text}
        return {**head, "type": "function_call", **called}

    def part(self, block: Block, text: str | None = None) -> dict[str, Any]:
        """The content of an item. text: None, all of it."""
        shown = block.text if text is None else text
        if block.kind is BlockKind.REASONING:
            return {"type": "reasoning_text", "text": shown}
        logprobs = block.logprobs if text is None else []
        return {"type": "output_text", "text": shown, "annotations": [], "logprobs": logprobs}


class ResponseWriter:
    """The events of a stream, numbered."""

    def __init__(self, wording: ResponseWording, push: Callable[[bytes], None]) -> None:
        self._wording = wording
        self._push = push
        self._number = 0

    def begin(self) -> None:
        for name in ("response.created", "response.in_progress"):
            self._send(name, response=self._wording.response("in_progress"))

    def start(self, block: Block) -> None:
        words = self._wording
        item = words.item(block, "in_progress")
        self._send("response.output_item.added", output_index=block.index, item=item)
        if block.kind is not BlockKind.CALL:
            self._send_part("response.content_part.added", block, part=words.part(block, ""))

    def grow(self, block: Block, piece: str, logprobs: Sequence[dict[str, Any]]) -> None:
        match block.kind:
            case BlockKind.TEXT:
                more = {"delta": piece, "logprobs": logprobs}
                self._send_part("response.output_text.delta", block, **more)
            case BlockKind.REASONING:
                self._send_part("response.reasoning_text.delta", block, delta=piece)
            case BlockKind.CALL:
                self._send_item("response.function_call_arguments.delta", block, delta=piece)

    def stop(self, block: Block) -> None:
        words = self._wording
        match block.kind:
            case BlockKind.TEXT:
                more = {"text": block.text, "logprobs": block.logprobs}
                self._send_part("response.output_text.done", block, **more)
            case BlockKind.REASONING:
                self._send_part("response.reasoning_text.done", block, text=block.text)
            case BlockKind.CALL:
                more = {"name": block.name, "arguments": block.text}
                self._send_item("response.function_call_arguments.done", block, **more)
        if block.kind is not BlockKind.CALL:
            self._send_part("response.content_part.done", block, part=words.part(block))
        item = words.item(block, "completed")
        self._send("response.output_item.done", output_index=block.index, item=item)

    def end(self, listener: BlockStream, finish: Finish) -> None:
        if not listener.blocks.all:  # an answer without a word is a message without a word
            empty = Block(BlockKind.TEXT, 0, complete=True)
            listener.blocks.all.append(empty)
            self.start(empty)
            self.stop(empty)
        self._send(f"response.{status_of(finish)}", response=self._wording.whole(listener))

    def error_event(self, error: ApiError) -> bytes:
        what = {"code": error.row.error_type, "message": str(error), "param": None}
        return _sse({"type": "error", "sequence_number": self._number, **what})

    def _send_part(self, event: str, block: Block, **fields: Any) -> None:
        self._send_item(event, block, content_index=0, **fields)

    def _send_item(self, event: str, block: Block, **fields: Any) -> None:
        item_id = self._wording.item_id(block)
        self._send(event, item_id=item_id, output_index=block.index, **fields)

    def _send(self, event: str, **fields: Any) -> None:
        self._push(_sse({"type": event, "sequence_number": self._number, **fields}))
        self._number += 1


def status_of(finish: Finish) -> str:
    """An answer that ran out of room is incomplete."""
    return "incomplete" if finish.reason is FinishReason.LENGTH else "completed"


def usage_of(listener: BlockStream) -> dict[str, Any]:
    """Tokens under this API's names."""
    prompt, end = len(listener.request.prompt), listener.end
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": end.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": end.generated_tokens,
        "output_tokens_details": {"reasoning_tokens": listener.reasoning_tokens},
        "total_tokens": prompt + end.generated_tokens,
    }


def _sse(event: dict[str, Any]) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
