"""Prompts as plain completions repeat them before their answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from penstock_router.text import TextModel
from penstock_router.text.spans import TokenSpan


@dataclass(frozen=True, slots=True)
class EchoedPrompt:
    """The text of a prompt, and where that of each of its tokens begins, in characters."""

    text: str
    offsets: Sequence[int]


async def echoed(text: TextModel, prompt: str | Sequence[int], ids: Sequence[int]) -> EchoedPrompt:
    """A prompt as its client sent it, which `ids` are the tokens of.

    Text is repeated as it is, token ids as the text that they stand for, with the names of special
    tokens. In a thread: it takes 0.5 us a token. Raises TokenizerError.
    """
    return await text.run(lambda: _echo(text, prompt, ids))


def _echo(text: TextModel, prompt: str | Sequence[int], ids: Sequence[int]) -> EchoedPrompt:
    detokenizer = text.detokenizer(())
    pieces = [detokenizer.step(token) for token in ids]
    if isinstance(prompt, str):
        spans = text.tokenizer.spans(prompt)
        return EchoedPrompt(prompt, _places(prompt, spans, pieces, text.tokenizer.special_ids))
    pieces.append(detokenizer.flush())
    return EchoedPrompt("".join(pieces), list(accumulate(map(len, pieces[:-1]), initial=0))[:-1])


def _places(
    text: str, spans: Sequence[TokenSpan], pieces: Sequence[str], special: frozenset[int]
) -> list[int]:
    """Where the tokens of a text begin: one behind the other.

    Not where the tokenizer's own spans begin: those leave out spaces. They help where a token is
    not in the text, as one that was put before it, or is spelled otherwise there.
    """
    places, position = [], 0
    for span, piece in zip(spans, pieces, strict=True):
        if span.id in special or not text.startswith(piece, position):
            position = max(position, span.start)
            places.append(position)
            position = max(position, span.stop)
        else:
            places.append(position)
            position += len(piece)
    return places
