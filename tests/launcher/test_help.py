"""`--help`: an overview and groups that fit a screen each, an option, or everything."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import subprocess
import sys

import pytest

from penstock_launcher.command_line import launcher_parser, parse
from penstock_launcher.options import COMMON, GROUPS, OPTIONS

SCREEN = 30  # lines
WIDTH = 80  # columns
SECTIONS = launcher_parser().sections


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def printed(*argv: str) -> str:
    stdout = io.StringIO()
    with contextlib.redirect_stdout(stdout), pytest.raises(SystemExit) as end:
        parse(argv, {})
    assert end.value.code == 0
    return stdout.getvalue()


@pytest.mark.parametrize("name", [section.name for section in SECTIONS])
def test_a_group_fits_a_screen(name: str) -> None:
    lines = printed("--help", name).splitlines()
    assert 5 < len(lines) <= SCREEN and max(map(len, lines)) <= WIDTH


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_a_group_has_its_options_and_no_others(group: object) -> None:
    text = printed(f"--help={group.name}")  # type: ignore[attr-defined]
    flags = {line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")}
    own = {option.short or option.flag for option in group.options}  # type: ignore[attr-defined]
    assert flags == own


def test_every_option_has_a_group() -> None:
    assert sorted(option.name for group in GROUPS for option in group.options) == sorted(
        option.name for option in OPTIONS
    )


def test_an_option_by_its_name() -> None:
    text = printed("--help", "num-shard")
    assert "--num-shard N" in text and "--device" not in text
    assert "--num-shard" in printed("--help", "--tensor-parallel-size")
    assert "--max-batch-size N" in printed("--help=max_batch")


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        parse(["--help", "teapot"], {})
    assert end.value.code == 2
    assert "--help teapot: no option is called so, nor a group: model," in capsys.readouterr().err


def test_who_greps_finds_everything() -> None:
    assert printed("--help") == printed("--help", "all")
    assert "  --quantize NAME" in printed("--help")


def test_a_terminal_shows_the_overview() -> None:
    primary, secondary = pty.openpty()
    command = [sys.executable, "-m", "penstock_launcher", "--help"]
    with subprocess.Popen(command, stdout=secondary, env={**os.environ, "COLUMNS": "80"}) as child:
        os.close(secondary)
        text = b""
        with contextlib.suppress(OSError):  # how Linux says that the other end is closed
            while data := os.read(primary, 65536):
                text += data
        os.close(primary)
    assert child.returncode == 0
    lines = text.decode().splitlines()
    assert len(lines) <= SCREEN and max(map(len, lines)) <= WIDTH
    for name, _ in COMMON:
        assert f"  {name} " in text.decode()
    for group in GROUPS:
        assert f"  {group.name} " in text.decode()


def test_common_options_exist() -> None:
    flags = {option.flag for option in OPTIONS} | {"--config"}
    assert {name.split()[0] for name, _ in COMMON} <= flags
