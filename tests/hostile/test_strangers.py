"""Every route of the application, walked by a stranger, by Carol and by Bob."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from litestar.handlers import HTTPRouteHandler

from agentsight.server.web.auth import reads, writes
from tests.support.http import JSON, House, People, base64_file, without_request_id
from tests.support.routes import OPEN_ROUTES, PROBE_ROUTE, READ_BY_WRITERS, bare_path

pytestmark = pytest.mark.anyio

CLOSED = "/app/openapi"
"""The framework's own pages, which nobody may see."""


def walk(house: House) -> Iterator[tuple[str, str, HTTPRouteHandler]]:
    """Yield method, path with `{}` for its parameters, and handler of every route."""
    for route in house.app.app.routes:
        path = bare_path(route.path_format)
        if path.startswith(CLOSED):
            continue
        for handler in getattr(route, "route_handlers", ()):
            for method in sorted(handler.http_methods - {"OPTIONS"}):
                yield method, path, handler


async def test_every_route_asks_for_a_key(house: House) -> None:
    """Without credentials the answer is 401, before ids or bodies are looked at."""
    walked = 0
    for method, path, _ in walk(house):
        if path in OPEN_ROUTES:
            continue
        for values in (("1", "2", "3"), ("abc", "%00", "x" * 300)):
            url = path.format(*values)
            for body in (b"", b"{}", b"{broken"):
                answer = await house.stranger.send(method, url, body=body, headers=JSON)
                assert answer.is_error(401, "not_authenticated"), (method, url)
        walked += 1
    assert walked >= 15


async def test_every_route_that_asks_says_whether_it_writes(house: House) -> None:
    """Each carries exactly one of the two guards, and those that change something `writes`."""
    for method, path, handler in walk(house):
        if path in OPEN_ROUTES or path == PROBE_ROUTE:
            continue
        guards = [g for g in handler.resolve_guards() if g in (reads, writes)]
        only_reads = method in ("GET", "HEAD") and path not in READ_BY_WRITERS
        assert guards == [reads if only_reads else writes], (method, path)


async def test_what_is_open_is_there(house: House) -> None:
    """The list of open routes names nothing that does not exist (or does not exist yet)."""
    paths = {path for _, path, _ in walk(house)}
    assert paths >= OPEN_ROUTES


@pytest.mark.parametrize("tail", ["", "/", "/openapi.json", "/swagger", "/redoc", "/x", "/a/b"])
async def test_the_frameworks_pages_are_closed(house: House, tail: str) -> None:
    """They would load scripts from a CDN; ours are at /docs and /openapi.json."""
    assert (await house.stranger.get(CLOSED + tail)).is_error(404, "not_found")


BODIES: dict[str, Any] = {
    "/api/track": {"content": "hi"},
    "/api/action_logs": {"action_name": "a"},
    "/api/buttons": {"button_event": "e", "label": "l", "value": "v"},
    "/api/attachments": {"attachments": [base64_file()]},
    "/api/conversation-feedbacks": {"sentiment": "positive"},
    "/api/conversations/{}/rename": {"name": "stolen"},
    "/api/conversations/{}/mark": {"is_marked": True},
    "/api/conversations/{}/update": {"device": "stolen"},
}


async def test_others_get_one_and_the_same_404(house: House, people: People) -> None:
    """Carol and Bob, naming Alice's rows on any route, hear what they hear of rows nobody has."""
    pk = await people.alice.conversation("c", name="secret")
    body = {"conversation": pk, "attachments": [base64_file(b"secret")]}
    file = (await people.alice.post("/api/attachments/", body)).json()["attachments"][0]
    before = (await house.counts(), house.objects())
    seen = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    walked = 0
    for method, path, _ in walk(house):
        if path in OPEN_ROUTES or path == PROBE_ROUTE:
            continue
        named = str(file["uid"]) if "attachments/{}" in path else str(pk)
        nobody = "0" * 36 if "attachments/{}" in path else str(2**50)
        sent = BODIES.get(path)
        if "{}" not in path and sent is None:
            continue
        for person in (people.carol, people.bob):
            told = []
            for row in (named, nobody):
                value = None if sent is None else dict(sent)
                if value is not None and "{}" not in path:
                    value["conversation"] = int(row)
                raw = b"" if value is None else json.dumps(value).encode()
                answer = await person.writer.send(
                    method, path.format(row, "name.txt") + "/", body=raw, headers=JSON
                )
                assert answer.is_error(404, "not_found"), (method, path, answer.body)
                told.append(without_request_id(answer))
            assert told[0] == told[1]
        walked += 1
    assert walked >= 12
    assert (await house.counts(), house.objects()) == before
    after = (await people.alice.get(f"/api/conversations/{pk}/")).json()
    for shown in (seen, after):
        for message in shown["messages"]:
            message.pop("attachments")
    assert after == seen


async def test_others_lists_are_their_own(people: People) -> None:
    """No filter of Carol's or Bob's finds what is Alice's."""
    pk = await people.alice.conversation("c", name="secret", customer_id="x", metadata={"a": "b"})
    await people.alice.message(pk, "secret word")
    for person in (people.bob, people.carol):
        for query in (
            {}, {"conversation_id": "c"}, {"name": "secret"}, {"message_contains": "secret"},
            {"message_contains": "se"}, {"metadata": "a:b"}, {"customer_id__icontains": "X"},
            {"include_deleted": "true"}, {"has_messages": "true"},
        ):  # fmt: skip
            listed = (await person.get("/api/conversations/", query)).json()
            assert (listed["count"], listed["results"]) == (0, []), query
        looked = await person.get("/api/conversations/lookup/?conversation_id=c")
        assert looked.is_error(404, "not_found")
