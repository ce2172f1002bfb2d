"""What stands around a text: BOS, EOS and a space, as classes of transformers have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock_router.text.files import read_json, token_content


@dataclass(frozen=True, slots=True)
class Frame:
    """What a class of transformers puts around a text unless its configuration says otherwise."""

    bos: str
    eos: str
    add_bos: bool = True


# The classes that make their post-processor anew from add_bos_token and add_eos_token.
FRAMES = {
    "Llama": Frame("<s>", "</s>"),
    "CodeLlama": Frame("<s>", "</s>"),
    "Gemma": Frame("<bos>", "<eos>"),
    "Cohere": Frame("<BOS_TOKEN>", "<|END_OF_TURN_TOKEN|>"),
    "GPTNeoX": Frame("<|endoftext|>", "<|endoftext|>", add_bos=False),
}


def frame_of(folder: Path, config: Mapping[str, Any]) -> Frame | None:
    """What the class that a model folder names puts around a text."""
    kind = config.get("tokenizer_class") or read_json(folder / "config.json").get("tokenizer_class")
    if not isinstance(kind, str):
        return None
    return FRAMES.get(kind.removesuffix("Fast").removesuffix("Tokenizer"))


def post_processor(
    frame: Frame, config: Mapping[str, Any], named: Mapping[str, Any], ids: Mapping[str, int]
) -> dict[str, Any]:
    """One that puts BOS before a text and EOS behind it, where the configuration says so."""

    def token(name: str, default: bool) -> list[str]:
        content = token_content(named.get(name)) or ""
        return [content] if config.get(f"add_{name}", default) and content in ids else []

    bos, eos = token("bos_token", frame.add_bos), token("eos_token", False)

    def pieces(sequence: str, kind: int) -> list[dict[str, Any]]:
        def tokens(contents: list[str]) -> list[dict[str, Any]]:
            return [{"SpecialToken": {"id": token, "type_id": kind}} for token in contents]

        return [*tokens(bos), {"Sequence": {"id": sequence, "type_id": kind}}, *tokens(eos)]

    return {
        "type": "TemplateProcessing",
        "single": pieces("A", 0),
        "pair": pieces("A", 0) + pieces("B", 1),
        "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (*bos, *eos)},
    }


def set_prefix_space(tree: dict[str, Any], config: Mapping[str, Any], frame: Frame | None) -> None:
    """Whether a byte-level tokenizer puts a space before a text is the configuration's to say.

    A configuration that is silent says no, but to the classes with a frame, which have their own
    way to do so.
    """
    pre_tokenizer = tree.get("pre_tokenizer") or {}
    wanted = config.get("add_prefix_space", None if frame or not config else False)
    if pre_tokenizer.get("type") == "ByteLevel" and isinstance(wanted, bool):
        pre_tokenizer["add_prefix_space"] = wanted
