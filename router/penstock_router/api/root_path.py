"""A server that a proxy shows behind a prefix of its own paths (`--root-path`).

Some proxies take the prefix off and some do not, so both are served. It goes before anything looks
at the path: routes, keys and the shape of errors know nothing of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web
from aiohttp.http import RawRequestMessage

RequestFactory = Callable[..., web.BaseRequest]


def behind(prefix: str, factory: RequestFactory) -> RequestFactory:
    """Makes the requests that `factory` makes, without the prefix. prefix: `/a/b`, or nothing."""
    if not prefix:
        return factory

    def make(message: RawRequestMessage, *rest: Any, **more: Any) -> web.BaseRequest:
        return factory(without(prefix, message), *rest, **more)

    return make


def without(prefix: str, message: RawRequestMessage) -> RawRequestMessage:
    """A request as it were at the root; unchanged where it is."""
    path = message.url.raw_path
    if path != prefix and not path.startswith(prefix + "/"):
        return message
    url = message.url.with_path(path.removeprefix(prefix) or "/", encoded=True, keep_query=True)
    return message._replace(url=url, path=url.raw_path_qs)
