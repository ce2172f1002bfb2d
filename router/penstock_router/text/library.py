"""Calls of the tokenizers library, whose faults are those of a text and never of the server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import orjson
import tokenizers

# The library's own threads would count as nobody's, and keep the memory of what they encoded.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class TokenizerError(Exception):
    """The tokenizer failed at a text."""


class TooManyTokens(Exception):
    """A text has more tokens than it may have. The message says how many."""


@contextmanager
def _faults() -> Iterator[None]:
    """What the library raises as a TokenizerError. A panic of Rust is a BaseException."""
    try:
        yield
    except Exception as error:
        raise TokenizerError(f"the tokenizer failed: {error}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"the tokenizer failed: {error}") from error


def build(tree: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """A tokenizer from what tokenizer.json holds. Raises TokenizerError."""
    with _faults():
        tokenizer = tokenizers.Tokenizer.from_buffer(orjson.dumps(tree))
        tokenizer.no_truncation()
        tokenizer.no_padding()
    return tokenizer


def encode(
    tokenizer: tokenizers.Tokenizer, text: str, add_special_tokens: bool, places: bool = True
) -> tokenizers.Encoding:
    """Encode a text with the interpreter's lock released, as only batches do.

    places: with the characters that each token stands for, at twice the cost.
    Raises TokenizerError.
    """
    call = tokenizer.encode_batch if places else tokenizer.encode_batch_fast
    with _faults():
        [encoding] = call([text], add_special_tokens=add_special_tokens)
    return encoding


def decode(tokenizer: tokenizers.Tokenizer, ids: list[int], skip_special_tokens: bool) -> str:
    """Text of tokens. Raises TokenizerError."""
    with _faults():
        text: str = tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)
    return text
