"""Turn a template and its values into an answer, with the headers that every page carries."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litestar import Response

if TYPE_CHECKING:
    from jinja2 import Environment

_FOLDER = Path(__file__).parent
STYLE_PATH = "/app/style.css"

# The one place where a page's powers are written down: our own style sheet and pictures, forms to
# ourselves, no script, no frame, nothing from anywhere else.
PAGE_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self';"
        " base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


@functools.cache
def _templates() -> Environment:
    # Imported on first use: a server that only answers bots never needs it.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(_FOLDER / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["code"] = _show_code
    return environment


def _show_code(text: str) -> str:
    """Escape a text and show what stands between backticks as code."""
    from markupsafe import Markup, escape

    pieces = [escape(piece) for piece in text.split("`")]
    shown = [
        Markup("<code>{}</code>").format(piece) if n % 2 else piece
        for n, piece in enumerate(pieces)
    ]
    return Markup("").join(shown)


@functools.cache
def style_sheet() -> bytes:
    """Return the style sheet of all pages."""
    return (_FOLDER / "static" / "style.css").read_bytes()


@functools.cache
def _style_url() -> str:
    # Named by its content, so that it may be kept for ever and still changes with an update.
    return f"app/style.css?v={hashlib.sha256(style_sheet()).hexdigest()[:12]}"


def render_page(template: str, root: str, values: dict[str, Any]) -> bytes:
    """Return a page's HTML; see `answer_page`."""
    style_url = f"{root}{_style_url()}"
    text = _templates().get_template(template).render(**values, root=root, style_url=style_url)
    return text.encode()


def answer_page(
    template: str, root: str, values: dict[str, Any], *, status: int = 200
) -> Response[bytes]:
    """Answer with a page.

    Args:
        template: The name of its template.
        root: The way from the page's address to the server's root (`""`, `"../../"`), so that
            pages work under a path of a proxy too.
        values: What the template names.
        status: The answer's status.
    """
    return Response(
        render_page(template, root, values),
        status_code=status,
        media_type="text/html",  # the framework names the charset
        headers=PAGE_HEADERS,
    )
