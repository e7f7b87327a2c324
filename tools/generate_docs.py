"""Write the generated parts of `docs/` out of the code: `python -m tools.generate_docs [--check]`.

What stands between `<!-- generated: NAME -->` and `<!-- end: NAME -->` in a page is made here; the
rest of the page is written by hand. `docs/public-api.json` is generated whole: it is the record of
the SDK's public names, and a change of it in a commit is a change of the contract.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
import sys
import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from agentsight._contract import ERROR_CODES
from agentsight.config import UNSET
from agentsight.server.app import create_app
from agentsight.server.dashboard.reference import (
    Field,
    Operation,
    describe_api,
    openapi_document,
)
from agentsight.server.settings import describe_settings, load_settings

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MODULES = (
    "agentsight",
    "agentsight.client",
    "agentsight.config",
    "agentsight.enums",
    "agentsight.exceptions",
    "agentsight.helpers",
    "agentsight.http",
    "agentsight.logging",
    "agentsight.token_handlers",
    "agentsight.types",
    "agentsight.validators",
)
"""The import paths that the SDK keeps."""
_WIRING = frozenset({"default_instance", "run", "runtime"})
"""Methods that our own modules and tests call; nobody's contract."""
_MARKED = "<!-- generated: {0} -->\n{1}<!-- end: {0} -->"

Json = dict[str, Any]


# --- Markdown -------------------------------------------------------------------------------------


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(_cell(text) for text in line) + " |" for line in lines)


# --- Settings -------------------------------------------------------------------------------------


def settings_table() -> str:
    """Return every setting of the server, one row each."""
    rows = [
        (
            f"`{row.variable}`",
            f"`{row.flag}`" if row.flag else "",
            row.type + (f", {row.unit}" if row.unit and row.unit not in row.default else ""),
            row.default,
            row.text,
        )
        for row in describe_settings()
    ]
    return table(("variable", "flag of `serve`", "type", "default", "what it does"), rows)


# --- The HTTP API ---------------------------------------------------------------------------------


def api_document() -> Json:
    """Return the OpenAPI description of this version; nothing is opened for it."""
    return openapi_document(create_app(load_settings({})).app)


def operations_text(document: Json) -> str:
    """Return every operation: parameters, bodies, answer."""
    parts: list[str] = []
    for group in describe_api(document):
        parts.append(f"### {group.title}")
        parts += [_operation_text(operation) for operation in group.operations]
    return "\n\n".join(parts)


def _operation_text(operation: Operation) -> str:
    key = "" if operation.needs_key else " Needs no key."
    parts = [f"#### {operation.method} {operation.path}", operation.text + key]
    if operation.parameters:
        parts.append(_fields_table("parameter", operation.parameters))
    for body in operation.bodies:
        parts.append(f"Body, `{body.kind}`:")
        parts.append(_fields_table("field", body.fields))
    answer = f"Answer, {operation.status}:"
    if operation.answer:
        parts += [answer, _fields_table("field", operation.answer, is_sent=False)]
    elif "/content/" in operation.path or operation.path.startswith("/files/"):
        parts.append(f"{answer} the bytes.")
    else:
        parts.append(
            f"{answer} `id`, `conversation_id`, the fields that were set, and their names."
        )
    return "\n\n".join(parts)


def _fields_table(kind: str, fields: Sequence[Field], *, is_sent: bool = True) -> str:
    rows = [
        (f"`{f.name}`", f.type + (", needed" if f.is_required and is_sent else ""), f.text)
        for f in fields
    ]
    return table((kind, "type", "what it is"), rows)


def shapes_text(document: Json) -> str:
    """Return the objects that answers are made of, one table each."""
    parts: list[str] = []
    for name, schema in document["components"]["schemas"].items():
        if not name.endswith("Shape"):
            continue
        parts.append(f"#### {name.removesuffix('Shape')}")
        parts.append(_fields_table("field", _fields_of(name, document), is_sent=False))
        if schema.get("description"):
            parts.insert(-1, schema["description"])
    return "\n\n".join(parts)


def _fields_of(name: str, document: Json) -> list[Field]:
    """Read a named schema with the same eyes as an operation's answer."""
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}
    operation = {"tags": ["operation"], "responses": {"200": {"content": content}}}
    alone = {"paths": {"/": {"get": operation}}, "components": document["components"]}
    return next(op.answer for group in describe_api(alone) for op in group.operations)


def codes_table() -> str:
    """Return every error code."""
    return table(("code", "what it says"), [(f"`{c}`", text) for c, text in ERROR_CODES.items()])


# --- The SDK's public names -----------------------------------------------------------------------


def public_api() -> dict[str, dict[str, Any]]:
    """Return, by module, each public name: its signature, or a class's members with theirs."""
    return {
        name: {public: _described(getattr(module, public)) for public in sorted(module.__all__)}
        for name, module in ((name, importlib.import_module(name)) for name in MODULES)
    }


def _described(value: object) -> Any:
    if inspect.isclass(value):
        return _class_members(value)
    if inspect.isroutine(value):
        return _signature(value)
    if isinstance(value, types.UnionType) or type(value).__module__ == "typing":
        return "type"
    return f"instance of {type(value).__name__}"


def _class_members(cls: type) -> dict[str, str]:
    if issubclass(cls, BaseException):
        return {"bases": ", ".join(base.__name__ for base in cls.__bases__)}
    members: dict[str, str] = {}
    # Not dir(): what it leaves out of an enum differs between versions of Python.
    for name in sorted({name for base in cls.__mro__ for name in vars(base)}):
        if (name.startswith("_") and name != "__init__") or name in _WIRING:
            continue
        value = inspect.getattr_static(cls, name)
        value = getattr(value, "__func__", value)  # of a class method
        home = getattr(value, "__module__", None) or ""
        if name in getattr(cls, "__members__", ()):
            members[name] = repr(getattr(cls, name).value)
        elif isinstance(value, property):
            members[name] = "property"
        elif inspect.isroutine(value) and home.startswith("agentsight"):
            members[name] = _signature(getattr(cls, name))
    return members


class _Bare(str):
    """A text that shows itself without quotes, as an annotation stands in the source."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _signature(function: Any) -> str:
    signature = inspect.signature(function)
    shown = [_shown(p) for p in signature.parameters.values() if p.name not in ("self", "cls")]
    answer = signature.return_annotation
    answer = _Bare(answer) if isinstance(answer, str) else answer
    is_async = inspect.iscoroutinefunction(function)
    text = str(signature.replace(parameters=shown, return_annotation=answer))
    return f"{text}, awaited" if is_async else text


def _shown(parameter: inspect.Parameter) -> inspect.Parameter:
    if isinstance(parameter.annotation, str):
        parameter = parameter.replace(annotation=_Bare(parameter.annotation))
    # What a default of "not given" is called inside is nobody's contract.
    return parameter.replace(default=_Bare("…")) if parameter.default is UNSET else parameter


def public_names_text() -> str:
    """Return the SDK's public names as lists for people, clients first."""
    api = public_api()
    parts: list[str] = []
    for module, names in api.items():
        parts.append(f"### `{module}`")
        lines: list[str] = []
        for name, described in names.items():
            if module == "agentsight.client" and name in api["agentsight"]:
                lines.append(f"* `{name}`: as in `agentsight`")
            elif isinstance(described, str):
                shown = f"`{name}{described}`" if "(" in described else f"`{name}`: {described}"
                lines.append(f"* {shown}")
            else:
                lines.append(f"* `{name}`")
                lines += [f"  * {_member(key, text)}" for key, text in described.items()]
        parts.append("\n".join(lines))
    return "\n\n".join(parts)


def _member(name: str, text: str) -> str:
    if name == "bases":
        return f"a kind of {text}"
    if text == "property":
        return f"`{name}` (property)"
    call, awaited, _ = text.partition(", awaited")
    return f"`{name}{call}`{awaited}" if "(" in call else f"`{name}` = `{text}`"


# --- Pages ----------------------------------------------------------------------------------------


def generated_parts() -> dict[str, dict[str, str]]:
    """Return what is generated, by page and by the name of the marker."""
    document = api_document()
    return {
        "settings.md": {"settings": settings_table()},
        "http-api.md": {
            "operations": operations_text(document),
            "shapes": shapes_text(document),
            "codes": codes_table(),
        },
        "sdk.md": {"names": public_names_text()},
    }


def pages() -> dict[Path, str]:
    """Return the pages that have generated parts, as they should be.

    Raises:
        ValueError: A page has lost a marker.
    """
    made: dict[Path, str] = {}
    for page, parts in generated_parts().items():
        path = DOCS / page
        text = path.read_text(encoding="utf-8")
        for name, part in parts.items():
            pattern = _MARKED.format(re.escape(name), ".*?")
            block = _MARKED.format(name, f"\n{part}\n\n")
            text, n_found = re.subn(pattern, lambda _, b=block: b, text, flags=re.DOTALL)
            if n_found != 1:
                raise ValueError(f"{path.name} must have the markers of {name!r} once")
        made[path] = text
    made[DOCS / "public-api.json"] = json.dumps(public_api(), indent=2, ensure_ascii=False) + "\n"
    return made


def stale_pages() -> list[str]:
    """Return the names of the pages that are not what the code says."""
    return [
        path.name
        for path, text in pages().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or with --check only say which are stale."""
    if list(arguments) == ["--check"]:
        stale = stale_pages()
        for name in stale:
            print(f"docs/{name} is stale: run make docs", file=sys.stderr)
        return 1 if stale else 0
    if arguments:
        print("usage: python -m tools.generate_docs [--check]", file=sys.stderr)
        return 2
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
