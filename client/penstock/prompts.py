"""What a program may call a prompt, and the messages that prompts become."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, TypeAlias

from penstock_proto.offline_pb2 import Prompt

TokenIds: TypeAlias = Sequence[int]
PromptType: TypeAlias = str | TokenIds | Mapping[str, Any]

# keys of a prompt that is a dict -> why another value than None is refused
UNREAD = {
    "prompt_embeds": "prompts are text or token ids",
    "multi_modal_data": "this server reads text alone",
    "mm_processor_kwargs": "this server reads text alone",
    "encoder_prompt": "models with an encoder are not served",
}


@dataclass(frozen=True, slots=True)
class Given:
    """One prompt: its text, or its token ids."""

    text: str | None = None
    ids: bytes = b""  # uint32, little-endian
    cache_salt: str = ""

    def token_ids(self) -> list[int]:
        """Of a prompt that is no text."""
        ids = array("I")
        ids.frombytes(self.ids)
        return ids.tolist()

    def message(self) -> Prompt:
        """Without a number, and parameters."""
        if self.text is not None:
            return Prompt(text=self.text, cache_salt=self.cache_salt)
        return Prompt(ids=self.ids, cache_salt=self.cache_salt)


def read_prompts(prompts: PromptType | Sequence[PromptType]) -> list[Given]:
    """Raises ValueError and TypeError for what is no prompt and no list of prompts."""
    if isinstance(prompts, str | Mapping) or _is_no_list(prompts):
        return [_read(prompts, 0)]
    listed = list(prompts)
    if listed and all(isinstance(one, Integral) for one in listed):
        return [_read(listed, 0)]
    return [_read(one, place) for place, one in enumerate(listed)]


def packed(ids: Iterable[int], place: int = 0) -> bytes:
    """Token ids as messages have them. Raises ValueError and TypeError for what is none."""
    try:
        return array("I", ids).tobytes()
    except OverflowError:
        raise ValueError(f"prompt {place}: token ids must be >= 0 and < 2^32") from None
    except TypeError:
        raise TypeError(f"prompt {place}: token ids must be integers") from None


def sendable(text: str, place: int = 0) -> str:
    """The same. Raises ValueError for text that UTF-8 cannot hold: half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"prompt {place}: the text is not Unicode: character {error.start} is half of a "
            "surrogate pair"
        ) from None
    return text


def _is_no_list(value: Any) -> bool:
    return isinstance(value, bytes | bytearray) or not isinstance(value, Iterable)


def _read(prompt: Any, place: int) -> Given:
    if isinstance(prompt, str):
        return Given(text=sendable(prompt, place))
    if not isinstance(prompt, Mapping):
        if _is_no_list(prompt):
            kind = type(prompt).__name__
            raise TypeError(
                f"prompt {place} must be text, token ids or a dict with `prompt` or "
                f"`prompt_token_ids`, not {kind}"
            )
        return Given(ids=packed(prompt, place))
    for name, reason in UNREAD.items():
        if prompt.get(name) is not None:
            raise ValueError(f"prompt {place}: {name} is not supported: {reason}")
    salt = prompt.get("cache_salt") or ""
    if not isinstance(salt, str):
        raise TypeError(f"prompt {place}: cache_salt must be text, not {type(salt).__name__}")
    if (ids := prompt.get("prompt_token_ids")) is not None:
        return Given(ids=packed(ids, place), cache_salt=sendable(salt, place))
    if isinstance(text := prompt.get("prompt"), str):
        return Given(text=sendable(text, place), cache_salt=sendable(salt, place))
    raise ValueError(f"prompt {place} has neither `prompt` nor `prompt_token_ids`")
