"""The process that renders: a template, then conversations, on the socket that is its input."""

from __future__ import annotations

import socket
import sys
from typing import Any

from penstock_router.templates import errors, wire
from penstock_router.templates.confinement import OutOfTime, confine, die_with_parent, time_limit
from penstock_router.templates.template import ChatTemplate, Job, Script

MOST_OF_A_SENTENCE = 2000  # characters
# Jinja and Python import some of their parts when first needed, which needs files.
EVERY_PART = r"{{ 'a\n' | wordwrap | tojson(indent=1) }}{{ strftime_now('%c') }}{{ missing.part }}"


def main() -> int:
    """Serve until the router closes the socket."""
    die_with_parent()
    router = socket.socket(fileno=sys.stdin.fileno())
    ChatTemplate(Script(EVERY_PART, {}))
    confine()
    try:
        _serve(router)
    except (EOFError, ConnectionError):
        return 0  # the router has left
    return 1


def _serve(router: socket.socket) -> None:
    router.sendall(wire.pack({}))  # all is imported
    first = wire.receive(router)
    template, answer = _compile(first["seconds"], Script(**first["script"]))
    router.sendall(wire.pack(answer))
    while template is not None:
        message = wire.receive(router)
        router.sendall(_render(template, message["seconds"], Job(**message["job"])))


def _compile(seconds: float, script: Script) -> tuple[ChatTemplate | None, dict[str, Any]]:
    try:
        with time_limit(seconds):
            return ChatTemplate(script), {}
    except (errors.TemplateError, MemoryError, OutOfTime) as error:
        return None, _failure(error)


def _render(template: ChatTemplate, seconds: float, job: Job) -> bytes:
    try:
        with time_limit(seconds):
            return wire.pack({"page": template.render(job)})
    except TypeError as error:  # no JSON: halves of UTF-16 pairs
        return wire.pack(_failure(errors.TemplateError(f"the rendered text: {error}")))
    except (errors.TemplateError, MemoryError, OutOfTime) as error:
        return wire.pack(_failure(error))


def _failure(error: BaseException) -> dict[str, Any]:
    match error:
        case OutOfTime():
            error = errors.TooSlow()
        case MemoryError():
            error = errors.TemplateError("the template needs too much memory")
    sentence = str(error)[:MOST_OF_A_SENTENCE].encode(errors="replace").decode()
    return {"error": type(error).__name__, "sentence": sentence}
