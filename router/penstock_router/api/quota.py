"""A request within the limits of its API key: asked for before anything is read of it, and again
when its tokens are counted; put right at its end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from penstock_proto.api_keys import ApiKey
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.quotas import Allowance, Quotas, Verdict
from penstock_router.request import GenerationRequest

KEY = web.RequestKey("api_key", ApiKey)

COUNTED = "POST"  # what asks for work
HEADER_NAMES = tuple(
    f"x-ratelimit-{what}-{of}"
    for what in ("limit", "remaining", "reset")
    for of in ("requests", "tokens")
)
_SENTENCES = {
    "requests_per_minute": "{name} may send {limit} requests a minute",
    "tokens_per_minute": "{name} may take {limit} tokens a minute, of prompts and answers",
    "concurrent_requests": "{name} may have {limit} requests at a time",
}


class Ledger(Protocol):
    """Where limits are decided; see `quotas.Quotas`."""

    def number(self) -> Hashable:
        """For another request."""

    async def begin(self, number: Hashable, key: ApiKey) -> Verdict: ...

    async def reserve(self, number: Hashable, tokens: int) -> Verdict: ...

    def settle(self, number: Hashable, prompt: int, generated: int) -> None: ...


class NearLedger:
    """In this process."""

    def __init__(self, quotas: Quotas) -> None:
        self._quotas = quotas
        self._numbers = itertools.count()

    def number(self) -> Hashable:
        return next(self._numbers)

    async def begin(self, number: Hashable, key: ApiKey) -> Verdict:
        return self._quotas.begin(number, key.name)

    async def reserve(self, number: Hashable, tokens: int) -> Verdict:
        return self._quotas.reserve(number, tokens)

    def settle(self, number: Hashable, prompt: int, generated: int) -> None:
        self._quotas.settle(number, prompt, generated)


class Lease:
    """A request of a key while it is in the server."""

    def __init__(self, key: ApiKey, ledger: Ledger) -> None:
        self.headers: dict[str, str] = {}  # of the answer
        self._key = key
        self._ledger = ledger
        self._number = ledger.number()
        self._prompt = 0  # tokens
        self.generated = 0  # tokens, by whatever has ended

    async def __aenter__(self) -> Self:
        """Raises ApiError where the key may not have another request now."""
        try:
            self._heed(await self._ledger.begin(self._number, self._key))
        except BaseException:  # among them the client's leave, before the answer was there
            self._ledger.settle(self._number, 0, 0)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ledger.settle(self._number, self._prompt, self.generated)

    async def reserve(self, requests: Sequence[Sequence[GenerationRequest]]) -> None:
        """Before they run: for each prompt, one request a sequence. Raises ApiError where the key
        may not have as many tokens now."""
        prompt = sum(len(of_prompt[0].prompt) for of_prompt in requests)
        if self._key.tokens_per_minute is not None:
            new = sum(one.max_new_tokens for of_prompt in requests for one in of_prompt)
            self._heed(await self._ledger.reserve(self._number, prompt + new))
        self._prompt += prompt

    def check_priority(self, priority: int) -> None:
        """Raises ApiError."""
        most = self._key.max_priority
        if most is not None and priority > most:
            raise invalid(f"`priority` must be at most {most} with this API key. Given: {priority}")

    def _heed(self, verdict: Verdict) -> None:
        key = self._key
        self.headers = _shown("requests", key.requests_per_minute, verdict.requests)
        self.headers |= _shown("tokens", key.tokens_per_minute, verdict.tokens)
        if not verdict.refused:
            return
        sentence = _SENTENCES[verdict.refused].format(
            name=f"The API key {key.name!r}", limit=getattr(key, verdict.refused)
        )
        wait = {
            "Retry-After": str(math.ceil(verdict.wait)),
            "Retry-After-Ms": str(math.ceil(verdict.wait * 1000)),
        }
        raise ApiError(Kind.RATE, sentence, wait)


LEASE = web.RequestKey("lease", Lease)


def leased(request: web.Request, ledger: Ledger) -> AbstractAsyncContextManager[object]:
    """Within this the request is counted; nothing happens where its client has no key, or only
    looks at something."""
    key = request.get(KEY)
    if key is None or request.method != COUNTED:
        return nullcontext()
    lease = request[LEASE] = Lease(key, ledger)
    return lease


def limit_headers(request: web.BaseRequest) -> dict[str, str]:
    """What the answer says of the key's limits."""
    lease = request.get(LEASE)
    return {} if lease is None else lease.headers


def named(request: web.BaseRequest) -> dict[str, str]:
    """The key's name, for the log."""
    key = request.get(KEY)
    return {} if key is None else {"key": key.name}


def _shown(of: str, limit: int | None, allowance: Allowance | None) -> dict[str, str]:
    if limit is None or allowance is None:
        return {}
    return {
        f"x-ratelimit-limit-{of}": str(limit),
        f"x-ratelimit-remaining-{of}": str(allowance.left),
        f"x-ratelimit-reset-{of}": f"{allowance.full_in:.3f}s",
    }
