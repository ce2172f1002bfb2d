"""Messages of OpenAI's conversations."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from penstock_router.api.openai_tools import CalledFunction, CallObject, Calls
from penstock_router.api.schema import NEUTRAL, ClientObject
from penstock_router.api.schema_types import AtMost


class TextPart(ClientObject):
    """A part of a message."""

    PATH: ClassVar = "messages[].content[]."

    type: Literal["text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _only_text(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("type") not in (None, "text"):
            raise ValueError(
                "`content` may hold parts of the type `text` only: this model reads no images, "
                "sound or files"
            )
        return data


class Message(ClientObject):
    """A message of a conversation."""

    PATH: ClassVar = "messages[]."
    IGNORED: ClassVar = frozenset({"refusal", "annotations"})
    UNSUPPORTED: ClassVar = {"audio": NEUTRAL}

    role: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    content: str | Annotated[list[TextPart], AtMost(4096)] = ""
    tool_calls: Calls = []
    function_call: CalledFunction | None = None  # the older shape of a call
    name: Annotated[str, Field(max_length=1024)] | None = None
    tool_call_id: Annotated[str, Field(max_length=1024)] | None = None
    # What a model thought before it answered, under its older and its newer name.
    reasoning_content: str | None = None
    reasoning: str | None = None

    def check(self, place: int) -> None:
        """Raises ValueError unless it says or calls something. place: among the messages."""
        calls = self.tool_calls or self.function_call is not None
        if calls and self.role != "assistant":
            raise ValueError(f"`messages.{place}.tool_calls` is only for messages of the assistant")
        if not calls and "content" not in self.model_fields_set:
            raise ValueError(f"missing field `messages.{place}.content`")
        self.variables()

    def variables(self) -> dict[str, Any]:
        """What the template sees: absent fields absent. Raises ValueError for arguments that are
        no JSON."""
        content = self.content
        calls = [call.variables() for call in self.tool_calls]
        if self.function_call is not None:
            calls.append(CallObject(id=self.name or "", function=self.function_call).variables())
        thoughts = self.reasoning if self.reasoning_content is None else self.reasoning_content
        fields = {
            # Results of functions, as calls of functions, have had another name.
            "role": "tool" if self.role == "function" else self.role,
            "tool_calls": calls or None,
            "content": [part.model_dump() for part in content]
            if isinstance(content, list)
            else content,
            "name": self.name,
            "tool_call_id": self.tool_call_id,
            "reasoning_content": thoughts,  # templates know one or the other
            "reasoning": thoughts,
        }
        return {name: value for name, value in fields.items() if value is not None}
