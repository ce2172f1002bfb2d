"""What the client programs share: run the checks, print a verdict.

A program is `program.py URL`. It prints one line of JSON: {"client": name and version, "checks":
{check: null, or what was raised}}. It runs in the client's own environment: standard library alone.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import inspect
import json
import re
import sys
import traceback
from collections.abc import Callable

QUESTION = "What is the capital of France?"
MESSAGES = [{"role": "user", "content": QUESTION}]
URL = sys.argv[1]

Check = Callable[[], object]


def verdict(distribution: str, *checks: Check) -> None:
    """Run every check, and print what each raised."""
    results = {check.__name__: failure(check) for check in checks}
    client = f"{distribution} {importlib.metadata.version(distribution)}"
    print(json.dumps({"client": client, "checks": results}))


def failure(check: Check) -> str | None:
    """What a check raises, with the place in the program; None if it passes."""
    try:
        result = check()
        if inspect.isawaitable(result):
            asyncio.run(_wait(result))
    except Exception as error:
        places = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == sys.argv[0]]
        place = f" at `{places[-1].line}`" if places else ""
        return f"{type(error).__name__}: {error}{place}"
    return None


async def _wait(awaitable: object) -> None:
    await awaitable  # type: ignore[misc]


def raised(call: Callable[[], object]) -> Exception:
    """What a call raises; a stream is read. AssertionError when it raises nothing."""
    try:
        result = call()
        if inspect.isgenerator(result) or hasattr(result, "__next__"):
            list(result)
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def says(error: Exception, pattern: str) -> None:
    """The client shows the server's sentence."""
    assert re.search(pattern, str(error)), f"{type(error).__name__}: {error} does not say {pattern}"
