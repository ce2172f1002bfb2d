"""What the pages tell a reader to type works as pasted, and prints what they say."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock_launcher.command_line import parse
from support.pages import ROOT, Block, blocks, folder_like_the_clone, run
from support.server import Server, running_server

# Loads torch, or starts a server of its own.
SLOW = ("docs/start/quantize.md", "docs/start/offline.md")
PAGES = sorted(
    [*ROOT.glob("docs/start/*.md"), ROOT / "docs/skills/penstock/SKILL.md", ROOT / "docs/llms.txt"]
)
BLOCKS = [block for page in PAGES for block in blocks(page)]
HERE = [
    pytest.param(block, marks=[pytest.mark.full] if block.page in SLOW else [])
    for block in BLOCKS
    if not (block.language == "sh" and (block.is_elsewhere or block.is_server))
]
STARTED = [block for block in BLOCKS if block.language == "sh" and block.is_server]


def name(block: object) -> str:
    return f"{Path(block.page).stem}-{block.line}" if isinstance(block, Block) else ""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running_server(tmp_path_factory.mktemp("server"), "--device", "cpu") as server:
        yield server


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_like_the_clone(tmp_path_factory.mktemp("clone") / "here")


@pytest.mark.parametrize("block", HERE, ids=name)
def test_it_works_as_pasted(block: Block, server: Server, folder: Path) -> None:
    run(block, folder, server.url)


@pytest.mark.parametrize("block", STARTED, ids=name)
def test_servers_are_started_with_options_that_there_are(block: Block) -> None:
    argv = block.server_options()
    argv = ["--model-id", *argv] if argv and not argv[0].startswith("-") else argv
    options, notices = parse(argv, {})
    assert options and notices == []
