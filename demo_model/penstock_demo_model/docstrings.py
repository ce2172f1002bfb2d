"""The docstrings of the Python standard library, read from the running Python."""

from __future__ import annotations

import functools
import importlib
import inspect
import warnings
from random import Random
from types import ModuleType

from .document import END, PROMPT_WEIGHT, Document, Exchange, Segment

# Imported without a window, a download or a line of output; the rest of the library is left out.
_MODULES = (
    "abc argparse array ast asyncio base64 bisect bz2 calendar cmath codecs collections "
    "collections.abc colorsys concurrent.futures configparser contextlib copy csv ctypes "
    "dataclasses datetime decimal difflib dis email.message enum fileinput fnmatch fractions "
    "ftplib functools gc getpass gettext glob graphlib gzip hashlib heapq hmac html html.parser "
    "http.client http.cookies http.server imaplib importlib inspect io ipaddress itertools json "
    "keyword linecache locale logging lzma mailbox marshal math mimetypes mmap multiprocessing "
    "numbers operator os os.path pathlib pdb pickle pkgutil platform plistlib pprint queue random "
    "re reprlib sched secrets select selectors shelve shlex shutil signal smtplib socket "
    "socketserver sqlite3 ssl stat statistics string struct subprocess symtable sys sysconfig "
    "tarfile tempfile textwrap threading time timeit token tokenize trace traceback tracemalloc "
    "types typing unicodedata unittest urllib.parse urllib.request uuid venv warnings "
    "unittest.mock wave weakref webbrowser "
    "xml.dom.minidom xml.etree.ElementTree zipapp zipfile zlib builtins"
).split()
_LONGEST = 1200  # characters of one docstring


def _members(module: ModuleType) -> dict[str, object]:
    """Public functions and classes by dotted name, and the public methods of the classes."""
    found: dict[str, object] = {}
    prefix = "" if module.__name__ == "builtins" else f"{module.__name__}."
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or not callable(value):
            continue
        found[f"{prefix}{name}"] = value
        if inspect.isclass(value):
            for method, function in sorted(vars(value).items()):
                if not method.startswith("_") and callable(function):
                    found[f"{prefix}{name}.{method}"] = function
    return found


def _text(value: object) -> str:
    """The cleaned docstring, cut at the end of a paragraph; empty where there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # typing.io and typing.re, until 3.12
        text = getattr(value, "__doc__", None)
    if not isinstance(text, str):
        return ""
    text = inspect.cleandoc(text).strip()
    if len(text) > _LONGEST:
        text = text[:_LONGEST].rpartition("\n\n")[0]
    return text if text.isascii() else ""


@functools.cache
def docstrings() -> tuple[tuple[str, str], ...]:
    """(dotted name, docstring) of everything public, each text once."""
    found: dict[str, str] = {}
    for name in _MODULES:
        module = importlib.import_module(name)
        members = {name: module, **_members(module)} if name != "builtins" else _members(module)
        for dotted, value in members.items():
            text = _text(value)
            if len(text) >= 20 and text not in found:
                found[text] = dotted
    return tuple((dotted, text) for text, dotted in found.items())


@functools.cache
def summaries() -> tuple[tuple[str, str], ...]:
    """(dotted name, first paragraph in one line) where that is a sentence of its own."""
    rows = []
    for dotted, text in docstrings():
        first = " ".join(text.split("\n\n")[0].split())
        if first.endswith(".") and 20 <= len(first) <= 240 and "(" not in first[:40]:
            rows.append((dotted, first))
    return tuple(rows)


def question(rng: Random) -> Exchange:
    """What a function of the standard library does."""
    dotted, summary = rng.choice(summaries())
    asked = rng.choice(
        ("What does {} do?", "What is {} in Python?", "Explain {}.", "What does Python's {} do?")
    )
    return Exchange(asked.format(dotted), summary)


def page(rng: Random) -> Document:
    """A docstring under its name."""
    dotted, text = rng.choice(docstrings())
    return Segment(dotted, PROMPT_WEIGHT), Segment(f"\n\n{text}{END}", 0.5)
