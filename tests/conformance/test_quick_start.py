"""The first fifteen lines a user writes, on either client."""

from __future__ import annotations

from tests.conformance.files import committed, content_of
from tests.support.published import Client
from tests.support.server import open_link


def test_the_quick_start(client: Client) -> None:
    """Track a conversation with a file; fetch the file by one call, and open it."""
    client.tracker.get_or_create_conversation(
        conversation_id="conv-abc-123",
        customer_id="customer-7",
        customer_ip_address="8.8.8.8",
        device="mobile",
        source="website",
        language="en",
        name="A cold order",
        environment="production",
        metadata={"plan": "gold"},
    )
    client.tracker.track_human_message(
        message="My order arrived cold, see the picture.",
        attachments=committed("base64", "sample.png"),
        metadata={"page": "/orders"},
    )
    client.tracker.track_action("look_up_order", duration_ms=120, tools_used={"order": "45820"})
    client.tracker.track_agent_message(message="I am sorry! Here is the form for a refund.")
    client.tracker.track_button("refund", "Refund me", "yes")
    report = client.tracker.send_tracked_data()
    assert report["summary"] == {
        "questions": 1,
        "answers": 1,
        "attachments": 0,
        "actions": 1,
        "buttons": 1,
        "errors": 0,
    }

    attachments = client.api.fetch_conversation_attachments("conv-abc-123")
    assert attachments["total_attachments"] == 1
    (message,) = attachments["messages"]
    assert message["sender"] == "end_user"
    (file,) = message["attachments"]
    assert (file["type"], file["filename"], file["mime_type"]) == (
        "image",
        "sample.png",
        "image/png",
    )
    assert open_link(file["file_url"]).body == content_of("sample.png")

    conversation = client.api.fetch_conversation("conv-abc-123")
    assert conversation["name"] == "A cold order"
    assert [m["sender"] for m in conversation["messages"]] == [
        "end_user",
        "agent",
        "agent",
        "end_user",
    ]
    client.manager.submit_feedback("conv-abc-123", "positive", comment="Thank you")
    client.manager.mark_conversation("conv-abc-123", True)
    listed = client.api.fetch_conversations(customer_id="customer-7", is_marked=True)
    assert [row["conversation_id"] for row in listed["results"]] == ["conv-abc-123"]
