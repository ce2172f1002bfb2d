"""/openapi.json and /docs, made from the schemas and the table of routes."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import orjson
from aiohttp import web
from pydantic import TypeAdapter

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


def docs_page(openapi: dict[str, Any]) -> str:
    """The same for people. It loads nothing: servers often have no network."""
    rows = []
    for path, operations in openapi["paths"].items():
        for method, operation in operations.items():
            body = operation.get("requestBody", {}).get("content", {})
            reference = body.get("application/json", {}).get("schema", {}).get("$ref", "")
            name = reference.rsplit("/", 1)[-1]
            link = f'<a href="#{name}">{name}</a>' if name else ""
            rows.append(
                f"<tr><td>{method.upper()}</td><td><code>{html.escape(path)}</code></td>"
                f"<td>{html.escape(operation['summary'])}</td><td>{link}</td></tr>"
            )
    schemas = "".join(
        f'<h3 id="{html.escape(name)}">{html.escape(name)}</h3><pre>{_pretty(schema)}</pre>'
        for name, schema in sorted(openapi["components"]["schemas"].items())
    )
    return _PAGE.format(version=html.escape(VERSION), rows="".join(rows), schemas=schemas)


def _pretty(schema: dict[str, Any]) -> str:
    return html.escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Penstock API</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif }}
body {{ max-width: 60rem; margin: 2rem auto; padding: 0 1rem }}
td {{ padding: .2rem .8rem .2rem 0; vertical-align: top }}
pre {{ background: #f4f4f4; padding: .8rem; overflow-x: auto }}
</style></head><body>
<h1>Penstock {version}</h1>
<p>The same for programs: <a href="openapi.json">openapi.json</a></p>
<table>{rows}</table>
<h2>Schemas</h2>{schemas}
</body></html>
"""


@cache  # tests make hundreds of applications, and a document takes 60 ms
def docs_routes(
    routes: tuple[Route, ...], root_path: str = "", *, keyed: bool
) -> tuple[Route, ...]:
    """The routes that show the documents of `routes`. keyed: the server has an API key."""
    openapi = document(routes, root_path, keyed=keyed)
    as_json = orjson.dumps(openapi)
    as_html = docs_page(openapi)

    async def show_json(request: web.Request) -> web.Response:
        return web.Response(body=as_json, content_type="application/json")

    async def show_html(request: web.Request) -> web.Response:
        return web.Response(text=as_html, content_type="text/html")

    return (
        Route("GET", "/openapi.json", show_json, "This document"),
        Route("GET", "/api-doc/openapi.json", show_json, "This document"),
        Route("GET", "/docs", show_html, "This document for people"),
    )
