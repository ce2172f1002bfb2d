"""The keys of the option and of the file."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path

import pytest

from penstock_launcher.api_keys import MOST, api_keys, secrets_of
from penstock_launcher.errors import LauncherError
from penstock_launcher.options import Options
from penstock_proto.api_keys import ApiKey, KeyItem, digest_of


def of_file(path: Path, *more: str) -> tuple[KeyItem, ...]:
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
    (tmp_path / "folder").mkdir()
    for name in ("keys", "folder"):
        with pytest.raises(LauncherError, match="is not a file"):
            of_file(tmp_path / name)


def test_no_more_is_read_than_keys_may_take(tmp_path: Path) -> None:
    """A file that grew to gigabytes, as a log does, would end a server that has keys."""
    path = tmp_path / "keys"
    with path.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        with pytest.raises(LauncherError, match="must have at most 524288 bytes"):
            of_file(path)
        assert tracemalloc.get_traced_memory()[1] < 2 << 20
    finally:
        tracemalloc.stop()


TABLES = """
[[key]]
name = "team-a"
key = "first"
requests-per-minute = 600
tokens-per-minute = 200_000
concurrent-requests = 16
max-priority = -3
salt = "both"

[[key]]
name = "team.b"
sha256 = "SECOND"
"""


def test_tables_with_names_and_limits(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(TABLES.replace("SECOND", digest_of("second").upper()))
    options = Options(api_key=("plain",), api_key_file=str(path))
    plain, first, second = found = [ApiKey.of(item) for item in api_keys(options)]
    assert plain == ApiKey(key="plain", sha256=digest_of("plain"))
    assert first == ApiKey(
        name="team-a",
        key="first",
        sha256=digest_of("first"),
        salt="both",
        requests_per_minute=600,
        tokens_per_minute=200_000,
        concurrent_requests=16,
        max_priority=-3,
    )
    assert second == ApiKey(name="team.b", sha256=digest_of("second"))
    for key in found:
        assert ApiKey.of(json.loads(json.dumps(key.item()))) == key
    assert secrets_of(api_keys(options)) == ["plain", "first", "both"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no key"),
        ("hunter22\n", "is no TOML"),
        ("key = 'hunter22'", "`key` must be tables"),
        ("key = ['hunter22']", "`key` must be tables"),
        ("other = 'hunter22'", "may hold tables"),
        ("[[key]]\nkey='hunter22'", "key 1 must have a `name`"),
        ("[[key]]\nname='a'", "key 1 must have either `key` or `sha256`"),
        ("[[key]]\nname='a'\nkey='hunter22'\nsha256='%s'" % ("0" * 64), "must have either"),
        ("[[key]]\nname='a b'\nkey='hunter22'", "`name` must be 1 to 64 characters"),
        ("[[key]]\nname='unnamed'\nkey='hunter22'", "`name` must be 1 to 64 characters"),
        ("[[key]]\nname='a\"b'\nkey='hunter22'", "`name` must be 1 to 64 characters"),
        ("[[key]]\nname='a'\nkey=''", "`key` must be printable text"),
        ("[[key]]\nname='a'\nkey='hunter22 '", "`key` must be printable text"),
        ("[[key]]\nname='a'\nsha256='hunter22'", "`sha256` must be 64 hexadecimal digits"),
        ("[[key]]\nname='a'\nkey='hunter22'\ncolour='hunter23'", "fields that do not exist"),
        *(
            (f"[[key]]\nname='a'\nkey='hunter22'\n{limit}={value}", f"`{limit}` must be a whole")
            for limit in ("requests-per-minute", "tokens-per-minute", "concurrent-requests")
            for value in ("0", "-1", "1.0", "true", "'1'", "nan", 2**63)
        ),
        ("[[key]]\nname='a'\nkey='hunter22'\nmax-priority=101", "`max-priority` must be"),
        ("[[key]]\nname='a'\nkey='hunter22'\n" * 2, "more than one key named a"),
        (
            "[[key]]\nname='a'\nkey='hunter22'\n[[key]]\nname='b'\nkey='hunter22'",
            "the API key named a and b is given twice",
        ),
        ("[[key]]\nname='a'\nkey='hunter-of-option'", "the API key named a is given twice"),
        ("# " + "hunter22" * 70_000, "must have at most"),
        # Python's int() refuses it with an error that is not the parser's
        ("[[key]]\nname='a'\nkey='hunter22'\nrequests-per-minute=" + "1" * 5000, "is no TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, "is no TOML|may hold tables"),
    ],
)
def test_tables_that_will_not_do(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(content)
    with pytest.raises(LauncherError, match=words) as caught:
        of_file(path, "hunter-of-option")
    assert "hunter" not in str(caught.value)
