"""How the bodies that handlers read themselves are described in /openapi.json."""

from __future__ import annotations

from typing import Any

from agentsight.server.web.openapi import with_bodies

_TEXT: dict[str, Any] = {"type": "string"}
_ID: dict[str, Any] = {"oneOf": [{"type": "integer"}, {"type": "string"}]}
_FILE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "filename": _TEXT,
        "mime_type": _TEXT,
        "data": {"type": "string", "format": "byte", "description": "Strict base64."},
    },
    "required": ["data"],
}
_COMMON: dict[str, Any] = {
    "timestamp": {"type": "string", "format": "date-time"},
    "conversation": {**_ID, "description": "Row id."},
    "message": {**_ID, "description": "Row id of the message the files join."},
    "sender": {"type": "string", "description": "end_user, agent or system."},
    "mode": {"type": "string", "description": "What published clients call their way of sending."},
}

ATTACHMENTS_BODY = with_bodies(
    {
        "application/json": {
            "type": "object",
            "properties": {
                **_COMMON,
                "conversation_id": {**_TEXT, "description": "The caller's own id."},
                "metadata": {"type": "object"},
                "attachments": {"type": "array", "items": _FILE},
            },
            "required": ["attachments"],
        },
        "multipart/form-data": {
            "type": "object",
            "properties": {
                **_COMMON,
                "conversation_id": {**_TEXT, "description": "The caller's own id."},
                "metadata": {"type": "string", "description": "An object as JSON text."},
                "attachment_0": {"type": "string", "format": "binary"},
            },
            "required": ["attachment_0"],
        },
    },
    "Files, with the conversation or the message they belong to.",
)

_BATCH: dict[str, Any] = {
    "type": "object",
    "properties": {
        "conversation": {
            "type": "object",
            "properties": {"conversation_id": _TEXT},
            "required": ["conversation_id"],
            "description": "As the body of POST /api/conversations/.",
        },
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "type": {
                        "type": "string",
                        "description": "message, attachments, action, button or usage.",
                    },
                    "item_key": {
                        "type": "string",
                        "description": "Your own id of the item; it is stored once.",
                    },
                },
                "required": ["type"],
            },
        },
    },
    "required": ["conversation"],
}

BATCH_BODY = with_bodies(
    {
        "application/json": _BATCH,
        "multipart/form-data": {
            "type": "object",
            "properties": {
                "batch": {"type": "string", "description": "The JSON body, as the first part."},
                "file_0": {
                    "type": "string",
                    "format": "binary",
                    "description": "A file, under the name that its item gives as `part`.",
                },
            },
            "required": ["batch"],
        },
    },
    "A conversation and what happened in it.",
)
