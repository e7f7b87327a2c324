"""Every error becomes the one body that both published clients can read."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from litestar.exceptions import HTTPException, NotFoundException, ValidationException

from agentsight._contract import ERROR_CODES
from agentsight.server.blobs.errors import StorageFull, StorageUnavailable
from agentsight.server.db.errors import DatabaseFull, DatabaseUnavailable
from agentsight.server.problems import Problem, invalid, not_found, required, too_large
from agentsight.server.web.errors import log_problem, problem_body, problem_headers, to_problem


def shown(problem: Problem) -> dict[str, Any]:
    """Return a problem's body."""
    return json.loads(problem_body(problem, "r-1"))


def test_the_shape_of_design() -> None:
    """Detail and code always, the field's list beside them, the id of the request."""
    assert shown(required("conversation")) == {
        "detail": "conversation: This field is required.",
        "code": "required",
        "conversation": ["This field is required."],
        "request_id": "r-1",
    }


def test_a_field_never_hides_the_four_words() -> None:
    """A field that is called like one of the body's own keys gives way to it."""
    problem = Problem(400, "invalid", "Told.", fields={"detail": ["x"], "code": ["y"], "a": ["z"]})
    body = shown(problem)
    assert (body["detail"], body["code"], body["a"]) == ("Told.", "invalid", ["z"])


def test_items_are_the_only_nested_thing() -> None:
    """A batch's refusal adds them; everything else is a list of texts."""
    item = {"index": 0, "item_key": None, "code": "invalid", "detail": "d"}
    assert shown(Problem(400, "invalid", "d", items=[item]))["items"] == [item]
    assert "items" not in shown(not_found())


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (not_found(), 404, "not_found"),
        (invalid("a", "b"), 400, "invalid"),
        (too_large("x"), 413, "too_large"),
        (DatabaseFull("x"), 507, "storage_full"),
        (DatabaseUnavailable("x"), 503, "database_unavailable"),
        (StorageFull("x"), 503, "storage_full"),
        (StorageUnavailable("x"), 503, "storage_unavailable"),
        (NotFoundException("secret"), 404, "not_found"),
        (HTTPException("gone wrong", status_code=500), 500, "internal_error"),
        (HTTPException("no", status_code=405), 405, "method_not_allowed"),
        (HTTPException("no", status_code=418), 418, "invalid"),
        (RuntimeError("secret"), 500, "internal_error"),
        (RecursionError(), 500, "internal_error"),
    ],
)
def test_every_error_has_a_code_of_the_contract(error: Exception, status: int, code: str) -> None:
    """And tells nothing of what is inside."""
    problem = to_problem(error)
    assert (problem.status, problem.code) == (status, code)
    assert code in ERROR_CODES
    assert "secret" not in problem.detail


def test_retryable_errors_say_when() -> None:
    """503 carries Retry-After, 401 the scheme, and none may be cached."""
    headers = problem_headers(to_problem(DatabaseUnavailable("x")))
    assert headers == {"Cache-Control": "no-store", "Retry-After": "1"}
    assert problem_headers(Problem(401, "invalid_key", "x"))["WWW-Authenticate"] == "Api-Key"


def test_the_frameworks_complaints_name_their_fields() -> None:
    """Its word for the body is not a field; a missing field is `required`."""
    error = ValidationException(
        extra=[{"key": "data", "message": "Expected `object`"}, {"key": "a", "message": "wrong"}]
    )
    assert to_problem(error).fields == {"non_field_errors": ["Expected 'object'"], "a": ["wrong"]}
    missing = ValidationException(
        extra=[{"key": "data", "message": "Object missing required field `sentiment`"}]
    )
    assert (to_problem(missing).code, list(to_problem(missing).fields)) == (
        "required",
        ["sentiment"],
    )
    assert to_problem(ValidationException("plain")).detail == "plain"


def test_only_faults_of_ours_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A 500 with its traceback, a part that is away as a warning, a caller's slip not at all."""
    with caplog.at_level(logging.DEBUG, "agentsight.server"):
        for error in (RuntimeError("x"), DatabaseUnavailable("y"), not_found()):
            log_problem(error, to_problem(error), "r", "GET", "/")
    assert [(r.levelname, r.exc_info is not None) for r in caplog.records] == [
        ("ERROR", True),
        ("WARNING", False),
    ]
