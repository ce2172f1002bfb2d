"""The model's tokenizer, as the server has it: what it makes of a text is what is computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Call = Callable[[str, Mapping[str, Any] | None], Any]


class Tokenizer:
    """The calls that programs make of transformers' tokenizers. Raises ValueError for texts that
    the server refuses: those that are longer than a prompt may be."""

    def __init__(self, call: Call, eos: Sequence[int]) -> None:
        """call: of a route of the server."""
        self._call = call
        self.eos_token_ids = list(eos)

    @property
    def eos_token_id(self) -> int | None:
        """The first token that ends a text."""
        return self.eos_token_ids[0] if self.eos_token_ids else None

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text."""
        if not text and not add_special_tokens:
            return []
        body = {"prompt": text, "add_special_tokens": add_special_tokens}
        return list(self._call("/tokenize", body)["tokens"])

    def __call__(
        self, text: str | Sequence[str], add_special_tokens: bool = True
    ) -> dict[str, Any]:
        """`input_ids` of a text, or of each of several."""
        if isinstance(text, str):
            return {"input_ids": self.encode(text, add_special_tokens)}
        return {"input_ids": [self.encode(one, add_special_tokens) for one in text]}

    def tokenize(self, text: str, add_special_tokens: bool = False) -> list[str]:
        """The tokens of a text, as the tokenizer spells them."""
        body = {
            "prompt": text,
            "add_special_tokens": add_special_tokens,
            "return_token_strs": True,
        }
        return list(self._call("/tokenize", body)["token_strs"])

    def decode(self, ids: Sequence[int] | int, skip_special_tokens: bool = False) -> str:
        """The text of tokens, special ones by their names."""
        tokens = [ids] if isinstance(ids, int) else list(ids)
        body = {"tokens": tokens, "skip_special_tokens": skip_special_tokens}
        return str(self._call("/detokenize", body)["prompt"]) if tokens else ""

    def batch_decode(
        self, sequences: Sequence[Sequence[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        """The texts of several."""
        return [self.decode(ids, skip_special_tokens) for ids in sequences]

    def apply_chat_template(
        self,
        conversation: Sequence[Mapping[str, Any]],
        *,
        tokenize: bool = True,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str | list[int]:
        """A conversation as token ids, or as the text that the model's template writes."""
        body: dict[str, Any] = {
            "messages": list(conversation),
            "add_generation_prompt": add_generation_prompt,
            "continue_final_message": continue_final_message,
            "chat_template_kwargs": variables,
        }
        if tools:
            body["tools"] = list(tools)
        if tokenize:
            return list(self._call("/tokenize", body)["tokens"])
        return str(self._call("/chat_tokenize", body)["templated_text"])
