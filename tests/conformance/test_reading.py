"""Lists, their filters and pages: everything that 0.0.x may ask for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conformance.conftest import Drivers, StartClient
from tests.support.published import Client, Driver
from tests.support.server import Agent, LiveServer

ENVELOPE = ["count", "page_size", "total_pages", "current_page", "next", "previous", "results"]
ROW_KEYS = {
    "id", "conversation_id", "name", "customer_id", "customer_ip_address", "device", "language",
    "environment", "is_marked", "is_deleted", "is_used", "started_at", "ended_at", "deleted_at",
    "metadata", "geo_location", "messages", "feedbacks",
}  # fmt: skip
MESSAGE_KEYS = {
    "id", "timestamp", "sender", "content", "action_name", "metadata", "attachments",
    "action_logs", "button",
}  # fmt: skip


class Shelf:
    """Four conversations, told apart by every filter, and the client that recorded them."""

    def __init__(self, client: Client) -> None:
        self.client = client
        tracker, manager = client.tracker, client.manager
        tracker.get_or_create_conversation(
            "latte", customer_id="Anna-1", customer_ip_address="198.51.100.1", device="mobile",
            language="de", name="Ein Milchkaffee", environment="production", source="web",
            metadata={"plan": "gold", "order": {"size": "large", "n": 2, "togo": True}},
        )  # fmt: skip
        tracker.track_human_message("I would like a LATTE, please")
        tracker.track_action("look_up_menu")
        tracker.track_agent_message("Grüße! 100% arabica_beans")
        tracker.send_tracked_data()
        tracker.get_or_create_conversation(
            "mocha", customer_id="anna-2", customer_ip_address="198.51.100.2", device="desktop",
            language="en", name="Mocha for Jean", metadata={"plan": "gold", "order": {"size": "s"}},
        )  # fmt: skip
        tracker.track_human_message("One mocha")
        tracker.track_action("open_ticket")
        tracker.send_tracked_data()
        tracker.initialize_conversation("visit", customer_id="bert", metadata={"plan": "free"})
        tracker.get_or_create_conversation("deleted", customer_id="carl", device="mobile")
        tracker.track_human_message("Forget about the latte")
        tracker.send_tracked_data()
        manager.submit_feedback("latte", "positive", comment="great")
        manager.submit_feedback("mocha", "negative")
        manager.mark_conversation("mocha", True)
        manager.delete_conversation("deleted")
        self.rows = {
            row["conversation_id"]: row
            for row in client.api.fetch_conversations(include_deleted=True)["results"]
        }

    def started(self, conversation_id: str, plus_us: int = 0) -> datetime:
        """Return when a conversation began, in UTC."""
        text = self.rows[conversation_id]["started_at"]
        return datetime.fromisoformat(text) + timedelta(microseconds=plus_us)


_shelves: dict[tuple[str, str], Shelf] = {}


@pytest.fixture
def shelf(server: LiveServer, driver: Driver, drivers: Drivers) -> Shelf:
    """Record the four conversations once for each client and database; nobody changes them."""
    where = (server.base_url, driver.kind)
    if where not in _shelves:
        key = server.make_agent().write_key
        _shelves[where] = Shelf(drivers.get(driver.kind).start_client(server.base_url, key))
    return _shelves[where]


@pytest.fixture(scope="module", autouse=True)
def put_away() -> Any:
    """End the clients of the shelves with the module."""
    yield
    while _shelves:
        _shelves.popitem()[1].client.close()


ALL = ["visit", "mocha", "latte"]
FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ALL),
    ({"conversation_id": "latte"}, ["latte"]),
    ({"conversation_id": "LATTE"}, []),
    ({"conversation_id": "lat"}, []),
    ({"customer_id": "Anna-1"}, ["latte"]),
    ({"customer_id": "anna-1"}, []),
    ({"customer_id__icontains": "ANNA"}, ["mocha", "latte"]),
    ({"customer_id__icontains": "nna-2"}, ["mocha"]),
    ({"customer_ip_address": "198.51.100.2"}, ["mocha"]),
    ({"device": "mobile"}, ["latte"]),
    ({"language": "en"}, ["mocha"]),
    ({"source": "web"}, ["latte"]),
    ({"environment": "production"}, ["latte"]),
    ({"environment": "dev"}, ["visit", "mocha"]),
    ({"name": "mIlCh"}, ["latte"]),
    ({"name": "jean"}, ["mocha"]),
    ({"action_name": "open_ticket"}, ["mocha"]),
    ({"action_name": "UP_MENU"}, ["latte"]),
    ({"action_name": "token_usage"}, []),
    ({"message_contains": "latte"}, ["latte"]),
    ({"message_contains": "GRÜSSE"}, ["latte"]),
    ({"message_contains": "100% arabica_"}, ["latte"]),
    ({"message_contains": "%"}, ["latte"]),
    ({"message_contains": "o"}, ["mocha", "latte"]),
    ({"message_contains": "espresso"}, []),
    ({"has_messages": True}, ["mocha", "latte"]),
    ({"has_messages": False}, ["visit"]),
    ({"has_feedback": True}, ["mocha", "latte"]),
    ({"has_feedback": False}, ["visit"]),
    ({"feedback_sentiment": "positive"}, ["latte"]),
    ({"feedback_sentiment": "neutral"}, []),
    ({"feedback_source": "customer"}, ["mocha", "latte"]),
    ({"feedback_source": "platform"}, []),
    ({"feedback_sentiment": "negative", "feedback_source": "customer"}, ["mocha"]),
    ({"is_marked": True}, ["mocha"]),
    ({"is_marked": False}, ["visit", "latte"]),
    ({"include_deleted": True}, ["deleted", *ALL]),
    ({"include_deleted": False}, ALL),
    ({"include_deleted": True, "message_contains": "latte"}, ["deleted", "latte"]),
    ({"metadata": "plan:gold"}, ["mocha", "latte"]),
    ({"metadata": "plan:gold,order.size:large"}, ["latte"]),
    ({"metadata": "order.n:2"}, ["latte"]),
    ({"metadata": "order.togo:true"}, ["latte"]),
    ({"metadata": "order.size:LARGE"}, []),
    ({"metadata": "order:large"}, []),
    ({"metadata": "plan:gold,order.size:none"}, []),
    ({"metadata": "plan:gold", "device": "desktop", "is_marked": True}, ["mocha"]),
    ({"unheard_of": "filter"}, ALL),
]


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
def test_a_filter_finds_what_it_says(
    shelf: Shelf, filters: dict[str, Any], expected: list[str]
) -> None:
    """Newest first, with an exact count."""
    listed = shelf.client.api.fetch_conversations(**filters)
    assert [row["conversation_id"] for row in listed["results"]] == expected
    assert listed["count"] == len(expected)


@pytest.mark.parametrize("form", ["naive", "aware", "elsewhere", "text", "Z"])
def test_dates_are_read_in_every_form(shelf: Shelf, form: str) -> None:
    """A datetime without an offset is UTC; both ends are included."""

    def shown(when: datetime) -> Any:
        return {
            "naive": when.replace(tzinfo=None),
            "aware": when,
            "elsewhere": datetime.fromisoformat(
                (when + timedelta(hours=5)).replace(tzinfo=None).isoformat() + "+05:00"
            ),
            "text": when.replace(tzinfo=None).isoformat(),
            "Z": when.isoformat().replace("+00:00", "Z"),
        }[form]

    def ids(**filters: Any) -> list[str]:
        rows = shelf.client.api.fetch_conversations(**filters)["results"]
        return [row["conversation_id"] for row in rows]

    begin = shelf.started("mocha")
    assert begin.tzinfo == UTC
    assert ids(started_at_after=shown(begin)) == ["visit", "mocha"]
    assert ids(started_at_after=shown(shelf.started("mocha", 1))) == ["visit"]
    assert ids(started_at_before=shown(begin)) == ["mocha", "latte"]
    assert ids(started_at_before=shown(shelf.started("mocha", -1))) == ["latte"]
    both = {"started_at_after": shown(begin), "started_at_before": shown(begin)}
    assert ids(**both) == ["mocha"]


def test_the_envelope_and_its_rows(shelf: Shelf) -> None:
    """Seven keys around full transcripts, each row the same as the conversation read alone."""
    listed = shelf.client.api.fetch_conversations()
    assert list(listed)[:7] == ENVELOPE
    assert [listed[name] for name in ENVELOPE[:6]] == [3, 10, 1, 1, None, None]
    for row in listed["results"]:
        assert set(row) >= ROW_KEYS
        assert shelf.client.api.fetch_conversation(row["id"]) == row
        assert shelf.client.api.fetch_conversation(row["conversation_id"]) == row
        for message in row["messages"]:
            assert set(message) >= MESSAGE_KEYS
    latte = shelf.rows["latte"]
    assert [m["content"] for m in latte["messages"]] == [
        "I would like a LATTE, please",
        "Action look_up_menu performed",
        "Grüße! 100% arabica_beans",
    ]
    (feedback,) = latte["feedbacks"]
    given = {"sentiment": "positive", "source": "customer", "comment": "great", "metadata": {}}
    assert {name: feedback[name] for name in given} == given
    assert set(feedback) >= {"id", "created_at"}


def test_lean_rows_are_given_when_asked_for(shelf: Shelf) -> None:
    """`full=false` leaves the transcripts out."""
    listed = shelf.client.api.fetch_conversations(full=False)
    assert [row["conversation_id"] for row in listed["results"]] == ALL
    assert all("messages" not in row for row in listed["results"])


def test_pages_follow_each_other(client: Client) -> None:
    """Ten a page where nothing is said; the last one says that it is."""
    for n in range(23):
        client.tracker.initialize_conversation(f"c{n}")
    seen: list[str] = []
    for page, size in ((1, 10), (2, 10), (3, 3)):
        listed = client.api.fetch_conversations(page=page)
        assert (listed["count"], listed["page_size"], listed["total_pages"]) == (23, 10, 3)
        assert listed["current_page"] == page
        assert (listed["previous"] is None) == (page == 1)
        assert (listed["next"] is None) == (page == 3)
        assert len(listed["results"]) == size
        seen += [row["conversation_id"] for row in listed["results"]]
    assert seen == [f"c{n}" for n in reversed(range(23))]
    assert len(client.api.fetch_conversations(page_size=5, page=2)["results"]) == 5
    assert client.api.fetch_conversations(page_size=1_000_000)["page_size"] == 100


def test_the_address_of_the_next_page_opens(
    client: Client, server: LiveServer, agent: Agent
) -> None:
    """`next` keeps the filters."""
    for n in range(3):
        client.tracker.initialize_conversation(f"c{n}", customer_id="x y&z")
    client.tracker.initialize_conversation("other")
    listed = client.api.fetch_conversations(customer_id="x y&z", page_size=2)
    following = server.get_json(listed["next"], key=agent.read_key)
    assert [row["conversation_id"] for row in following["results"]] == ["c0"]
    assert following["next"] is None


def test_a_read_key_reads_everything(
    client: Client, agent: Agent, start_client: StartClient
) -> None:
    """Lists, transcripts and files."""
    client.tracker.get_or_create_conversation("read")
    client.tracker.track_human_message("Hello")
    client.tracker.send_tracked_data()
    reader = start_client(agent.read_key)
    assert reader.api.fetch_conversations() == client.api.fetch_conversations()
    assert reader.api.fetch_conversation("read") == client.api.fetch_conversation("read")
    pk = reader.api.fetch_conversation("read")["id"]
    assert reader.api.fetch_conversation_attachments(pk)["total_attachments"] == 0
