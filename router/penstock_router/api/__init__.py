"""The HTTP API: TGI's routes and OpenAI's."""

from penstock_router.api.app import make_app, make_runner
from penstock_router.api.interface import Engine

__all__ = ["Engine", "make_app", "make_runner"]
