"""The start page, the page that sets a password, and what stands where people will sign in."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

from litestar import Request, Response, get, post
from litestar.params import FromPath

import agentsight
from agentsight.server.accounts import service as accounts
from agentsight.server.accounts.model import DEFAULT_SLUG
from agentsight.server.commands import public_command
from agentsight.server.dashboard.render import answer_page, style_sheet
from agentsight.server.dashboard.snippet import snippet
from agentsight.server.first_start import FILE_NAME
from agentsight.server.problems import Problem, too_large
from agentsight.server.request_context import bases_of, parts_of
from agentsight.server.sdk_index import sdk_install_line
from agentsight.server.settings_text import MAX_PASSWORD_CHARS, MIN_PASSWORD_CHARS
from agentsight.server.web.bodies import receive_chunks

PageRequest = Request[Any, Any, Any]
_KEY_COMMAND = f"keys create --agent {DEFAULT_SLUG} --role write"
_MAX_FORM_BYTES = 16 * 1024
_TO_ROOT = "../../"
"""From /app/set-password/{token} to the root."""


@get("/", include_in_schema=False)
async def show_start(request: PageRequest) -> Response[bytes]:
    """Say what to do next. It shows no key and nothing of what is stored."""
    base_url = bases_of(request).public_base(request.scope)
    values = {
        "install_line": sdk_install_line(base_url),
        "snippet": snippet(base_url),
        "first_start_file": FILE_NAME,
        "key_command": public_command(_KEY_COMMAND, parts_of(request).settings),
        "version": agentsight.__version__,
    }
    return answer_page("start.html", "", values)


@get("/app", include_in_schema=False)
async def show_no_dashboard(request: PageRequest) -> Response[bytes]:
    """Say that there is nothing to sign in to yet; people look for it here."""
    root = "../" if request.scope["raw_path"].endswith(b"/") else ""
    return answer_page("no_dashboard.html", root, {})


@get("/app/style.css", include_in_schema=False)
async def send_style() -> Response[bytes]:
    """Send the style sheet; its address changes with its content."""
    headers = {
        "Cache-Control": "public, max-age=31536000, immutable",
        "X-Content-Type-Options": "nosniff",
    }
    return Response(style_sheet(), media_type="text/css", headers=headers)


@get("/app/set-password/{token:str}", include_in_schema=False)
async def show_set_password(request: PageRequest, token: FromPath[str]) -> Response[bytes]:
    """Show the form of a one-time link. Looking does not use the link up: mail scanners look."""
    parts = parts_of(request)
    holder = await accounts.find_token(parts.db, token, parts.clock())
    if holder is None:
        return _link_gone(request)
    return _form(holder.email, [])


@post("/app/set-password/{token:str}", include_in_schema=False, status_code=200)
async def set_password(request: PageRequest, token: FromPath[str]) -> Response[bytes]:
    """Set the password and use the link up.

    There is no session whose rights another site could borrow: what the request may do is in its
    address, 256 random bits that no other site knows. A form from elsewhere is refused all the
    same.
    """
    parts = parts_of(request)
    holder = await accounts.find_token(parts.db, token, parts.clock())
    if holder is None:
        return _link_gone(request)
    if _is_from_elsewhere(request):
        return _form(holder.email, ["This form was sent by another site. Send it here."], 403)
    form = await _read_form(request)
    password, again = form.get("password", ""), form.get("password_again", "")
    if password != again:
        return _form(holder.email, ["The two passwords differ."], 400)
    try:
        await accounts.use_token(parts.db, token, password, now_us=parts.clock())
    except Problem as problem:
        if problem.status == 410:
            return _link_gone(request)
        return _form(holder.email, problem.fields.get("password", [problem.detail]), 400)
    return answer_page("password_set.html", _TO_ROOT, {"email": holder.email})


def _form(email: str, errors: list[str], status: int = 200) -> Response[bytes]:
    values = {
        "email": email,
        "errors": errors,
        "min_chars": MIN_PASSWORD_CHARS,
        "max_chars": MAX_PASSWORD_CHARS,
    }
    return answer_page("set_password.html", _TO_ROOT, values, status=status)


def _link_gone(request: PageRequest) -> Response[bytes]:
    values = {"command": public_command("users link EMAIL", parts_of(request).settings)}
    return answer_page("link_gone.html", _TO_ROOT, values, status=410)


def _is_from_elsewhere(request: PageRequest) -> bool:
    """Say whether a browser tells us that another site sent this form (Fetch Metadata, W3C)."""
    return request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none")


async def _read_form(request: PageRequest) -> dict[str, str]:
    body = b""
    async for chunk in receive_chunks(request.receive):
        body += chunk
        if len(body) > _MAX_FORM_BYTES:
            raise too_large(f"A form may have at most {_MAX_FORM_BYTES} bytes.")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=10)
    except (UnicodeDecodeError, ValueError) as error:
        raise Problem(400, "invalid", "The form cannot be read.") from error
    return {name: values[-1] for name, values in fields.items()}


page_routes = [show_start, show_no_dashboard, send_style, show_set_password, set_password]
