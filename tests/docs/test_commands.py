"""What the pages tell a reader to type works as pasted, and prints what they say."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock_launcher.command_line import parse
from support.pages import ROOT, Block, blocks, folder_like_the_clone, run
from support.server import Server, running_server

# What loads torch, starts a server of its own, or is what another page has as well.
SLOW = re.compile(
    r"penstock quantize|from penstock import LLM|OpenAI\(|penstock bench (?!.*--out )|examples/chat"
)
OTHERS = (
    "README.md",
    "docs/examples.md",
    "docs/migrating.md",
    "docs/skills/penstock/SKILL.md",
    "docs/llms.txt",
)
PAGES = [
    *sorted([*ROOT.glob("docs/start/*.md"), *ROOT.glob("docs/from/*.md")]),
    *(ROOT / name for name in OTHERS),
]
BLOCKS = [block for page in PAGES for block in blocks(page)]
HERE = [
    pytest.param(block, marks=[pytest.mark.full] if SLOW.search(block.text) else [])
    for block in BLOCKS
    if not (block.language == "sh" and (block.is_elsewhere or block.is_server))
]
CHARTS = [block for block in BLOCKS if block.text.startswith("helm install")]
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


@pytest.mark.parametrize("block", CHARTS, ids=name)
def test_the_chart_takes_the_values(block: Block) -> None:
    helm = pytest.importorskip("helm_python", reason="Helm: pip install helm-python-sdk")
    words = shlex.split(block.text.replace("\\\n", " "))
    values: dict[str, Any] = {}
    for pair in (words[i + 1] for i, word in enumerate(words) if word == "--set"):
        key, _, value = pair.partition("=")
        *folders, last = key.split(".")
        place = values
        for folder in folders:
            place = place.setdefault(folder, {})
        place[last] = int(value) if value.isdigit() else value
    chart = helm.Chart.load(str(ROOT / "charts" / "penstock"))
    chart.validate_schema(values)
    assert "haproxy" in "".join(chart.render(values, name="chat", namespace="x").values())
