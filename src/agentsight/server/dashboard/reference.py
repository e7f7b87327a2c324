"""The HTTP API as a page, and as data for docs/http-api.md: read out of the OpenAPI description."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, cast

from litestar import Litestar, Request, Response, get

from agentsight._contract import ERROR_CODES
from agentsight.server.dashboard.field_texts import (
    FIELD_TEXTS,
    NEEDED,
    PATH_TEXTS,
    SENT_TEXTS,
    TEXTS_OF,
)
from agentsight.server.dashboard.render import answer_page

Json = dict[str, Any]
_TITLES = {
    "tracking": "Tracking",
    "uploads": "Uploads",
    "attachments": "Files",
    "conversations": "Conversations",
    "feedback": "Feedback",
    "usage": "Usage",
    "removal": "Deletion",
    "operation": "Operation",
}


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter, or a key of a body; of what lies deeper, `items[].attachments[].data`."""

    name: str
    type: str
    text: str
    is_required: bool


@dataclass(frozen=True, slots=True)
class Body:
    """A request's or answer's body of one content type."""

    kind: str
    fields: list[Field]


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path."""

    anchor: str
    method: str
    path: str
    summary: str
    text: str
    needs_key: bool
    parameters: list[Field]
    bodies: list[Body]
    status: str
    answer: list[Field]


@dataclass(slots=True)
class Group:
    """Operations that belong together."""

    title: str
    operations: list[Operation] = field(default_factory=list[Operation])


_SCALARS = ("string", "number", "boolean", "null")
_ROW_ID = ("integer", "string", "null")
_LOOSE: dict[str, Json] = {
    "conversation": {"type": [*_ROW_ID]},
    "message": {"type": [*_ROW_ID]},
    "duration_ms": {"type": ["number", "string", "null"]},
    "tools_used": {"type": ["object", "null"]},
    "response": {"title": "JSON"},
}
"""What fields of bodies mean that are taken in more forms than one; any other scalar is a text."""
_SHOWN_TYPES: dict[tuple[str, ...], str] = {
    _SCALARS: "text",
    _ROW_ID: "row id (integer or its digits)",
    ("number", "string", "null"): "number",
}
_ERROR: Json = {
    "type": "object",
    "title": "Error",
    "description": "Wrong fields are named by further keys, each a list of texts.",
    "properties": {
        "detail": {"type": "string"},
        "code": {"type": "string", "enum": sorted(ERROR_CODES)},
        "request_id": {"type": "string"},
        "items": {
            "type": "array",
            "items": {"type": "object"},
            "description": "Of a batch: which items are refused, and why.",
        },
    },
    "required": ["code", "detail", "request_id"],
    "additionalProperties": True,
}


def openapi_document(app: Litestar) -> Json:
    """Return the description of the API, with our errors and with paths as clients send them.

    The framework describes its own error body, and drops the slash at the end of paths.
    """
    document = app.openapi_schema.to_schema()
    schemas = cast("dict[str, Json]", document["components"]["schemas"])
    schemas["Error"] = _ERROR
    for title, schema in schemas.items():
        if title.endswith("Body"):
            _tighten_body(schema)
            schema["required"] = sorted({*schema.get("required", ()), *NEEDED.get(title, ())})
        _describe_fields(title, schema)
    refused = {
        "description": "Refused, or not possible now; `code` says why.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    }
    paths: Json = {}
    for path, methods in cast("dict[str, Json]", document["paths"]).items():
        for operation in methods.values():
            for body in operation.get("requestBody", {}).get("content", {}).values():
                _tighten_body(body["schema"])
                _describe_sent(body["schema"])
            for parameter in operation.get("parameters") or ():
                if parameter["in"] == "path":
                    parameter.setdefault("description", PATH_TEXTS.get(parameter["name"], ""))
            responses = operation["responses"]
            kept = {status: r for status, r in responses.items() if status.startswith("2")}
            if not path.startswith("/api/"):
                operation["security"] = []
            operation["responses"] = kept | {"default": refused}
        paths[f"{path}/" if path.startswith("/api/") else path] = methods
    document["paths"] = paths
    return document


def _describe_sent(schema: Json) -> None:
    """Describe the fields of a body that is written by hand, and of the objects in it."""
    _describe_fields("", schema)
    for value in cast("dict[str, Json]", schema.get("properties") or {}).values():
        _describe_sent(cast("Json", value.get("items") or value))


def _describe_fields(title: str, schema: Json) -> None:
    own = TEXTS_OF.get(title, {})
    if not title or title.endswith("Body"):
        own = SENT_TEXTS | own
    for name, value in cast("dict[str, Json]", schema.get("properties") or {}).items():
        if name == "metadata" and not value:  # JSON that is passed through
            value["type"] = "object"
        elif name == "tools_used" and "oneOf" in value:
            value.pop("oneOf")
            value["type"] = ["object", "null"]
        text = own.get(name) or FIELD_TEXTS.get(name)
        if text is not None and "$ref" not in value:
            value.setdefault("description", text)


def _tighten_body(schema: Json) -> None:
    """Say in one type what the framework gives as a choice of overlapping ones."""
    for name, value in cast("dict[str, Json]", schema.get("properties") or {}).items():
        options = cast("list[Json]", value.get("oneOf") or [])
        kinds = {str(option.get("type")) for option in options}
        if name in _LOOSE and value.get("type") is None:
            value.pop("oneOf", None)
            value.update(_LOOSE[name])
        elif kinds == {*_SCALARS, "integer"}:
            del value["oneOf"]
            value["type"] = [*_SCALARS]


def describe_api(schema: Json) -> list[Group]:
    """Read the operations out of an OpenAPI description, grouped by their first tag."""
    groups = {tag: Group(title) for tag, title in _TITLES.items()}
    for path, methods in sorted(cast("dict[str, Json]", schema["paths"]).items()):
        for method, operation in methods.items():
            if method in ("get", "post", "put", "patch", "delete"):
                tag = operation.get("tags", ["operation"])[0]
                groups[tag].operations.append(_operation(path, method, operation, schema))
    return list(groups.values())


def _operation(path: str, method: str, operation: Json, schema: Json) -> Operation:
    status, answer = _success(operation, schema)
    return Operation(
        anchor=f"{method}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}",
        method=method.upper(),
        path=path,
        summary=operation.get("summary", ""),
        text=operation.get("description", ""),
        needs_key=path.startswith("/api/"),
        parameters=[_parameter(p, schema) for p in operation.get("parameters") or ()],
        bodies=_bodies(operation.get("requestBody") or {}, schema),
        status=status,
        answer=answer,
    )


def _parameter(parameter: Json, schema: Json) -> Field:
    return Field(
        parameter["name"],
        f"{parameter['in']}, {_type(parameter.get('schema') or {}, schema)}",
        parameter.get("description") or "",
        bool(parameter.get("required")),
    )


def _bodies(request_body: Json, schema: Json) -> list[Body]:
    content = cast("dict[str, Json]", request_body.get("content") or {})
    return [
        Body(kind, _sent_fields(body.get("schema") or {}, schema)) for kind, body in content.items()
    ]


def _success(operation: Json, schema: Json) -> tuple[str, list[Field]]:
    for status, response in cast("dict[str, Json]", operation["responses"]).items():
        if status.startswith("2"):
            content = cast("dict[str, Json]", response.get("content") or {})
            body = content.get("application/json") or {}
            return status, _fields(body.get("schema") or {}, schema)
    return "", []


def _resolve(part: Json, schema: Json) -> Json:
    reference = part.get("$ref")
    if reference is None:
        return part
    name = str(reference).rsplit("/", 1)[-1]
    return cast("Json", schema["components"]["schemas"][name])


def _fields(part: Json, schema: Json) -> list[Field]:
    resolved = _resolve(part, schema)
    required = cast("list[str]", resolved.get("required") or [])
    properties = cast("dict[str, Json]", resolved.get("properties") or {})
    return [
        Field(name, _type(value, schema), value.get("description") or "", name in required)
        for name, value in properties.items()
    ]


def _sent_fields(part: Json, schema: Json, within: str = "") -> list[Field]:
    """Read the fields of a body, each followed by those of the objects in it: who sends needs all.

    What is in an answer has a shape of its own, and is described with that.
    """
    fields: list[Field] = []
    properties = cast("dict[str, Json]", _resolve(part, schema).get("properties") or {})
    for field_, value in zip(_fields(part, schema), properties.values(), strict=True):
        name = f"{within}{field_.name}"
        fields.append(replace(field_, name=name))
        inner = cast("Json", value.get("items") or value)
        fields += _sent_fields(inner, schema, f"{name}{'[]' if 'items' in value else ''}.")
    return fields


def _type(part: Json, schema: Json) -> str:
    if "$ref" in part:
        return str(part["$ref"]).rsplit("/", 1)[-1].removesuffix("Shape").removesuffix("Body")
    options = cast("list[Json]", part.get("oneOf") or part.get("anyOf") or [])
    if options:
        names = dict.fromkeys(_type(option, schema) for option in options)
        return " or ".join(names)
    kind = part.get("type", "any JSON")
    if isinstance(kind, list):
        kinds = tuple(str(k) for k in cast("list[Any]", kind))
        return _SHOWN_TYPES.get(kinds, " or ".join(kinds))
    if kind == "array":
        return f"list of {_type(part.get('items') or {}, schema)}"
    shown = part.get("format")
    return f"{kind} ({shown})" if shown else str(kind)


@get("/openapi.json", include_in_schema=False)
async def send_openapi(request: Request[Any, Any, Any]) -> Json:
    """Send the machine-readable description."""
    return openapi_document(request.app)


@get("/docs", include_in_schema=False)
async def show_reference(request: Request[Any, Any, Any]) -> Response[bytes]:
    """Show the HTTP API as one page, without script."""
    groups = describe_api(openapi_document(request.app))
    return answer_page("reference.html", "", {"groups": groups, "codes": ERROR_CODES})


reference_routes = [send_openapi, show_reference]
