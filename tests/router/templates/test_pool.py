"""What hostile templates and messages cost: a typed error, and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cases.hostile_templates import HOSTILE, MEMORY, TIME
from penstock_router.templates import fork_server
from penstock_router.templates import pool as pools
from penstock_router.templates.confinement import MEMORY as MOST_MEMORY
from penstock_router.templates.errors import TemplateError, TemplatesBusy, TooSlow
from penstock_router.templates.fork_server import ForkServer
from penstock_router.templates.pool import Patience, TemplatePool
from penstock_router.templates.process import Renderer
from penstock_router.templates.template import Job, Script

# Each of them when a message names it.
ARMED = (
    "{% set c = messages[0].content %}"
    + "".join(
        f"{{% if c == {name!r} %}}{source}{{% endif %}}"
        for name, source in HOSTILE.items()
        if not name.startswith("deep")
    )
    + "{{ c }}"
)


def job(content: object) -> Job:
    return Job([{"role": "user", "content": content}], {})


@contextlib.contextmanager
def rendering(source: str) -> Iterator[Renderer]:
    fork_server = ForkServer(Script(source, {}))
    yield Renderer(fork_server)
    fork_server.close()


@pytest.fixture(scope="module")
def renderer() -> Iterator[Renderer]:
    with rendering(ARMED) as renderer:
        yield renderer


@pytest.fixture
def pool() -> Iterator[TemplatePool]:
    pool = TemplatePool(Script(ARMED, {}), 2)
    yield pool
    pool.close()


def gone(pid: int) -> bool:
    """Whether a process has ended, if it does so soon."""
    for _ in range(1200):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        *(("loops", "takes too long"), ("comparisons", "takes too long")),
        *((f"deep {what}", "syntax error") for what in ("expression", "blocks", "loops")),
        *(("folded replace", None), ("folded indent", None), ("private names", None)),
    ],
)
def test_a_hostile_folder_refuses_the_start_or_harms_nothing(
    name: str, refusal: str | None
) -> None:
    if refusal is None:
        with rendering(HOSTILE[name]):
            return
    with pytest.raises(TemplateError, match=refusal):
        ForkServer(Script(HOSTILE[name], {}))


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("deep")])
def test_a_hostile_message_is_an_error_of_its_own(renderer: Renderer, name: str) -> None:
    earlier = peak_of_children()
    with pytest.raises(TemplateError) as error:
        renderer.render(job(name), 0.1 if name in TIME else 1, 20)
    assert isinstance(error.value, TooSlow) == (name in TIME) or name in MEMORY
    assert renderer.render(job("fine"), 0.5, 20).text == "fine"
    # Servers of tests before this one may have been larger, and their peak stays.
    assert peak_of_children() < max(1.2 * MOST_MEMORY, earlier + 1)


def peak_of_children() -> int:
    """Bytes of the largest process that this one has waited for."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def test_loops_are_counted_by_the_clock(renderer: Renderer) -> None:
    """The process itself gives up, and another one has the next conversation: what was interrupted
    may be in any state."""
    for name in ("loops", "macros"):
        renderer.render(job("fine"), 1, 20)
        pid = renderer.pid
        with pytest.raises(TooSlow):
            renderer.render(job(name), 0.5, 120)
        assert renderer.pid != pid and gone(pid)


def test_the_kernel_ends_what_python_cannot(renderer: Renderer) -> None:
    """Even if the router does not look."""
    renderer.render(job("fine"), 1, 20)
    pid = renderer.pid
    with pytest.raises(TooSlow):
        renderer.render(job("comparisons"), 0.1, 250)
    assert renderer.pid != pid and gone(pid)


def test_the_router_ends_what_waits(renderer: Renderer) -> None:
    renderer.render(job("fine"), 1, 20)
    pid = renderer.pid
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(TooSlow):
        renderer.render(job("fine"), 1, 0.2)
    assert gone(pid) and renderer.render(job("fine"), 1, 20).text == "fine"


def test_a_process_that_was_killed_is_replaced(renderer: Renderer) -> None:
    renderer.render(job("fine"), 1, 20)
    os.kill(renderer.pid, signal.SIGKILL)
    assert gone(renderer.pid)
    assert renderer.render(job("fine"), 1, 20).text == "fine"


@pytest.mark.parametrize("content", ["\ud800", 2**80])
def test_what_json_cannot_hold(renderer: Renderer, content: object) -> None:
    variables = {"content": content}
    with pytest.raises(TemplateError, match="the messages cannot be rendered"):
        renderer.render(Job([{"role": "user", "content": "fine"}], variables), 1, 20)


def test_halves_of_characters_from_the_template() -> None:
    with (
        rendering(r"{{ '\ud800' }}") as renderer,
        pytest.raises(TemplateError, match="the rendered text: .* surrogates"),
    ):
        renderer.render(job("fine"), 1, 20)


def test_a_long_conversation(renderer: Renderer) -> None:
    """As large as a body may be, with characters of four bytes."""
    text = "\N{GRINNING FACE}" + "x" * 2_000_000
    assert renderer.render(job(text), 1.5, 20).text == text


def test_it_holds_no_secrets_and_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    with rendering("x") as renderer:
        assert renderer.render(job("fine"), 1, 20).text == "x"
        process = Path(f"/proc/{renderer.pid}")
        assert b"secret" not in (process / "environ").read_bytes()
        lines = (process / "limits").read_text().splitlines()
        limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
        assert limits["Max open files"] == limits["Max file size"] == ["0", "0"]
        assert limits["Max address space"] == [str(MOST_MEMORY)] * 2
        assert sorted(os.listdir(process / "fd")) == ["0", "1", "2"]


def test_the_process_that_makes_them_is_replaced_too() -> None:
    with rendering(ARMED) as renderer:
        other = Renderer(renderer._fork_server)
        server = renderer._fork_server._process.pid
        os.kill(server, signal.SIGKILL)
        assert gone(server) and gone(renderer.pid) and gone(other.pid)
        for one in (renderer, other):
            assert one.render(job("fine"), 1, 20).text == "fine"


async def test_harmless_conversations_pass_hostile_ones(pool: TemplatePool) -> None:
    """Four of them would hold two processes for two turns."""
    names = ("comparisons", "loops") * 2
    attacks = [asyncio.create_task(pool.render(job(name))) for name in names]
    await asyncio.sleep(0)
    pages = [await pool.render(job("fine")) for _ in range(3)]
    still_running = sum(not attack.done() for attack in attacks)
    ends = await asyncio.gather(*attacks, return_exceptions=True)
    assert {type(end) for end in ends} <= {TooSlow, TemplatesBusy}
    assert [page.text for page in pages] == ["fine"] * 3 and still_running >= 2


async def test_what_takes_longer_gets_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is tried where it is compiled; with more than one message it is more than Jinja takes.
    monkeypatch.setattr(fork_server, "COMPILE_SECONDS", 60)
    monkeypatch.setattr(fork_server, "COMPILE_WALL_SECONDS", 120)
    long = "{% for a in range(messages | length * 99999) %}{{ loop.index }}{% endfor %}"
    pool = TemplatePool(Script(long, {}), 1)
    monkeypatch.setattr(pool.quick, "_patience", Patience(0.001, 20))
    monkeypatch.setattr(pool.long, "_patience", Patience(60, 120))
    with pytest.raises(TooSlow):
        await pool.quick.render(job("fine"))
    assert (await pool.render(job("fine"))).text.endswith("99999")
    pool.close()


async def test_nobody_waits_for_ever(pool: TemplatePool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "WAIT_SECONDS", 0.1)
    attacks = [asyncio.create_task(pool.render(job("loops"))) for _ in range(6)]
    ends = await asyncio.gather(*attacks, return_exceptions=True)
    assert {type(end) for end in ends} == {TooSlow, TemplatesBusy}
    assert (await pool.render(job("fine"))).text == "fine"


async def test_closing_waits_for_nothing(pool: TemplatePool) -> None:
    attacks = [asyncio.create_task(pool.render(job("comparisons"))) for _ in range(3)]
    await asyncio.sleep(0.05)
    pool.close()
    pids = [r.pid for lane in (pool.quick, pool.long) for r in lane.renderers]
    assert all(gone(pid) for pid in pids)
    for attack in attacks:
        with pytest.raises((TemplateError, RuntimeError, asyncio.CancelledError)):
            await attack
    assert pids == [r.pid for lane in (pool.quick, pool.long) for r in lane.renderers]


def test_nothing_is_left_when_the_router_is_killed() -> None:
    program = (
        "import asyncio, sys; from penstock_router.templates.pool import *\n"
        "pool = TemplatePool(Script(sys.argv[1], {}), 2)\n"
        "job = Job([{'role': 'user', 'content': 'comparisons'}], {})\n"
        "print(*[r.pid for l in (pool.quick, pool.long) for r in l.renderers], flush=True)\n"
        "asyncio.run(pool.render(job))\n"
    )
    router = subprocess.Popen(
        [sys.executable, "-c", program, ARMED], stdout=subprocess.PIPE, text=True
    )
    assert router.stdout is not None
    pids = [int(pid) for pid in router.stdout.readline().split()]
    time.sleep(0.05)
    router.kill()
    router.wait()
    router.stdout.close()
    assert len(pids) == 3 and all(gone(pid) for pid in pids)


def test_close_does_not_wait_for_what_hangs() -> None:
    """A process that is asked for another and never answers, as one that is stopped."""
    fork_server = ForkServer(Script("x", {}))
    renderer = Renderer(fork_server)
    os.kill(fork_server._process.pid, signal.SIGSTOP)

    def replace() -> None:
        with contextlib.suppress(TemplateError):
            renderer._replace()

    asked = threading.Thread(target=replace)
    asked.start()
    time.sleep(0.1)
    closing = threading.Thread(target=fork_server.close)
    closing.start()
    closing.join(60)
    assert not closing.is_alive(), "it waits for the lock"
    asked.join(60)
    assert not asked.is_alive()
    with pytest.raises(TemplateError, match="shutting down"):
        fork_server.fork(None)


def test_a_pool_that_fails_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[ForkServer] = []

    class OnlyOne(Renderer):
        def __init__(self, fork_server: ForkServer) -> None:
            if made:
                raise TemplateError("no more")
            made.append(fork_server)
            super().__init__(fork_server)

    monkeypatch.setattr(pools, "Renderer", OnlyOne)
    with pytest.raises(TemplateError, match="no more"):
        TemplatePool(Script("x", {}), 2)
    assert made[0]._process.poll() is not None


def test_a_short_answer_leaves_no_descriptor() -> None:
    fork_server = ForkServer(Script("x", {}))
    real = fork_server._wire
    ours, theirs = socket.socketpair()
    fork_server._wire = ours
    try:
        before = len(os.listdir("/proc/self/fd"))
        socket.send_fds(theirs, [b"\0"], [theirs.fileno()])
        with pytest.raises(EOFError):
            fork_server._fork(None)
        assert len(os.listdir("/proc/self/fd")) == before
    finally:
        fork_server._wire = real
        fork_server.close()
        ours.close()
        theirs.close()


def test_time_that_is_up_at_the_very_end_is_over() -> None:
    """The signal comes when the block has ended and nothing is switched off yet."""
    code = """
import signal, sys
from penstock_router.templates import confinement
lines = []
def trace(frame, event, argument):
    if event == "line" and frame.f_code.co_name == "time_limit" and ended and not rung:
        rung.append(frame.f_lineno)
        signal.raise_signal(signal.SIGPROF)
    return trace
ended, rung = [], []
sys.settrace(trace)
try:
    with confinement.time_limit(60.0):
        ended.append(True)
except confinement.OutOfTime:
    sys.settrace(None)
    timers = signal.getitimer(signal.ITIMER_VIRTUAL), signal.getitimer(signal.ITIMER_PROF)
    print(rung != [], timers)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "True ((0.0, 0.0), (0.0, 0.0))\n", said
