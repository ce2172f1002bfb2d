"""The site is built of the pages, without a warning, and loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("material", reason="mkdocs-material: pip install 'penstock[docs]'")
# What a browser fetches by itself; links that a person follows are no matter.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?([^\s\">]+)"
    r"|<link(?![^>]*rel=\"?(?:canonical|next|prev))[^>]*\shref=\"?([^\s\">]+)"
)


def build(config: Path, target: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict"]  # --quiet would let all pass
    command += ["--config-file", str(config), "--site-dir", str(target)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site") / "html"
    result = build(ROOT / "mkdocs.yml", target)
    assert result.returncode == 0, result.stderr
    return target


def test_every_page_is_there(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        place = name.parent if name.name == "index" else name
        assert (site / place / "index.html").is_file()
    assert "unrecognized arguments" in (site / "search" / "search_index.json").read_text()


def test_files_outside_of_the_pages_are_there(site: Path) -> None:
    copied = site / "files" / "examples" / "chat.py.txt"
    assert copied.read_text() == (ROOT / "examples" / "chat.py").read_text()
    assert 'href="../files/examples/chat.py.txt"' in (site / "examples/index.html").read_text()


def test_links_of_llms_txt_lead_to_sources(site: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", (site / "llms.txt").read_text())
    assert len(links) > 20
    for link in links:
        assert (site / link).read_text() == (ROOT / "docs" / link).read_text()


def test_nothing_comes_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        fetched = [first or second for first, second in FETCHED.findall(page.read_text())]
        assert fetched and not [one for one in fetched if re.match(r"(https?:)?//", one)], page
    sheets = "".join(sheet.read_text() for sheet in site.rglob("*.css"))
    assert not re.findall(r"(?:@import|url\()[\"' ]*(?:https?:)?//", sheets)


def test_bars_within_code_of_tables_are_bars(site: Path) -> None:
    text = (site / "tools" / "index.html").read_text()
    assert "&lt;|channel|&gt;commentary" in text


def test_a_link_that_leads_nowhere_ends_it(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for link, works in (("#a-title", True), ("#another", False), ("no.md", False)):
        (tmp_path / "docs" / "index.md").write_text(f"# A title\n\n[x]({link})\n")
        config = (ROOT / "mkdocs.yml").read_text().split("\nnav:")[0]
        config = config.replace("scripts/site_files.py", str(ROOT / "scripts" / "site_files.py"))
        (tmp_path / "mkdocs.yml").write_text(config)
        result = build(tmp_path / "mkdocs.yml", tmp_path / "site")
        assert (result.returncode == 0) == works, (link, result.stderr)
