"""What processes that render hold when they have rendered."""

from __future__ import annotations

import asyncio

import psutil

from penstock_launcher.model import DEMO
from penstock_router.templates.template import Job
from penstock_router.text import TextModel

MEGABYTE = 1 << 20


async def test_a_process_that_renders_keeps_nothing() -> None:
    """Pages of two megabytes by the demo model's template, of which it has one at a time."""
    model = TextModel.load(DEMO, None, 1)
    pool = model._chat_template
    assert pool is not None
    [renderer] = pool.quick.renderers
    long = Job([{"role": "user", "content": "[" * (2 * MEGABYTE)}], {})
    short = Job([{"role": "user", "content": "x"}], {})
    try:
        await asyncio.to_thread(renderer.render, short, 60.0, 60.0)
        before = _held(renderer.pid)
        for _ in range(16):
            page = await asyncio.to_thread(renderer.render, long, 60.0, 60.0)
            assert len(page.text) > 2 * MEGABYTE
        await asyncio.to_thread(renderer.render, short, 60.0, 60.0)  # it has cleared up by then
        kept = _held(renderer.pid) - before
        assert kept < 8 * MEGABYTE, f"{kept >> 20} MB"
    finally:
        model.close()


def _held(pid: int) -> int:
    held: int = psutil.Process(pid).memory_full_info().uss
    return held
