"""Tables of the most likely tokens are lists of them, at eight bytes each."""

from __future__ import annotations

import sys
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_router.request import TopTokens
from penstock_router.top_table import TopTable

PAIRS = st.lists(st.tuples(st.integers(0, 2**31 - 1), st.floats(-100, 0, width=32)), max_size=4)


@given(st.lists(PAIRS, max_size=8), st.integers(0, 3))
def test_it_is_the_list(tops: list[TopTokens], without: int) -> None:
    table = TopTable(without)
    for top in tops:
        table.append(top)
    expected = [[], *[[]] * without, *tops][1:]
    assert [list(top) for top in table] == expected and len(table) == len(expected)
    assert [list(table[place]) for place in range(len(table))] == expected
    assert [list(top) for top in table[1:]] == expected[1:]
    with pytest.raises(IndexError):
        table[len(expected)]


def test_rows_of_bytes() -> None:
    table = TopTable(1)
    tokens, logprobs = array("i", [5, 6, 7, 8]), array("f", [-0.5, -1, -2, -3])
    table.extend(tokens.tobytes(), logprobs.tobytes(), 2)
    assert list(table) == [(), [(5, -0.5), (6, -1.0)], [(7, -2.0), (8, -3.0)]]
    assert (table.tokens, table.logprobs) == (tokens.tobytes(), logprobs.tobytes())
    for width, values in ((3, logprobs), (0, logprobs), (2, logprobs[:2])):
        with pytest.raises(ValueError, match="no rows"):
            table.extend(tokens.tobytes(), values.tobytes(), width)


def test_rows_of_numbers() -> None:
    table = TopTable(1)
    for top in ([(5, -0.5), (6, -1.0)], [(7, -2.0), (8, -3.0)], [(9, -4.0)]):
        table.append(top)
    tokens, logprobs = table.rows(1, 3)
    assert tokens.tolist() == [[5, 6], [7, 8]] and logprobs.tolist() == [[-0.5, -1], [-2, -3]]
    assert [part.shape for part in (*table.rows(0, 1), *table.rows(2, 2))] == [(1, 0)] * 2 + [
        (0, 0)
    ] * 2
    table.append([])  # what was looked at holds no buffer of the table
    with pytest.raises(ValueError, match="no rows of one width"):
        table.rows(1, 4)
    assert TopTable.of(table) is table and [*TopTable.of([[(1, -1.0)], []])] == [[(1, -1.0)], ()]


def test_each_takes_eight_bytes() -> None:
    table = TopTable(1)
    table.extend(bytes(4 * 276_000), bytes(4 * 276_000), 276)
    size = sum(sys.getsizeof(getattr(table, name)) for name in TopTable.__slots__)
    assert size < 9 * 276_000
