"""Random schedules of both sides of a front, and what always holds.

The engine generates when the test says so, and either side can be deaf for a while, so that every
message crosses with every other.
"""

from __future__ import annotations

from typing import Any

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from support.front_world import NEVER, play

places = st.integers(0, 30)
near = st.integers(1, 6)
steps = st.one_of(
    st.tuples(
        st.just("submit"),
        st.one_of(near, st.just(NEVER)),
        st.one_of(near, st.just(NEVER)),
        st.one_of(near, st.just(NEVER)),
        st.booleans(),
    ),
    st.tuples(st.just("generate"), places, st.integers(1, 4)),
    st.just(("generate_all",)),
    st.just(("generate_all",)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("turns"), st.integers(1, 5)),
    st.tuples(st.just("cancel"), places),
    st.tuples(st.just("fail"), places),
    st.tuples(st.just("deaf"), st.booleans()),
    st.tuples(st.just("hear"), st.booleans()),
)
schedules = st.lists(steps, max_size=60)


@settings(max_examples=250, deadline=None)
@given(schedule=schedules, drain_at=st.one_of(st.none(), st.integers(0, 60)))
def test_any_schedule(schedule: list[tuple[Any, ...]], drain_at: int | None) -> None:
    """Every accepted request ends once, as it should, and nobody remembers it."""
    uvloop.run(play(schedule, drain_at))
