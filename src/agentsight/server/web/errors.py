"""Turn every error into the one body that both published clients can read.

`{"detail": "conversation: This field is required.", "code": "required",
"conversation": ["This field is required."], "request_id": "…"}`: `detail` and `code` always, lists
of strings beside them, nothing nested (a 0.0.44 client crashes on an object in an error list).
"""

from __future__ import annotations

import logging
from typing import Any, cast

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException

from agentsight.server.db.errors import DatabaseFull, DatabaseUnavailable
from agentsight.server.problems import Problem, not_found, required
from agentsight.server.web.bodies import missing_field

log = logging.getLogger("agentsight.server")

_RESERVED = frozenset({"detail", "code", "request_id", "items"})
_RETRY_WHEN_FULL_S = 60
_RETRY_AFTER_S = 1
_CODE_BY_STATUS = {
    400: "invalid",
    401: "not_authenticated",
    403: "permission_denied",
    404: "not_found",
    405: "method_not_allowed",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
}


def problem_body(problem: Problem, request_id: str) -> bytes:
    """Encode the body of an error answer."""
    body: dict[str, Any] = {"detail": problem.detail, "code": problem.code}
    body |= {name: texts for name, texts in problem.fields.items() if name not in _RESERVED}
    if problem.items is not None:
        body["items"] = problem.items
    body["request_id"] = request_id
    return msgspec.json.encode(body)


def problem_headers(problem: Problem) -> dict[str, str]:
    """Return the headers that go with an error: how to authenticate, when to come back."""
    headers = {"Cache-Control": "no-store"}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Api-Key"
    if problem.retry_after_s is not None:
        headers["Retry-After"] = str(problem.retry_after_s)
    return headers


def to_problem(error: Exception) -> Problem:
    """Say in the caller's words what went wrong; what is not known is a 500 without details."""
    match error:
        case Problem():
            return error
        case DatabaseFull():
            text = "The database's disk is full; nothing was stored."
            return Problem(507, "storage_full", text, retry_after_s=_RETRY_WHEN_FULL_S)
        case DatabaseUnavailable():
            text = "The database does not answer; nothing was stored. Try again."
            return Problem(503, "database_unavailable", text, retry_after_s=_RETRY_AFTER_S)
        case ValidationException():
            return _validation_problem(error)
        case HTTPException():
            return _http_problem(error)
        case _:
            return Problem(500, "internal_error", "Something broke on our side; see request_id.")


def _validation_problem(error: ValidationException) -> Problem:
    fields: dict[str, list[str]] = {}
    for item in cast("list[dict[str, Any]]", error.extra or []):
        name = str(item.get("key", "") or "data")
        message = str(item.get("message", "This value is wrong."))
        if name == "data":
            missing = missing_field(message)
            if missing is not None:
                return required(missing)
            name = "non_field_errors"
        fields.setdefault(name, []).append(message.replace("`", "'"))
    return Problem(400, "invalid", "" if fields else error.detail, fields=fields)


def _http_problem(error: HTTPException) -> Problem:
    if error.status_code == 404:
        return not_found()
    code = _CODE_BY_STATUS.get(error.status_code, "invalid")
    detail = "Method not allowed." if error.status_code == 405 else error.detail
    if error.status_code >= 500:
        return Problem(error.status_code, "internal_error", "Something broke on our side.")
    return Problem(error.status_code, code, detail)


def request_id_of(scope: Any) -> str:
    """Return the id of this request, which the answer and the log carry."""
    return str(scope.get("agentsight.request_id", ""))


def answer_error(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler for every kind of error."""
    problem = to_problem(error)
    request_id = request_id_of(request.scope)
    log_problem(error, problem, request_id, request.method, request.scope["path"])
    headers = problem_headers(problem)
    if isinstance(error, HTTPException) and error.headers:
        headers |= {name: value for name, value in error.headers.items() if name.lower() == "allow"}
    return Response(
        problem_body(problem, request_id),
        status_code=problem.status,
        media_type="application/json",
        headers=headers,
    )


def log_problem(
    error: Exception, problem: Problem, request_id: str, method: str, path: str
) -> None:
    """Log a fault of ours with its traceback, a part that is away as a warning, the rest not."""
    fields = {"request_id": request_id, "method": method, "path": path, "code": problem.code}
    if problem.status == 500:
        log.error("request failed %s", fields, exc_info=error)
    elif problem.status > 500:
        log.warning("request refused %s: %s", fields, error)
