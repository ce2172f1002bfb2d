"""OpenAI's /v1/files and /v1/batches: files of requests, and answers to all of them in the end.

The API keeps objects in a folder; the process of `penstock.batches.service` answers the batches. A
client sees what its own key made, and nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from aiohttp import web

from penstock_router.api.batch_schema import BatchRequest, FileForm
from penstock_router.api.errors import ApiError, Kind, invalid
from penstock_router.api.fields import checked
from penstock_router.api.file_upload import receive
from penstock_router.api.json_body import read_json
from penstock_router.api.keys import owner_of_request
from penstock_router.api.quota import KEY
from penstock_router.api.request_context import logged
from penstock_router.api.routes import Route
from penstock_router.api.tgi_routes import json_response
from penstock_router.batches.store import NoRoom, Store

MOST_LISTED = 100
MOST_UPLOADS = 4  # at a time, in this process
READ_BYTES = 256 * 1024
WRITE_SECONDS = 60.0  # for a client to take that much

_STORE = web.AppKey("batch store", Store)
_UPLOADS = web.AppKey("uploads", asyncio.Semaphore)
T = TypeVar("T")


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    """Raises ApiError where there is no room, by our bounds or by the disk's."""
    try:
        yield
    except NoRoom as error:
        raise ApiError(Kind.TOO_MANY, f"There is no room: {error}") from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise ApiError(Kind.TOO_MANY, "There is no room: the disk is full") from None


async def _blocking(call: Callable[[], T]) -> T:
    """What touches the disk, in a thread. Raises ApiError where there is no room."""
    with _on_disk():
        return await asyncio.to_thread(call)


async def upload_file(request: web.Request) -> web.Response:
    """POST /v1/files"""
    store, owner = request.app[_STORE], owner_of_request(request)
    size = request.content_length or 0
    await _blocking(lambda: store.check_room(owner, size))
    uploads = request.app[_UPLOADS]
    if uploads.locked():
        raise ApiError(Kind.TOO_MANY, "Too many files arrive at a time")
    async with uploads:
        with _on_disk(), store.upload(owner) as (name, folder):
            upload = await receive(request, folder)
            filename, purpose, seconds = upload.checked()
            await _blocking(lambda: store.check_room(owner, 0))
            shown = await _blocking(
                lambda: store.keep(
                    name, folder, filename=filename, purpose=purpose, seconds=seconds
                )
            )
    return json_response(shown)


def add_store(app: web.Application, store: Store) -> None:
    """What the routes need."""
    app[_STORE] = store
    app[_UPLOADS] = asyncio.Semaphore(MOST_UPLOADS)


async def list_files(request: web.Request) -> web.Response:
    """GET /v1/files"""
    purpose = request.query.get("purpose")
    found = await _listed(request, "file")
    return _page(request, [one for one in found if purpose in (None, one["purpose"])])


async def list_batches(request: web.Request) -> web.Response:
    """GET /v1/batches"""
    return _page(request, await _listed(request, "batch"))


async def _listed(request: web.Request, kind: str) -> list[dict[str, Any]]:
    store, owner = request.app[_STORE], owner_of_request(request)
    return await _blocking(lambda: store.listed(kind, owner))


def _page(request: web.Request, found: list[dict[str, Any]]) -> web.Response:
    """The part of a list that the query asks for. Raises ApiError."""
    query = request.query
    try:
        limit = int(query.get("limit", "20"))
    except ValueError:
        limit = 0
    if not 1 <= limit <= MOST_LISTED and query.get("limit") != "10000":  # OpenAI's bound of files
        raise invalid(f"`limit` must be an integer from 1 to {MOST_LISTED}")
    limit = min(limit, MOST_LISTED)
    if query.get("order", "desc") not in ("asc", "desc"):
        raise invalid("`order` must be `asc` or `desc`")
    if query.get("order") == "asc":
        found = found[::-1]
    if (after := query.get("after")) is not None:
        places = [place for place, one in enumerate(found) if one["id"] == after]
        if not places:
            raise invalid("`after` must be the id of one that is listed")
        found = found[places[0] + 1 :]
    page = found[:limit]
    return json_response(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": len(found) > limit,
        }
    )


async def get_file(request: web.Request) -> web.Response:
    """GET /v1/files/{id}"""
    return json_response(await _get(request, "file"))


async def get_batch(request: web.Request) -> web.Response:
    """GET /v1/batches/{id}"""
    return json_response(await _get(request, "batch"))


async def _get(request: web.Request, kind: str) -> dict[str, Any]:
    store, owner, name = request.app[_STORE], owner_of_request(request), request.match_info["id"]
    return _found(kind, await _blocking(lambda: store.get(kind, owner, name)))


def _found(kind: str, shown: T | None) -> T:
    if shown is None:
        raise ApiError(Kind.NOT_FOUND, f"There is no {kind} of that id")
    return shown


async def file_content(request: web.Request) -> web.StreamResponse:
    """GET /v1/files/{id}/content"""
    store, owner, name = request.app[_STORE], owner_of_request(request), request.match_info["id"]
    shown = await _get(request, "file")
    with _found("file", await _blocking(lambda: store.open_content(owner, name))) as file:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        response.content_length = shown["bytes"]
        await response.prepare(request)
        while data := await asyncio.to_thread(file.read, READ_BYTES):
            await asyncio.wait_for(response.write(data), WRITE_SECONDS)
        await response.write_eof()
    return response


async def delete_file(request: web.Request) -> web.Response:
    """DELETE /v1/files/{id}"""
    store, owner, name = request.app[_STORE], owner_of_request(request), request.match_info["id"]
    deleted = await _blocking(lambda: store.delete_file(owner, name))
    _found("file", deleted or None)
    return json_response({"id": name, "object": "file", "deleted": True})


async def create_batch(request: web.Request) -> web.Response:
    """POST /v1/batches"""
    store, owner, key = request.app[_STORE], owner_of_request(request), request.get(KEY)
    if key is not None and key.key is None:
        raise invalid(
            "batches are sent with the API key, and of this one the server has no more "
            "than the SHA-256"
        )
    body = await checked(request, BatchRequest, await read_json(request))
    hours = body.hours
    shown = await _blocking(
        lambda: store.create_batch(owner, body.input_file_id, body.endpoint, hours, body.metadata)
    )
    if shown is None:
        raise invalid("`input_file_id` must be the id of a file of yours")
    return json_response(shown)


async def cancel_batch(request: web.Request) -> web.Response:
    """POST /v1/batches/{id}/cancel"""
    store, owner, name = request.app[_STORE], owner_of_request(request), request.match_info["id"]
    return json_response(_found("batch", await _blocking(lambda: store.cancel_batch(owner, name))))


_OBJECT = dict[str, Any]
BATCH_ROUTES = (
    Route(
        "POST",
        "/v1/files",
        logged(upload_file),
        "Keep a file of requests",
        answer=_OBJECT,
        form=FileForm,
    ),
    Route("GET", "/v1/files", logged(list_files), "The files", answer=_OBJECT),
    Route("GET", "/v1/files/{id}", logged(get_file), "A file", answer=_OBJECT),
    Route("GET", "/v1/files/{id}/content", logged(file_content), "What is in a file", answer=bytes),
    Route("DELETE", "/v1/files/{id}", logged(delete_file), "Delete a file", answer=_OBJECT),
    Route(
        "POST",
        "/v1/batches",
        logged(create_batch),
        "Have the requests of a file answered",
        BatchRequest,
        _OBJECT,
    ),
    Route("GET", "/v1/batches", logged(list_batches), "The batches", answer=_OBJECT),
    Route("GET", "/v1/batches/{id}", logged(get_batch), "A batch", answer=_OBJECT),
    Route("POST", "/v1/batches/{id}/cancel", logged(cancel_batch), "End a batch", answer=_OBJECT),
)
UPLOADS = frozenset({("POST", "/v1/files")})
