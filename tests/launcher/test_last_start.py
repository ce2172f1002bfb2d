"""How long the last start took: kept in a small file, and nobody depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from penstock_launcher.last_start import LONGEST, MOST, LastStarts, path_of


def test_what_was_recorded_is_expected(tmp_path: Path) -> None:
    path = path_of({"XDG_CACHE_HOME": str(tmp_path)})
    starts = LastStarts(path)
    assert starts.expected("a") is None
    starts.record("a", 12.345)
    starts.record("b", 1)
    starts.record("a", 20)
    assert (starts.expected("a"), LastStarts(path).expected("b")) == (20, 1)
    assert [one.name for one in path.parent.iterdir()] == ["starts.json"]


def test_the_file_stays_small(tmp_path: Path) -> None:
    starts = LastStarts(tmp_path / "starts.json")
    for number in range(2 * MOST):
        starts.record(f"kind {number}", 1 + number)
    assert starts.expected("kind 0") is None and starts.expected(f"kind {2 * MOST - 1}")
    assert len((tmp_path / "starts.json").read_text().splitlines()) <= MOST + 2


@pytest.mark.parametrize(
    "damage",
    [
        b"", b"{", b"[]", b"\xff", b'{"a": "1"}', b'{"a": -1}', b'{"a": true}', b'{"a": 1e99}',
        b'{"a": NaN}', b'{"a": 1' + b" " * LONGEST + b"}", b"[" * 10_000,
    ],
)  # fmt: skip
def test_a_damaged_file_says_nothing(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "starts.json"
    path.write_bytes(damage)
    starts = LastStarts(path)
    assert starts.expected("a") is None
    starts.record("a", 3)
    assert starts.expected("a") == 3


def test_a_place_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    starts = LastStarts(tmp_path / "file" / "starts.json")
    starts.record("a", 3)
    assert starts.expected("a") is None
