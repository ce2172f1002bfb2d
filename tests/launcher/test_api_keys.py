"""The keys of the option and of the file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstock_launcher.api_keys import MOST, api_keys
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options


def of_file(path: Path, *more: str) -> tuple[str, ...]:
    return api_keys(Options(api_key=more, api_key_file=str(path)))


def test_both_in_one_list(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("first\n\n  second, with a comma \r\nthird\nfirst")
    assert of_file(path, "own", "third") == ("own", "third", "first", "second, with a comma")
    assert api_keys(Options(api_key=("a", "b"))) == ("a", "b")
    assert api_keys(Options()) == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no key"),
        (b"\n  \n", "holds no key"),
        (b"good\nhun\x07ter22\n", "line 2 must be printable text"),
        (b"hunter22\xff\n", "is not text in UTF-8"),
        (b"".join(b"hunter%d\n" % n for n in range(MOST + 1)), "there may be"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_file_that_will_not_do(tmp_path: Path, content: bytes | None, words: str) -> None:
    """The server does not start: open to everybody is not what was meant."""
    path = tmp_path / "keys"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LauncherError, match=words) as caught:
        of_file(path)
    assert "hunter" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "keys")
    with pytest.raises(LauncherError, match="is not a file"):
        of_file(tmp_path / "keys")
