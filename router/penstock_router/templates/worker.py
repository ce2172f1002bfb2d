"""The processes that render, from the inside: one that compiles the template, and its children."""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
from typing import Any, NoReturn

import orjson

from penstock_router.allocator import give_back, keep_no_large_blocks
from penstock_router.templates import errors, wire
from penstock_router.templates.confinement import (
    OutOfTime,
    confine,
    die_with_parent,
    open_nothing,
    time_limit,
)
from penstock_router.templates.template import ChatTemplate, Job, Script

LARGE = 100_000  # bytes of a conversation and its page, which took ten times as many
# Jinja and Python import some of their parts when first needed, which needs files.
EVERY_PART = r"{{ 'a\n' | wordwrap | tojson(indent=1) }}{{ strftime_now('%c') }}{{ missing.part }}"


def main() -> int:
    """Compile what comes on standard input, and make processes until the router closes it."""
    die_with_parent()
    keep_no_large_blocks()
    router = socket.socket(fileno=sys.stdin.fileno())
    ChatTemplate(Script(EVERY_PART, {}))
    confine()
    try:
        router.sendall(wire.pack({}))  # all is imported
        first = wire.receive(router)
        template, answer = _compile(first["seconds"], Script(**first["script"]))
        router.sendall(wire.pack(answer))
        children: set[int] = set()
        gc.freeze()  # what stands now is in all of them
        while template is not None:
            _make(router, template, wire.receive(router)["last"], children)
    except (EOFError, ConnectionError):
        return 0  # the router has left
    return 1


def _make(
    router: socket.socket, template: ChatTemplate, last: int | None, children: set[int]
) -> None:
    """A process that renders; its socket goes to the router."""
    code = 0
    if last in children:  # and not of one that was here before
        children.remove(last)
        os.kill(last, signal.SIGKILL)  # it keeps its number until it is waited for
        code = os.waitstatus_to_exitcode(os.waitpid(last, 0)[1])
    parent = os.getpid()
    ours, its = socket.socketpair()
    with ours, its:
        pid = os.fork()
        if pid == 0:
            os.dup2(its.fileno(), router.fileno())
            ours.close()
            its.close()
            _serve(router, template, parent)
        children.add(pid)
        socket.send_fds(router, [wire.BORN.pack(pid, code)], [ours.fileno()])


def _serve(router: socket.socket, template: ChatTemplate, parent: int) -> NoReturn:
    try:
        die_with_parent()
        open_nothing()
        while os.getppid() == parent:
            if _answer(router, template) > LARGE:
                gc.collect()  # Jinja leaves rings, and they know the text
                give_back()
    except (EOFError, ConnectionError):
        pass
    finally:
        os._exit(0)


def _answer(router: socket.socket, template: ChatTemplate) -> int:
    """Render once; bytes of what came and what went."""
    data = wire.read(router)
    message = orjson.loads(data)
    answer = _render(template, message["seconds"], Job(**message["job"]))
    router.sendall(answer)
    return len(data) + len(answer)


def _compile(seconds: float, script: Script) -> tuple[ChatTemplate | None, dict[str, str]]:
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
        case errors.TemplateError():
            return errors.as_answer(error)
        case MemoryError():
            return errors.as_answer(errors.TemplateError("the template needs too much memory"))
    return errors.as_answer(errors.TooSlow())
