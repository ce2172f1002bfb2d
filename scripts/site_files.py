"""A hook of mkdocs: what the pages have that mkdocs reads otherwise than GitHub.

Pages link to files of the repository outside docs/, and the site has them.

In the repository such a link is `../examples/chat.py`. mkdocs knows nothing outside its folder, so
each file that is linked so is put into the site under files/, and the links lead there. A folder
has no page: its name stays, without a link.

llms.txt links to the sources of pages, so the site has these too, each beside its page.

A bar within code of a table is written `\\|`, as GitHub wants it; mkdocs would show the backslash.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\|.*$", re.MULTILINE)
CODE = re.compile(r"(`+).+?\1(?!`)")
LINK = re.compile(r"\[([^\]\n]+)\]\(((?:\.\./)+[^)#\s]+)\)")


def outside(page: str, target: str) -> str | None:
    """The path in the repository, of a link that leads out of docs/; None where it does not."""
    path = normpath(PurePosixPath("docs", page).parent / target)
    return None if path.startswith("docs/") else path


def on_files(files: Files, config: Any) -> Files:
    """Add what pages link to."""
    for page in list(files.documentation_pages()):
        for _, target in LINK.findall(page.content_string):
            path = outside(page.src_uri, target)
            if path is not None and (ROOT / path).is_file():
                text = (ROOT / path).read_text()
                name = f"files/{path}.txt"  # which browsers show instead of downloading it
                if files.get_file_from_path(name) is None:
                    files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Let links lead there."""

    def replaced(match: re.Match[str]) -> str:
        path = outside(page.file.src_uri, match[2])
        if path is None:
            return match[0]
        if not (ROOT / path).is_file():
            return match[1]
        place = relpath(f"files/{path}.txt", PurePosixPath(page.file.src_uri).parent)
        return f"[{match[1]}]({place})"

    return ROW.sub(with_bars, LINK.sub(replaced, markdown))


def on_post_build(config: Any) -> None:
    """Put the sources of pages into the site."""
    docs, site = Path(config.docs_dir), Path(config.site_dir)
    for page in docs.rglob("*.md"):
        target = site / page.relative_to(docs)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(page.read_text())


def with_bars(row: re.Match[str]) -> str:
    """A row of a table, in whose code bars are bars."""
    return CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0])
