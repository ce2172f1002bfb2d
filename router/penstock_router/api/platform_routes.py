"""Paths that a hosting platform chose, as Vertex AI does: the same handlers once more."""

from __future__ import annotations

import dataclasses

from penstock_router.api.routes import Route


def with_platform_routes(
    routes: tuple[Route, ...], predict: str | None, health: str | None
) -> tuple[Route, ...]:
    """The routes, and /vertex and /health under further paths.

    A path that has a meaning already keeps it: who names /v1/chat/completions as the path of
    predictions wants just that.
    """
    known = {(route.method, route.path): route for route in routes}
    wanted = (("POST", "/vertex", predict), ("GET", "/health", health))
    added = (
        dataclasses.replace(known[method, path], path=further)
        for method, path, further in wanted
        if further is not None and (method, further) not in known
    )
    return (*routes, *added)
