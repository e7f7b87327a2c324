"""Small additions to what Litestar writes into /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from litestar.openapi.spec import OpenAPIType, Operation, Parameter, RequestBody, Schema
from litestar.openapi.spec.media_type import OpenAPIMediaType


def with_query(descriptions: Mapping[str, str]) -> type[Operation]:
    """Make an operation class that documents query parameters which the handler reads itself."""

    @dataclass
    class DocumentedQuery(Operation):
        def __post_init__(self) -> None:
            described = [
                Parameter(
                    name=name,
                    param_in="query",
                    description=text,
                    schema=Schema(type=OpenAPIType.STRING),
                )
                for name, text in descriptions.items()
            ]
            self.parameters = [*(self.parameters or []), *described]

    return DocumentedQuery


def with_bodies(bodies: Mapping[str, dict[str, Any]], description: str) -> type[Operation]:
    """Make an operation class that documents a body which the handler reads itself.

    Args:
        bodies: JSON Schemas by content type; a schema's keys are those of `Schema`.
        description: What the body is.
    """

    @dataclass
    class DocumentedBody(Operation):
        def __post_init__(self) -> None:
            content = {
                kind: OpenAPIMediaType(schema=_schema(schema)) for kind, schema in bodies.items()
            }
            self.request_body = RequestBody(content=content, description=description, required=True)

    return DocumentedBody


def _schema(plain: dict[str, Any]) -> Schema:
    kinds = plain.get("type")
    properties = plain.get("properties")
    return Schema(
        type=OpenAPIType(kinds) if isinstance(kinds, str) else None,
        format=plain.get("format"),
        description=plain.get("description"),
        required=plain.get("required"),
        items=_schema(plain["items"]) if "items" in plain else None,
        one_of=[_schema(option) for option in plain["oneOf"]] if "oneOf" in plain else None,
        properties={name: _schema(s) for name, s in properties.items()} if properties else None,
    )
