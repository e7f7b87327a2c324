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
        "data": {"type": "string", "format": "byte", "description": "Strict base64, or:"},
        "upload": {"type": "string", "description": "the uid of an upload."},
    },
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
                "conversation_id": _TEXT,
                "metadata": {"type": "object"},
                "attachments": {"type": "array", "items": _FILE},
            },
            "required": ["attachments"],
        },
        "multipart/form-data": {
            "type": "object",
            "properties": {
                **_COMMON,
                "conversation_id": _TEXT,
                "metadata": {"type": "string", "description": "An object as JSON text."},
                "attachment_0": {"type": "string", "format": "binary"},
            },
            "required": ["attachment_0"],
        },
    },
    "Files, with the conversation or the message they belong to.",
)

_COUNTER: dict[str, Any] = {"type": "integer", "description": "Of usage."}
_ITEM: dict[str, Any] = {
    "type": {
        "type": "string",
        "description": "message, attachments, action, button or usage: says which fields count.",
    },
    "item_key": {"type": "string", "description": "Your own id of the item; it is stored once."},
    "timestamp": {"type": "string", "format": "date-time"},
    "metadata": {"type": "object"},
    "sender": {"type": "string", "description": "Of a message or files: end_user, agent, system."},
    "content": {"type": "string", "description": "Of a message."},
    "external_id": {"type": "string", "description": "Of a message: the channel's own id."},
    "author": {"type": "string", "description": "Of a message."},
    "attachments": {
        "type": "array",
        "description": "Of a message or files.",
        "items": {
            "type": "object",
            "properties": {
                "item_key": _TEXT,
                "filename": _TEXT,
                "mime_type": _TEXT,
                "data": {"type": "string", "format": "byte", "description": "Strict base64, or:"},
                "part": {"type": "string", "description": "the name of a multipart part, or:"},
                "upload": {"type": "string", "description": "the uid of an upload."},
            },
        },
    },
    "action_name": {"type": "string", "description": "Of an action."},
    "started_at": {"type": "string", "description": "Of an action."},
    "ended_at": {"type": "string", "description": "Of an action."},
    "duration_ms": {"type": "number", "description": "Of an action."},
    "tools_used": {"type": "object", "description": "Of an action."},
    "response": {"type": "string", "description": "Of an action."},
    "error_message": {"type": "string", "description": "Of an action."},
    "button_event": {"type": "string", "description": "Of a button."},
    "label": {"type": "string", "description": "Of a button."},
    "value": {"type": "string", "description": "Of a button."},
    "model": {"type": "string", "description": "Of usage."},
    "prompt_tokens": _COUNTER,
    "completion_tokens": _COUNTER,
    "total_tokens": _COUNTER,
    "embedding_tokens": _COUNTER,
}
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
                "properties": _ITEM,
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
