"""Code for 0.0.x imports and calls what it always did: the published package is the oracle."""

from __future__ import annotations

import re
from typing import Any

from tests.conformance.conftest import Drivers
from tests.support.published import Client
from tests.support.server import bare_environment

KEY = "ags_" + "0123456789abcdef" * 2 + "_000000"
ENUMS = [
    "LogLevel", "AgentType", "AttachmentMode", "Sender", "Environment", "TokenHandlerType",
    "Sentiment",
]  # fmt: skip
EXCEPTIONS = [
    "NoApiKeyException", "InvalidApiKeyException", "ApiServerException",
    "AgentSightClientNotInitializedException", "AgentSightApiJwtExpiredException",
    "ConversationTrackingException", "InvalidConversationDataException",
    "InvalidAnswerDataException", "InvalidQuestionDataException", "ConversationApiException",
    "NotFoundException", "UnauthorizedException", "ForbiddenException",
    "ConversationNetworkException", "NoConversationIdException", "MissingConversationIdException",
    "NoDataToSendException", "InvalidAttachmentException",
]  # fmt: skip


def ask_both(drivers: Drivers, name: str, *args: Any) -> tuple[Any, Any]:
    """Ask the published package and ours the same question about itself."""
    answers = []
    for kind in ("published", "ours"):
        client = drivers.get(kind).start_client("http://127.0.0.1:9", KEY)
        answers.append(client.call("driver", name, *args))
        client.close()
    return answers[0], answers[1]


def test_every_public_callable_takes_what_it_took(drivers: Drivers) -> None:
    """Same names; same parameters, order, kinds and defaults. Ours may have more."""
    published, ours = ask_both(drivers, "surface")
    assert len(published) > 30
    assert set(published) <= set(ours)
    for name, parameters in published.items():
        assert ours[name][: len(parameters)] == parameters, name
        for _, kind, default in ours[name][len(parameters) :]:
            assert kind.startswith("VAR") or default != "(none)", f"{name} needs more than it did"


def test_every_enum_has_its_members(drivers: Drivers) -> None:
    """Names and values."""
    published, ours = ask_both(drivers, "members", "agentsight.enums", ENUMS)
    for name, members in published.items():
        assert ours[name].items() >= members.items(), name


def test_every_exception_is_caught_where_it_was(drivers: Drivers) -> None:
    """Same names and same parents, so that `except` clauses go on working."""
    published, ours = ask_both(drivers, "members", "agentsight.exceptions", EXCEPTIONS)
    for name, bases in published.items():
        assert set(ours[name]) >= set(bases), name


def test_helpers_answer_as_they_did(client: Client) -> None:
    """Ids, times and MIME types."""
    assert re.fullmatch(
        r"conv_[0-9a-f]{12}", client.function("agentsight.helpers.generate_conversation_id")
    )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT[\d:.]+\+00:00",
        client.function("agentsight.helpers.get_iso_timestamp"),
    )
    for source, mime_type in (
        ("a.png", "image/png"),
        ("a.pdf", "application/pdf"),
        ("a.csv", "text/csv"),
        ("a.unheard-of", "application/octet-stream"),
        (b"%PDF-1.4 ", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
    ):
        got = client.function("agentsight.helpers.get_mime_type", source)
        assert got == mime_type, source


def test_nobodys_settings_leak_into_the_clients() -> None:
    """What runs these tests may have AgentSight settings of its own."""
    assert not [name for name in bare_environment() if "AGENTSIGHT" in name]
