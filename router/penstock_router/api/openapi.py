"""/openapi.json, made from the schemas and the table of routes; /docs shows it."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import orjson
from aiohttp import web
from pydantic import TypeAdapter

from penstock_router.api import page_routes
from penstock_router.api.errors import Kind
from penstock_router.api.routes import Route
from penstock_router.api.service import VERSION

_REF = "#/components/schemas/{model}"
_SENTENCE = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error", "error_type"],
    "properties": {
        "error": {
            "description": "A sentence; under /v1 an object with it as `message`, except for "
            "huggingface_hub",
            "anyOf": [
                _SENTENCE,
                {
                    "type": "object",
                    "required": ["message", "type", "param", "code", "http_status_code"],
                    "properties": {
                        "message": _SENTENCE,
                        "type": {"type": "string"},
                        "param": {"type": "null"},
                        "code": {"type": ["string", "integer"]},
                        "http_status_code": {"type": "integer"},
                    },
                },
            ],
        },
        "error_type": {"type": "string"},
    },
}
_ANTHROPIC_ERROR = {
    "type": "object",
    "required": ["type", "error", "error_type"],
    "properties": {
        "type": {"const": "error"},
        "error": {
            "type": "object",
            "required": ["type", "message"],
            "properties": {"type": _SENTENCE, "message": _SENTENCE},
        },
        "error_type": _SENTENCE,
    },
}
_HEADERS: dict[str, dict[str, Any]] = {
    "x-request-id": {
        "description": "The client's name for the request, or the server's",
        "required": True,
        "schema": {"type": "string"},
    },
    "x-ignored-fields": {
        "description": "Fields of the body that are unknown and were ignored",
        "schema": {"type": "string"},
    },
}
_HEADER_REFS = {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS}


def document(routes: Sequence[Route], root_path: str = "", *, keyed: bool) -> dict[str, Any]:
    """OpenAPI 3.1 of the routes. keyed: the server has an API key."""
    schemas: dict[str, Any] = {"ErrorResponse": _ERROR, "AnthropicError": _ANTHROPIC_ERROR}
    paths: dict[str, Any] = {}
    for route in routes:
        path = re.sub(r":[^}]*", "", route.path)
        operation = _operation(route, path, schemas, keyed=keyed and not route.public)
        paths.setdefault(path, {})[route.method.lower()] = operation
    components: dict[str, Any] = {"schemas": schemas, "headers": _HEADERS}
    if keyed:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Penstock", "version": VERSION},
        **({"servers": [{"url": root_path}]} if root_path else {}),
        "paths": paths,
        "components": components,
    }


def _operation(route: Route, path: str, schemas: dict[str, Any], *, keyed: bool) -> dict[str, Any]:
    done = {"description": "Done", "headers": _HEADER_REFS, "content": _content(route, schemas)}
    operation: dict[str, Any] = {
        "summary": route.summary,
        "responses": {"200": done, **_errors(route, path, keyed=keyed)},
        "security": [{"key": []}] if keyed else [],
    }
    if route.body is not None:
        body = {"application/json": {"schema": _schema(route.body, schemas)}}
        operation["requestBody"] = {"required": True, "content": body}
    if route.form is not None:
        form = {"multipart/form-data": {"schema": _schema(route.form, schemas)}}
        operation["requestBody"] = {"required": True, "content": form}
    if names := re.findall(r"{(\w+)}", path):
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in names
        ]
    return operation


def _content(route: Route, schemas: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if route.answer is str:
        content["text/plain"] = {"schema": {"type": "string"}}
    elif route.answer is bytes:
        content["application/octet-stream"] = {"schema": {}}
    elif route.answer is not None:
        content["application/json"] = {"schema": _schema(route.answer, schemas)}
    if route.event is not None:
        # As OpenAPI sees events: `data` is text, which happens to be JSON.
        data: dict[str, Any] = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": _schema(route.event, schemas),
        }
        event = {"type": "object", "properties": {"data": data}}
        content["text/event-stream"] = {"schema": event}
    return content


def _errors(route: Route, path: str, *, keyed: bool) -> dict[str, Any]:
    if route.method == "GET":
        kinds = [Kind.BAD_REQUEST]
        kinds += [Kind.UNHEALTHY] if route.public else []
        kinds += [Kind.NO_MODEL] if "{" in path else []
    else:
        elsewhere = (Kind.UNHEALTHY, Kind.METHOD, Kind.UNAUTHORIZED)
        kinds = [kind for kind in Kind if kind not in elsewhere]
    kinds += [Kind.UNAUTHORIZED] if keyed else []
    by_status: dict[int, list[str]] = {}
    for kind in kinds:
        by_status.setdefault(kind.value.status, []).append(kind.value.error_type)
    model = "AnthropicError" if path.startswith("/v1/messages") else "ErrorResponse"
    content = {"application/json": {"schema": {"$ref": _REF.format(model=model)}}}
    return {
        str(status): {
            "description": ", ".join(dict.fromkeys(types)),
            "headers": _HEADER_REFS,
            "content": content,
        }
        for status, types in sorted(by_status.items())
    }


def _schema(kind: Any, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a type; the schema and those that it needs go to `schemas`."""
    schema = TypeAdapter(kind).json_schema(ref_template=_REF)
    schemas.update(schema.pop("$defs", {}))
    if "title" in schema and schema.get("type") == "object":
        schemas[schema["title"]] = schema
        return {"$ref": _REF.format(model=schema["title"])}
    return schema


class _Page:
    """Bytes that are made when somebody first asks for them, in a thread, and kept."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made = b""
        self._lock = threading.Lock()  # however many ask at first, it is made once

    async def read(self) -> bytes:
        return self._made or await asyncio.to_thread(self._once)

    def _once(self) -> bytes:
        with self._lock:
            self._made = self._made or self._make()
        return self._made


@cache  # tests make hundreds of applications
def docs_routes(
    routes: tuple[Route, ...], root_path: str = "", *, keyed: bool
) -> tuple[Route, ...]:
    """The routes that show the documents of `routes`. keyed: the server has an API key."""
    # 0.3 s: nothing that a start should wait for, once for each process that serves HTTP
    page = _Page(lambda: orjson.dumps(document(routes, root_path, keyed=keyed)))

    async def show_json(request: web.Request) -> web.Response:
        return web.Response(body=await page.read(), content_type="application/json")

    return (
        Route("GET", "/openapi.json", show_json, "This document"),
        Route("GET", "/api-doc/openapi.json", show_json, "This document"),
        Route("GET", "/page/{name}", page_routes.file, "Files of the pages", public=True),
        Route("GET", "/docs", page_routes.docs, "This document for people", public=True),
    )
