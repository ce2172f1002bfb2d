"""API keys: who may call, and with whom a request shares cached prefixes."""

from __future__ import annotations

import hmac
from collections.abc import Collection, Sequence

from aiohttp import hdrs, web

from penstock_proto.api_keys import ApiKey, digest_of
from penstock_proto.batch_folder import owner_of
from penstock_router.api.errors import ApiError, Kind
from penstock_router.api.quota import KEY

_OF_A_KEY = b"penstock: prefix cache"

_SALT = web.RequestKey("cache_salt", bytes)
_OWNER = web.RequestKey("owner", str)


class Keys:
    """The keys that clients may have, as digests. Without any, everybody may call."""

    def __init__(self, keys: Sequence[ApiKey], public: Collection[tuple[str, str]]) -> None:
        """public: method and path of the routes that need no key."""
        self.replace(keys)
        self._public = frozenset(public)

    def replace(self, keys: Sequence[ApiKey]) -> None:
        """These count from now on, and no others. What runs goes on."""
        self._known = [(bytes.fromhex(key.sha256), key) for key in keys]

    def check(self, request: web.Request) -> None:
        """Raises ApiError unless the client may have what it asks for.

        The route decides that was found for the request line; the Host header plays no part in
        it. What is not listed as public needs a key, routes that do not exist included.
        """
        if not self._known or self._is_public(request):
            return
        given = _given_key(request)
        key = self._find(given)
        if key is None:
            raise ApiError(Kind.UNAUTHORIZED, headers={hdrs.WWW_AUTHENTICATE: "Bearer"})
        request[KEY], request[_OWNER] = key, owner_of(given)
        request[_SALT] = _salt(given if key.salt is None else f"salt {key.salt}")

    def _find(self, given: str) -> ApiKey | None:
        """None where there is no such key. Looks at all of them, so that its time does not depend
        on which it is."""
        mine = bytes.fromhex(digest_of(given))
        found = None
        for digest, key in self._known:
            if hmac.compare_digest(mine, digest):
                found = key
        return found

    def _is_public(self, request: web.Request) -> bool:
        resource = request.match_info.route.resource
        if resource is None:
            return False
        method = "GET" if request.method == "HEAD" else request.method
        return (method, resource.canonical) in self._public


KEYS: web.AppKey[Keys] = web.AppKey("keys", Keys)


def _salt(secret: str) -> bytes:
    return hmac.digest(secret.encode("utf-8", "surrogateescape"), _OF_A_KEY, "sha256")


def _given_key(request: web.Request) -> str:
    """What stands behind `Bearer`, or in the header that Anthropic's clients send; else nothing,
    which is nobody's key."""
    scheme, _, given = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return given if scheme.lower() == "bearer" else request.headers.get("x-api-key", "")


def owner_of_request(request: web.Request) -> str:
    """Whose files and batches a request sees: those of its key."""
    owner: str = request.get(_OWNER, owner_of(None))
    return owner


def cache_salt(request: web.Request, given: str | None) -> bytes:
    """With whom a request shares cached prefixes: those whose salt is the same bytes.

    given: what its body says. It is hashed with the salt of the request's key, so it makes the
    circle smaller, and gets nobody into the one of another key.
    """
    own = request.get(_SALT, b"")
    return own if given is None else hmac.digest(own, given.encode(), "sha256")
