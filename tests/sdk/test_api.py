"""Reading: the requests of each call, the values it returns, and the errors it raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from agentsight import AgentSightAPI, AsyncAgentSightAPI, ConversationManager
from agentsight.exceptions import (
    ConversationApiException,
    ConversationNetworkException,
    ForbiddenException,
    NotFoundException,
    UnauthorizedException,
)
from tests.sdk.conftest import World
from tests.sdk.support import CUT, KEY, Answer, ScriptServer, Seen

FILES = {"conversation_id": "conv", "conversation": 7, "total_attachments": 0, "messages": []}


def test_attachments_by_database_id_are_one_request(
    api: AgentSightAPI, server: ScriptServer
) -> None:
    """The parsed body is returned as it came."""
    server.answers = [Answer(200, FILES)]
    assert api.fetch_conversation_attachments(7) == FILES
    [seen] = server.seen
    assert (seen.method, seen.path) == ("GET", "/api/conversations/7/attachments/")
    assert seen.headers["authorization"] == f"Api-Key {KEY}"


@pytest.mark.parametrize("conversation_id", ["conv", "7", "ü & ?/#", "None"])
def test_attachments_by_conversation_id_look_it_up(
    api: AgentSightAPI, server: ScriptServer, conversation_id: str
) -> None:
    """Text is always the conversation's own id, whatever it looks like."""
    server.answers = [Answer(200, {"id": 7}), Answer(200, FILES)]
    assert api.fetch_conversation_attachments(conversation_id) == FILES
    assert server.seen[0].path == "/api/conversations/lookup/"
    assert server.seen[0].params == [("conversation_id", conversation_id)]
    assert server.seen[1].path == "/api/conversations/7/attachments/"


def test_a_conversation_is_fetched_by_either_id(api: AgentSightAPI, server: ScriptServer) -> None:
    """Text by a lookup, which also finds deleted ones."""
    row = {"id": 7, "messages": []}
    server.answers = [Answer(200, row), Answer(200, {"id": 7}), Answer(200, row)]
    assert api.fetch_conversation(7) == api.fetch_conversation("conv") == row
    paths = ["/api/conversations/7/", "/api/conversations/lookup/", "/api/conversations/7/"]
    assert [seen.path for seen in server.seen] == paths


def test_an_unknown_conversation_is_named_in_the_error(
    api: AgentSightAPI, server: ScriptServer
) -> None:
    """'Not found.' alone helps nobody."""
    server.answers = [Answer(404, {"detail": "Not found.", "code": "not_found"})]
    with pytest.raises(NotFoundException, match="conversation_id 'nope' not found") as caught:
        api.fetch_conversation_attachments("nope")
    assert caught.value.status_code == 404


def test_whatever_is_not_there_is_named(server: ScriptServer) -> None:
    """By number, by name or by uid, whoever asks."""
    server.script = lambda _: Answer(404, {"detail": "Not found.", "code": "not_found"})
    with AgentSightAPI(KEY, server.url) as api, ConversationManager(KEY, server.url) as manager:
        calls: list[tuple[Callable[[], object], str]] = [
            (lambda: api.fetch_conversation(7), "Conversation with id 7 not found"),
            (lambda: api.fetch_conversation_attachments(7), "Conversation with id 7 not found"),
            (lambda: api.fetch_attachment("x-1"), "File with uid 'x-1' not found"),
            (lambda: manager.rename_conversation(7, "n"), "Conversation with id 7 not found"),
            (lambda: manager.delete_conversation(7), "Conversation with id 7 not found"),
            (lambda: manager.erase_conversation("c"),
             "Conversation with conversation_id 'c' not found"),
            (lambda: manager.restore_conversation("c"),
             "Conversation with conversation_id 'c' not found"),
            (lambda: manager.delete_attachment("x-1"), "File with uid 'x-1' not found"),
            (lambda: manager.restore_attachment("x-1"), "File with uid 'x-1' not found"),
        ]  # fmt: skip
        for call, said in calls:
            with pytest.raises(NotFoundException) as caught:
                call()
            assert str(caught.value) == said


def test_a_404_of_an_endpoint_with_a_path_names_both_possibilities(server: ScriptServer) -> None:
    """An unknown route and an unknown conversation look the same from here."""
    server.script = lambda _: Answer(404, {"detail": "Not found.", "code": "not_found"})
    with AgentSightAPI(KEY, server.url + "/api/") as api:
        for reference in ("nope", 7):
            with pytest.raises(NotFoundException, match=r"[Nn]ot found") as caught:
                api.fetch_conversation(reference)
            assert f"or the endpoint {server.url}/api is wrong" in str(caught.value)


def test_a_server_that_is_not_there_is_named_with_the_remedy(world: World) -> None:
    """Whoever reads it knows what to do."""
    with ScriptServer() as gone:
        url = gone.url
    with AgentSightAPI(KEY, url) as api:
        api.runtime = world.runtime
        with pytest.raises(ConversationNetworkException) as caught:
            api.fetch_conversation(7)
    assert str(caught.value) == (
        f"Network error: GET /api/conversations/7/: ConnectError: connection refused by {url}: "
        "is the server running? Set AGENTSIGHT_API_ENDPOINT or endpoint="
    )


@pytest.mark.parametrize("reference", [True, False, None, "", 0, 1.5, b"x", ["x"]])
def test_what_cannot_name_a_conversation_is_refused_before_anything_is_sent(
    api: AgentSightAPI, server: ScriptServer, reference: Any
) -> None:
    """The published client asked for /api/conversations/True/."""
    with pytest.raises(ValueError, match="conversation_id"):
        api.fetch_conversation(reference)
    with pytest.raises(ValueError, match="conversation_id"):
        api.fetch_conversation_attachments(reference)
    assert server.seen == []


def test_filters_become_query_parameters(api: AgentSightAPI, server: ScriptServer) -> None:
    """Booleans in lower case, datetimes as ISO text, further filters as they are."""
    server.answers = [Answer(200, {"count": 0, "results": []})]
    api.fetch_conversations(
        customer_id="ada & co",
        has_messages=True,
        is_marked=False,
        page=2,
        started_at_after=datetime(2026, 11, 22, 10, tzinfo=UTC),
        started_at_before="2026-11-23",
        metadata="plan:pro,a.b:c",
        feedback_sentiment="positive",
        attachment_contains="blue chairs",
        customer_id__icontains="x",
        full=False,
    )
    assert sorted(server.seen[0].params) == [
        ("attachment_contains", "blue chairs"),
        ("customer_id", "ada & co"),
        ("customer_id__icontains", "x"),
        ("feedback_sentiment", "positive"),
        ("full", "false"),
        ("has_messages", "true"),
        ("is_marked", "false"),
        ("metadata", "plan:pro,a.b:c"),
        ("page", "2"),
        ("started_at_after", "2026-11-22T10:00:00+00:00"),
        ("started_at_before", "2026-11-23"),
    ]


def test_filters_the_server_ignores_are_logged(
    api: AgentSightAPI, server: ScriptServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A misspelt filter gives all conversations, which looks like an answer."""
    ignored = (("X-AgentSight-Ignored-Parameters", "custumer_id, %C3%BC"),)
    server.answers = [
        Answer(200, {"results": []}, ignored),
        Answer(200, {"results": []}),
        Answer(200, {"results": [{"id": 1}], "next": "…"}, ignored),
        Answer(200, {"results": [{"id": 2}], "next": None}, ignored),
    ]
    api.fetch_conversations(custumer_id="ada")
    [record] = caplog.records
    assert record.levelname == "WARNING"
    assert "custumer_id, %C3%BC" in record.getMessage()
    api.fetch_conversations(customer_id="ada")
    list(api.iter_conversations(custumer_id="ada"))
    assert len(caplog.records) == 2  # once for all pages


def test_unknown_sentiments_and_sources_are_refused_here(api: AgentSightAPI) -> None:
    """As in the published client."""
    with pytest.raises(ValueError, match="feedback_sentiment must be one of"):
        api.fetch_conversations(feedback_sentiment="great")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="feedback_source must be one of"):
        api.fetch_conversations(feedback_source="me")  # type: ignore[arg-type]


def pages_of(n_rows: int, page_size: int) -> Any:
    def script(seen: Seen) -> Answer:
        page = int(dict(seen.params)["page"])
        size = int(dict(seen.params)["page_size"])
        assert size == page_size
        rows = [{"id": i} for i in range(n_rows)][(page - 1) * size : page * size]
        return Answer(200, {"results": rows, "next": "…" if page * size < n_rows else None})

    return script


def test_iterating_walks_all_pages(api: AgentSightAPI, server: ScriptServer) -> None:
    """And stops at the last without asking for one more."""
    server.script = pages_of(250, 100)
    assert [row["id"] for row in api.iter_conversations(device="mobile")] == list(range(250))
    assert len(server.seen) == 3
    assert ("device", "mobile") in server.seen[2].params


def test_rows_moved_to_the_next_page_are_not_given_twice(
    api: AgentSightAPI, server: ScriptServer
) -> None:
    """A conversation that begins meanwhile pushes the others down."""
    server.answers = [
        Answer(200, {"results": [{"id": 3}, {"id": 2}], "next": "…"}),
        Answer(200, {"results": [{"id": 2}, {"id": 1}], "next": "…"}),
        Answer(404, {"detail": "Invalid page.", "code": "invalid_page"}),
    ]
    assert [row["id"] for row in api.iter_conversations(page_size=2)] == [3, 2, 1]


def test_a_first_page_that_does_not_exist_is_an_error(
    api: AgentSightAPI, server: ScriptServer
) -> None:
    """Only what vanished on the way is no error."""
    server.answers = [Answer(404, {"detail": "Invalid page.", "code": "invalid_page"})]
    with pytest.raises(NotFoundException, match=r"Invalid page\."):
        list(api.iter_conversations(page=9))


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (Answer(401, {"detail": "Invalid key."}), UnauthorizedException, "Invalid key."),
        (Answer(401, b""), UnauthorizedException, "Invalid or missing API key"),
        (
            Answer(403, ["x"]),
            ForbiddenException,
            "Access forbidden - not authorized to access this resource",
        ),
        (Answer(404, b"<html>"), NotFoundException, "Resource not found"),
        (Answer(400, {"detail": "no"}), ConversationApiException, "API error (400): no"),
        (
            Answer(400, {"a": ["x", "y"], "b": "z"}),
            ConversationApiException,
            "API error (400): a: x, y; b: z",
        ),
        (
            Answer(400, {"f": [{"x": 1}]}),
            ConversationApiException,
            "API error (400): f: {'x': 1}",
        ),
        (Answer(400, ["a"]), ConversationApiException, "API error (400): ['a']"),
        (Answer(409, b"plain"), ConversationApiException, "API error (409): plain"),
        (Answer(409, b""), ConversationApiException, "API error (409): Unknown error"),
    ],
)
def test_refusals_become_typed_errors(
    api: AgentSightAPI,
    server: ScriptServer,
    answer: Answer,
    error: type[ConversationApiException],
    message: str,
) -> None:
    """With the messages of the published client; nested lists do not crash."""
    server.answers = [answer]
    with pytest.raises(error) as caught:
        api.fetch_conversation(7)
    assert type(caught.value) is error
    assert str(caught.value) == message
    assert caught.value.status_code == answer.status
    assert len(server.seen) == 1


@pytest.mark.parametrize(
    "answer", [Answer(200, b"<html>"), Answer(200, [1]), Answer(204), Answer(302)]
)
def test_an_answer_that_makes_no_sense_is_asked_for_once(
    api: AgentSightAPI, server: ScriptServer, answer: Answer
) -> None:
    """The published client asked three times."""
    server.answers = [answer]
    with pytest.raises(ConversationNetworkException, match="is the endpoint an AgentSight server"):
        api.fetch_conversation(7)
    assert len(server.seen) == 1


def test_passing_troubles_are_repeated(
    api: AgentSightAPI, server: ScriptServer, world: World
) -> None:
    """The caller notices nothing but the time."""
    server.answers = [CUT, Answer(503), Answer(200, body=b"{", short=True), Answer(200, FILES)]
    assert api.fetch_conversation_attachments(7) == FILES
    assert len(world.slept) == 3


def test_the_last_trouble_is_told(api: AgentSightAPI, server: ScriptServer) -> None:
    """After four attempts."""
    server.answers = [Answer(503, {"detail": "busy", "code": "busy"})] * 4
    with pytest.raises(ConversationApiException, match=r"API error \(503\): busy"):
        api.fetch_conversation(7)
    server.answers = [CUT] * 4
    with pytest.raises(ConversationNetworkException, match="GET /api/conversations/7/"):
        api.fetch_conversation(7)


@pytest.fixture
def closed_api(server: ScriptServer) -> Iterator[AgentSightAPI]:
    api = AgentSightAPI(KEY, server.url + "/")
    server.script = lambda _: Answer(200, {})
    yield api
    api.close()


def test_a_trailing_slash_of_the_endpoint_is_harmless(
    closed_api: AgentSightAPI, server: ScriptServer
) -> None:
    """The published client asked for //api/."""
    closed_api.fetch_conversation(7)
    assert server.seen[0].path == "/api/conversations/7/"


def test_a_closed_client_opens_again(closed_api: AgentSightAPI, server: ScriptServer) -> None:
    """Closing is about connections, not about the client."""
    closed_api.fetch_conversation(7)
    closed_api.close()
    closed_api.close()
    closed_api.fetch_conversation(7)
    assert len(server.seen) == 2


def test_a_forgotten_client_with_open_connections_warns(server: ScriptServer) -> None:
    """Python's own way to find leaks."""
    server.script = lambda _: Answer(200, {})
    api = AgentSightAPI(KEY, server.url)
    api.fetch_conversation(7)
    with pytest.warns(ResourceWarning, match="AgentSightAPI was not closed"):
        del api


# --- The async twin ----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_async_twin_reads_the_same(server: ScriptServer, world: World) -> None:
    """Same operations, same errors."""
    async with AsyncAgentSightAPI(KEY, server.url) as api:
        api.runtime = world.runtime
        server.answers = [
            Answer(200, {"id": 7}),
            Answer(503),
            Answer(200, FILES),
            Answer(200, {"id": 7}),
            Answer(404, {"detail": "Not found."}),
            Answer(200, {"results": [], "next": None}),
        ]
        assert await api.fetch_conversation_attachments("conv") == FILES
        assert await api.fetch_conversation(7) == {"id": 7}
        with pytest.raises(NotFoundException):
            await api.fetch_conversation("nope")
        assert (await api.fetch_conversations(is_marked=True))["results"] == []
        assert server.seen[-1].params == [("is_marked", "true")]
        server.script = pages_of(150, 100)
        assert [row["id"] async for row in api.iter_conversations()] == list(range(150))
    assert world.slept == [0.5]


@pytest.mark.anyio
async def test_a_forgotten_async_client_warns(server: ScriptServer) -> None:
    """It cannot close itself: closing must be awaited."""
    server.script = lambda _: Answer(200, {}, (("Connection", "close"),))
    api = AsyncAgentSightAPI(KEY, server.url)
    await api.fetch_conversation(7)
    with pytest.warns(ResourceWarning, match="await aclose"):
        del api
