"""Who is asking: the header, the role, and the same words for every kind of wrong key."""

from __future__ import annotations

import pytest

from agentsight.server.access import Access, Permission
from agentsight.server.ids import OrganisationId
from agentsight.server.problems import Problem
from agentsight.server.web.auth import authenticate, presented_key
from tests.support.http import House, People, with_headers

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "header",
    ["Api-Key k", "api-key k", "API-KEY   k  ", "Bearer k", " bearer k"],
)
def test_spellings_of_the_header(header: str) -> None:
    """The scheme counts without case; Bearer is understood."""
    assert presented_key(header) == "k"


@pytest.mark.parametrize(
    "header", [None, "", " ", "k", "Api-Key", "Api-Key  ", "Token k", "Basic k"]
)
def test_no_key_presented(header: str | None) -> None:
    """It is a 401 that says how to send one."""
    with pytest.raises(Problem) as caught:
        presented_key(header)
    assert (caught.value.status, caught.value.code) == (401, "not_authenticated")


class OneKey:
    """Knows one key and what it may."""

    def __init__(self, permissions: Permission) -> None:
        self.access = Access("key", permissions, OrganisationId(1))

    async def find(self, key: str) -> Access:
        """Return the access, whatever is presented."""
        return self.access


async def test_roles() -> None:
    """A key without the permission is a 403 that names what is needed."""
    reader, ingester = OneKey(Permission.READ), OneKey(Permission.WRITE)
    assert await authenticate("Api-Key k", reader, Permission.READ) is reader.access
    for keys, wanted in ((reader, Permission.WRITE), (ingester, Permission.READ)):
        with pytest.raises(Problem) as caught:
            await authenticate("Api-Key k", keys, wanted)
        assert (caught.value.status, caught.value.code) == (403, "permission_denied")
        assert wanted.name is not None
        assert wanted.name.lower() in caught.value.detail.lower()


async def test_a_keys_hex_counts_without_case(house: House, people: People) -> None:
    """Published documentation says so; the prefix stays as it is."""
    for key in (people.alice.write_key.upper(), people.alice.write_key.lower()):
        assert (await house.caller(key).get("/api/conversations/")).status == 200


async def test_a_key_in_other_places_is_none(house: House, people: People) -> None:
    """Not in the query, not in a cookie, not in another header."""
    key = people.alice.write_key
    asked = f"/api/conversations/?api_key={key}&key={key}"
    stranger = with_headers(house.stranger, cookie=f"key={key}", x_api_key=key)
    assert (await stranger.get(asked)).is_error(401, "not_authenticated")


async def test_an_ingest_key_writes_and_does_not_read(house: House, people: People) -> None:
    """The role is reserved, and already holds."""
    await house.run(
        "UPDATE api_keys SET role = 'ingest' WHERE agent_id = $1 AND role = 'read'",
        people.alice.access.agent_id,
    )
    ingester = people.alice.reader
    body = {"conversation_id": "c", "content": "x"}
    assert (await ingester.post("/api/track/", body)).status == 201
    for url in ("/api/conversations/", "/api/conversations/1/attachments/"):
        assert (await ingester.get(url)).is_error(403, "permission_denied")
