"""Log-probabilities in SGLang's answers: the same, however many are written at once."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from penstock_router.api import leaving_turns, sglang_scores
from penstock_router.api.sglang_scores import Scored
from penstock_router.request import GenerationRequest, Sampling
from penstock_router.top_table import TopTable

TEXT: Any = SimpleNamespace(token_text=lambda token: f'"{token}"')


def scored(top_n: int, given: int, text: Any = None) -> Scored:
    sampling = Sampling(logprobs=True, top_n=top_n, given=tuple(range(given)))
    return Scored(text, GenerationRequest([1], 1, sampling=sampling), "input")


def written(entries: Scored) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(orjson.dumps(entries.fields))
    return found


def places(count: int, width: int) -> tuple[list[int], list[float | None], TopTable]:
    """A prompt, of whose first token nothing is known."""
    table = TopTable(1)
    for place in range(1, count):
        table.append([(place + i, -place - i / 8) for i in range(width)])
    values = [None, *(-place / 4 for place in range(1, count))]
    return list(range(100, 100 + count)), values, table


@pytest.mark.parametrize("text", [None, TEXT])
@pytest.mark.parametrize(("top_n", "given"), [(0, 0), (2, 0), (0, 3), (2, 3)])
@pytest.mark.parametrize("part", [1, 7, 4096])
@pytest.mark.parametrize("start", [0, 1, 4, 20])
def test_a_prompt(
    monkeypatch: pytest.MonkeyPatch, text: Any, top_n: int, given: int, part: int, start: int
) -> None:
    monkeypatch.setattr(sglang_scores, "PART", part)
    ids, values, table = places(20, top_n + given)
    entries = scored(top_n, given, text)
    entries.extend(ids, values, table if top_n + given else (), start)

    def entry(token: int, value: float | None) -> list[Any]:
        return [value, token, None if text is None else f'"{token}"']

    def lists(some: slice) -> list[Any]:
        return [
            None if values[place] is None else [entry(*pair) for pair in table[place][some]]
            for place in range(start, 20)
        ]

    seen = written(entries)
    assert seen.pop("input_token_logprobs") == [
        entry(ids[place], values[place]) for place in range(start, 20)
    ]
    if top_n:
        assert seen.pop("input_top_logprobs") == lists(slice(0, top_n))
    if given:
        assert seen.pop("input_token_ids_logprobs") == lists(slice(top_n, None))
    assert not seen


def test_one_by_one_is_the_same() -> None:
    ids, values, table = places(9, 5)
    whole, grown = scored(2, 3, TEXT), scored(2, 3, TEXT)
    whole.extend(ids, values, table, 1)
    for place in range(1, 9):
        grown.add(ids[place], values[place] or 0.0, table[place])
    assert written(grown) == written(whole)


def test_numbers_that_json_or_a_client_cannot_take() -> None:
    """SGLang's frontend leaves out what is zero; JSON knows no infinity."""
    entries = scored(0, 0)
    for value in (0.0, -0.0, -math.inf, math.nan, -3.2451000213623047, -1e-30):
        entries.add(5, value, ())
    seen = [value for value, _, _ in written(entries)["input_token_logprobs"]]
    assert seen == [-1e-9, -1e-9, None, None, -3.2451, -1e-30]


def test_the_event_loop_has_its_turn_between_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(sglang_scores, "PART", 10)
    monkeypatch.setattr(leaving_turns, "time", SimpleNamespace(sleep=slept.append))
    ids, values, table = places(21, 4)
    scored(4, 0).extend(ids, values, table, 1)
    assert slept == [leaving_turns.TURN] * 9  # two places a part
