"""The same tokenizer, in which no text can spell a control token.

A chat template writes control tokens as text, and its users write text that may look like them. So
a second tokenizer knows each control token by another name, which begins with a secret of this
process: what the template wrote is renamed before it is encoded, what the users wrote stays text.
Everything else, such as the space before the first word, is as the library does it.
"""

from __future__ import annotations

import secrets
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from penstock_router.text.library import build, encode
from penstock_router.text.marked import MarkedText

_Integers = npt.NDArray[np.int64]

# Noncharacters: Unicode reserves them for use inside one program, so no vocabulary holds them.
_OPEN, _CLOSE = "\ufdd0", "\ufdd1"


# A name that the library overlooks changes what stands beside it, and that may hide another name.
_ATTEMPTS = 3


def secret_names(contents: list[str]) -> dict[str, str]:
    """Another name for each control token."""
    secret = secrets.token_hex(8)
    return {content: f"{_OPEN}{secret}{i}{_CLOSE}" for i, content in enumerate(contents)}


def renamed(tree: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """tokenizer.json with the control tokens under their other names, and the same ids.

    They are renamed in the model's vocabulary too, where some models find words by themselves.
    """
    added = [t | {"content": names.get(t["content"], t["content"])} for t in tree["added_tokens"]]
    model = _renamed_model(tree["model"], names)
    # What is put around a text names tokens, and is not put around a part of a conversation.
    around = {"post_processor": None, "decoder": None, "truncation": None, "padding": None}
    return {**tree, **around, "added_tokens": added, "model": model}


def _renamed_model(model: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    changed = dict(model)
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        changed["vocab"] = {names.get(token, token): i for token, i in vocabulary.items()}
    else:
        changed["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if isinstance(unknown := model.get("unk_token"), str):
        changed["unk_token"] = names.get(unknown, unknown)
    if merges := model.get("merges"):
        prefix = model.get("continuing_subword_prefix") or ""
        changed["merges"] = [merge for merge in merges if not _makes(merge, prefix, names)]
    return changed


def _makes(merge: Any, prefix: str, names: Mapping[str, str]) -> bool:
    """Whether a merge of two tokens has to do with a control token."""
    left, right = merge.split(" ", 1) if isinstance(merge, str) else merge
    return left in names or right in names or left + right.removeprefix(prefix) in names


@dataclass(frozen=True, slots=True)
class _Control:
    """A control token, under its own name and under the other."""

    content: str
    name: str
    context_free: bool  # found wherever it stands


@dataclass(frozen=True, slots=True)
class Found:
    """Control tokens in a text.

    places: characters start..stop of each, [n, 2], without the spaces that it takes along.
    ids: of each, [n].
    """

    places: _Integers
    ids: _Integers

    def only(self, chosen: npt.NDArray[np.bool_]) -> Found:
        return Found(self.places[chosen], self.ids[chosen])


class Renaming:
    """Places in a text of which parts are under other names, as places in the text itself."""

    def __init__(self, found: Found, lengths: _Integers) -> None:
        """lengths: of the other names, [n]."""
        starts, stops = found.places[:, 0], found.places[:, 1]
        longer = np.cumsum(lengths - (stops - starts))
        self._stops: list[int] = (stops + longer).tolist()
        self._shifts: list[int] = [0, *longer.tolist()]
        self.starts = starts + self._shifts[:-1]  # of the other names

    def place(self, position: int) -> int:
        """position: not within another name."""
        return position - self._shifts[bisect_right(self._stops, position)]


class Guard:
    """Tells a template's control tokens from those that a client spells, and encodes both."""

    def __init__(self, tree: Mapping[str, Any], template_source: str) -> None:
        """tree: tokenizer.json. Raises TokenizerError where it cannot be changed so."""
        control = [
            token
            for token in tree["added_tokens"]
            if (token["special"] or _is_named(token["content"], template_source))
            and not _is_letter(token["content"], tree["model"]["vocab"])
        ]
        self.control_tokens: list[str] = [token["content"] for token in control]
        names = secret_names(self.control_tokens)
        self._tokenizer = build(renamed(tree, names))
        self._tokens = {
            token["id"]: _Control(
                token["content"],
                names[token["content"]],
                not token["normalized"] and not token["single_word"],
            )
            for token in control
        }
        self._is_control = np.zeros(max(self._tokens, default=-1) + 2, bool)
        self._is_control[list(self._tokens)] = True
        self._unknown = _unknown(tree["model"])

    def find(self, encoding: tokenizers.Encoding, text: str, start: int = 0) -> Found:
        """Control tokens in what a plain tokenizer made of a text, which stands at `start`."""
        return self._find(encoding, text, start, lambda token: token.content)

    def forged(self, found: Found, marked: MarkedText) -> npt.NDArray[np.bool_]:
        """Of which control tokens the client wrote at least a part, [n]."""
        client = np.array(marked.client, np.int64).reshape(-1, 2)
        following = np.searchsorted(client[:, 1], found.places[:, 0], side="right")
        starts = np.append(client[:, 0], len(marked.text))  # behind the last run comes none
        forged: npt.NDArray[np.bool_] = starts[following] < found.places[:, 1]
        return forged

    def own(
        self, found: Found, marked: MarkedText, plain: Callable[[str], tokenizers.Encoding]
    ) -> Found:
        """Control tokens that the template wrote.

        Of two that overlap the library sees the first. So where one is half the client's, what
        the template wrote there is looked at by itself.
        """
        forged = self.forged(found, marked)
        kept = [found.only(~forged)]
        for start, stop in _touched(found.places[forged], marked):
            inside = (kept[0].places[:, 0] >= start) & (kept[0].places[:, 1] <= stop)
            kept[0] = kept[0].only(~inside)
            piece = marked.text[start:stop]
            kept.append(self.find(plain(piece), piece, start))
        places = np.concatenate([part.places for part in kept])
        ids = np.concatenate([part.ids for part in kept])
        order = np.argsort(places[:, 0])
        return Found(places[order], ids[order])

    def encode(self, text: str, own: Found) -> tuple[tokenizers.Encoding, Renaming]:
        """Encode a text in which only `own` are control tokens."""
        for attempt in range(_ATTEMPTS):
            if attempt == _ATTEMPTS - 1:
                sure = [self._tokens[token].context_free for token in own.ids.tolist()]
                own = own.only(np.array(sure, bool))
            renamed_text, renaming = self._rename(text, own)
            encoding = encode(self._tokenizer, renamed_text, False)
            found = self._find(encoding, renamed_text, 0, lambda token: token.name)
            seen = np.isin(renaming.starts, found.places[:, 0])
            if seen.all():
                break
            own = own.only(seen)
        return encoding, renaming

    def _rename(self, text: str, own: Found) -> tuple[str, Renaming]:
        names = [self._tokens[token].name for token in own.ids.tolist()]
        pieces = []
        position = 0
        for (start, stop), name in zip(own.places.tolist(), names, strict=True):
            pieces += [text[position:start], name]
            position = stop
        pieces.append(text[position:])
        return "".join(pieces), Renaming(own, np.array(list(map(len, names)), np.int64))

    def _find(
        self,
        encoding: tokenizers.Encoding,
        text: str,
        offset: int,
        spelling: Callable[[_Control], str],
    ) -> Found:
        ids = np.array(encoding.ids, np.int64)
        places = []
        chosen = []
        known = self._is_control[np.minimum(ids, len(self._is_control) - 1)]
        for index in np.flatnonzero(known).tolist():
            token = self._tokens[int(ids[index])]
            start, stop = encoding.token_to_chars(index) or (0, 0)
            word = spelling(token)
            core = text.find(word, start, stop)
            if core >= 0:
                start, stop = core, core + len(word)
            elif token.content == self._unknown:
                continue  # stands for a character that the vocabulary lacks
            places.append((start + offset, stop + offset))
            chosen.append(ids[index])
        return Found(np.array(places, np.int64).reshape(-1, 2), np.array(chosen, np.int64))


def _is_named(content: str, template_source: str) -> bool:
    """Whether a template mentions a token, other than one of spaces."""
    return bool(content.strip()) and content in template_source


def _unknown(model: Mapping[str, Any]) -> str | None:
    """The token for what the vocabulary lacks. Unigram models have its place."""
    if isinstance(place := model.get("unk_id"), int):
        return str(model["vocab"][place][0])
    return model.get("unk_token")


def _is_letter(content: str, vocabulary: Any) -> bool:
    """Whether a token is a letter of the model's own, so that no text could do without it."""
    if len(content) != 1 or isinstance(vocabulary, dict):
        return len(content) == 1 and content in vocabulary
    return any(piece == content for piece, _ in vocabulary)


def _touched(places: _Integers, marked: MarkedText) -> list[tuple[int, int]]:
    """What the template wrote without a break, start..stop, where it shares one of the places."""
    edges = np.array([0, *(edge for run in marked.client for edge in run), len(marked.text)])
    runs = edges.reshape(-1, 2)  # between the client's
    first = np.searchsorted(runs[:, 1], places[:, 0], side="right")
    last = np.searchsorted(runs[:, 0], places[:, 1], side="left")
    touched = {i for a, b in zip(first.tolist(), last.tolist(), strict=True) for i in range(a, b)}
    return [(start, stop) for start, stop in runs[sorted(touched)].tolist() if start < stop]
