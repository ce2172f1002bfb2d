"""Grammars on a shard inside the test's process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from penstock_proto import shard_pb2
from penstock_shard.weights.loaded_model import LoadedModel
from support.checkpoints import END
from support.local_shard import LocalShard

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "age": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "age"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_pattern": " "},
}
KINDS = {
    "json": shard_pb2.Grammar.JSON_SCHEMA,
    "regex": shard_pb2.Grammar.REGEX,
    "lark": shard_pb2.Grammar.LARK,
}


def tokenizer_of(folder: Path) -> Tokenizer:
    """That of a small checkpoint."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def end_of(folder: Path) -> int:
    """The id after which its texts end."""
    end = tokenizer_of(folder).token_to_id(END)
    assert end is not None
    return int(end)


def load_tokenizer(loaded: LoadedModel, folder: Path) -> None:
    """What the router does at start."""
    problem = loaded.grammars.load((folder / "tokenizer.json").read_text(), [end_of(folder)])
    assert not problem


def compiled(loaded: LoadedModel, number: int, kind: str, text: Any) -> shard_pb2.CompileResponse:
    """Compile a grammar under a number."""
    text = json.dumps(text) if isinstance(text, dict) else text
    grammar = shard_pb2.Grammar(kind=KINDS[kind], text=text)
    return loaded.grammars.compile(shard_pb2.CompileRequest(id=number, grammar=grammar))


def held_text(
    shard: LocalShard,
    folder: Path,
    slot: int,
    tokens: list[int],
    grammar: int,
    most: int = 60,
    repeat: int = 1,
    sampling: shard_pb2.Sampling | None = None,
) -> tuple[str, list[int]]:
    """Generate in a slot up to the end of the text, or `most` tokens. The text and its tokens."""
    end = end_of(folder)
    found = [shard.start(slot, tokens, sampling, grammar=grammar)]
    found += shard.decode([slot], most, repeat)[0]
    shard.release(slot)
    if end in found:
        assert set(found[found.index(end) :]) == {end}, "behind its end a text has no other token"
        found = found[: found.index(end)]
    return tokenizer_of(folder).decode(found, skip_special_tokens=False), found


def prompt(seed: int, length: int = 7) -> list[int]:
    """Some token ids."""
    return [int(token) for token in np.random.default_rng(seed).integers(3, 290, length)]
