"""Files, folders and names that the documentation mentions exist."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("docs/**/*.md"), ROOT / "README.md", ROOT / "SECURITY.md"])
FILE = re.compile(r"[\w.\-/]+\.(?:py|md|proto|json|toml|svg|png|lock|txt)")
FOLDER = re.compile(r"[\w.\-]+(?:/[\w.\-]+)*/")
# What model folders, TGI and headers of clients have.
THEIRS = re.compile(
    r"(\w*config|tokenizer|tekken|special_tokens_map|added_tokens|model\.safetensors\.index)\.json"
    r"|chat_template\.\w+|assets/tgi_grafana\.json|hf_hub/|python-requests/"
)


@pytest.fixture(scope="module")
def paths() -> set[str]:
    """Everything in the repository, with and without the folders before it."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    found: set[str] = set()
    for line in said.splitlines():
        parts = line.split("/")
        for start in range(len(parts)):
            found.add("/".join(parts[start:]))
            found.update("/".join(parts[start:end]) + "/" for end in range(start + 1, len(parts)))
    return found


def mentioned(text: str) -> set[str]:
    """Paths in code spans, and the targets of links within the repository."""
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    paths = {span for span in spans if FILE.fullmatch(span) or FOLDER.fullmatch(span)}
    return {path for path in paths if not THEIRS.fullmatch(path)} | {
        link.removeprefix("../") for link in links
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths(page: Path, paths: set[str]) -> None:
    text = page.read_text()
    # A sentence that says so may name what is to come; a path that begins with / is the server's.
    kept = re.sub(r"[^.\n]*(?:\.\S[^.\n]*)*\(planned\)", "", text)
    missing = {
        path
        for path in mentioned(kept)
        if path not in paths and f"{path}/" not in paths and not path.startswith("/")
    }
    assert not missing


def names_of(path: Path) -> set[str]:
    """What a file defines: classes, their methods, functions and names at the top."""
    found: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.ClassDef():
                found.add(node.name)
                for inner in node.body:
                    if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef):
                        found.add(f"{node.name}.{inner.name}")
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                found.add(node.name)
            case ast.Assign():
                found.update(t.id for t in node.targets if isinstance(t, ast.Name))
            case ast.AnnAssign(target=ast.Name(id=name)):
                found.add(name)
    return found


def test_names_of_the_tour() -> None:
    """Each row of its first table names a file and what to read in it."""
    rows = re.findall(
        r"^\| \d+ \| `([^`]+)` \| ([^|]+) \|", (ROOT / "docs/tour.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 12
    for path, cell in rows:
        wanted = set(re.findall(r"`([^`]+)`", cell))
        assert wanted and wanted <= names_of(ROOT / path), path


def test_what_is_not_built_is_said_alike() -> None:
    (sentence,) = re.findall(r"^Not built yet: .*$", (ROOT / "README.md").read_text(), re.M)
    assert sentence in (ROOT / "docs/index.md").read_text()


def test_names_in_brackets_behind_a_file() -> None:
    """`path.py` (`Name`) says that the name is there."""
    pairs = [
        pair
        for page in PAGES
        for pair in re.findall(r"`([\w/]+\.py)` \(`([\w.]+)`\)", page.read_text())
    ]
    pairs = [(path, name) for path, name in pairs if "/" in path]
    assert len(pairs) >= 3
    for path, name in pairs:
        assert name in names_of(ROOT / path), (path, name)
