"""Importing costs little, needs nothing, and gives the names that are promised."""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import os
import subprocess
import sys

import pytest

import agentsight

NAMES = [
    "AgentSightAPI",
    "AsyncAgentSightAPI",
    "ConversationManager",
    "ConversationTracker",
    "agentsight_api",
    "conversation_manager",
    "conversation_tracker",
]


HEAVY = (
    "httpx2 httpcore2 httpx requests logging dataclasses asyncio ssl socket email inspect dotenv "
    "tempfile mimetypes msgspec"
)


def run_python(code: str, **environ: str) -> str:
    """Run code in a fresh interpreter without settings."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("AGENTSIGHT_")}
    command = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(
        command, capture_output=True, text=True, env=clean | environ, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_public_names_are_the_recorded_ones() -> None:
    """A name is added or removed on purpose only."""
    assert sorted(agentsight.__all__) == agentsight.__all__ == NAMES


def test_importing_everything_loads_no_heavy_module_and_needs_no_key() -> None:
    """The bot's start is not slowed by us."""
    code = (
        "import sys, json\n"
        "from agentsight import *\n"
        "from agentsight.client import conversation_tracker\n"
        "import agentsight.config, agentsight.enums, agentsight.exceptions, agentsight.types\n"
        "import agentsight.logging, agentsight.token_handlers, agentsight.validators\n"
        f"heavy = {HEAVY!r}.split()\n"
        "print(json.dumps([name for name in heavy if name in sys.modules]))\n"
    )
    assert json.loads(run_python(code)) == []


def test_tracking_loads_no_http_library_and_no_logging() -> None:
    """They come with the first sending."""
    code = (
        "import sys, warnings\n"
        "from agentsight import conversation_tracker as t\n"
        "t.get_or_create_conversation('c'); t.track_human_message('hi')\n"
        "print('httpx2' in sys.modules, 'logging' in sys.modules, t.n_waiting)\n"
        "t._outbox.spool.settle([i for _, i in t._outbox.spool.borrow('c')], [])\n"
    )
    key = "ags_" + "0" * 32 + "_" + "0" * 6
    assert run_python(code, AGENTSIGHT_API_KEY=key).split() == ["False", "False", "2"]


def test_importing_leaves_the_application_s_logging_alone() -> None:
    """Neither handlers nor propagation nor level change."""
    code = (
        "import logging\n"
        "logger = logging.getLogger('agentsight')\n"
        "before = (list(logger.handlers), logger.propagate, logger.level)\n"
        "from agentsight.logging import logger as ours, configure_logging\n"
        "configure_logging()\n"
        "print(ours is logger, before == (list(logger.handlers), logger.propagate, logger.level))\n"
    )
    assert run_python(code).split() == ["True", "True"]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("agentsight.client", [name for name in NAMES if name != "AsyncAgentSightAPI"]),
        ("agentsight.http", ["HTTPClient"]),
        ("agentsight.logging", ["configure_logging", "logger"]),
        ("agentsight.token_handlers", ["set_llamaindex_token_handler"]),
        (
            "agentsight.validators",
            [
                "validate_action_data",
                "validate_and_process_attachments_flexible",
                "validate_button_data",
                "validate_content_data",
                "validate_conversation_data",
                "validate_conversation_id",
                "validate_feedback_data",
                "validate_question_and_answer_data",
            ],
        ),
        (
            "agentsight.helpers",
            [
                "AgentSightJSONEncoder",
                "generate_conversation_id",
                "get_iso_timestamp",
                "get_mime_type",
                "prepare_form_data_payload_from_data",
            ],
        ),
        ("agentsight.types", ["AttachmentInput", "DownloadedFile", "FileData", "TokenHandler"]),
    ],
)
def test_import_paths_of_the_published_package_hold(path: str, names: list[str]) -> None:
    """Code written for 0.0.x finds what it imports."""
    module = importlib.import_module(path)
    assert [name for name in names if not hasattr(module, name)] == []
    assert sorted(module.__all__) == names


SIGNATURES = {
    "ConversationTracker": {
        "track_human_message": "message attachments=None attachment_mode='base64' metadata=None",
        "track_agent_message": "message attachments=None attachment_mode='base64' metadata=None",
        "track_attachments": "attachments sender=None metadata=None mode='base64'",
        "track_action": (
            "action_name started_at=None ended_at=None duration_ms=None tools_used=None "
            "response=None error_msg=None metadata=None"
        ),
        "track_button": "button_event label value metadata=None",
        "track_token_usage": (
            "prompt_tokens=0 completion_tokens=0 total_tokens=0 embedding_tokens=0"
        ),
        "get_token_usage": "",
        "initialize_conversation": (
            "conversation_id customer_id=None customer_ip_address=None device=None source=None "
            "language=None name=None environment='development' metadata=None"
        ),
        "get_or_create_conversation": (
            "conversation_id customer_id=None customer_ip_address=None device=None source=None "
            "language=None name=None environment='development' metadata=None"
        ),
        "send_tracked_data": "",
        "get_tracked_data_summary": "",
    },
    "ConversationManager": {
        "submit_feedback": "conversation_id sentiment comment=None metadata=None",
        "rename_conversation": "conversation_id name",
        "mark_conversation": "conversation_id is_marked",
        "delete_conversation": "conversation_id",
        "update_conversation": (
            "conversation_id name=None is_marked=None customer_id=None device=None language=None "
            "metadata=None"
        ),
    },
    "AgentSightAPI": {
        "fetch_conversation": "conversation_id",
        "fetch_conversation_attachments": "conversation_id",
        "fetch_conversations": (
            "action_name=None conversation_id=None customer_id=None customer_ip_address=None "
            "device=None has_messages=None language=None message_contains=None page=None "
            "page_size=None started_at_after=None started_at_before=None is_marked=None name=None "
            "include_deleted=None metadata=None has_feedback=None feedback_sentiment=None "
            "feedback_source=None extra_params"
        ),
    },
}


@pytest.mark.parametrize(
    ("kind", "method"), [(kind, method) for kind in SIGNATURES for method in SIGNATURES[kind]]
)
def test_signatures_are_those_of_the_published_package(kind: str, method: str) -> None:
    """Names, order and defaults of arguments, as recorded from 0.0.44."""
    function = getattr(getattr(agentsight, kind), method)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    written = " ".join(
        p.name if p.default is p.empty else f"{p.name}={p.default!r}" for p in parameters
    )
    assert written == SIGNATURES[kind][method]


def test_default_instances_are_instances_of_their_classes() -> None:
    """Code may ask isinstance."""
    assert isinstance(agentsight.agentsight_api, agentsight.AgentSightAPI)
    assert isinstance(agentsight.conversation_manager, agentsight.ConversationManager)
    assert isinstance(agentsight.conversation_tracker, agentsight.ConversationTracker)


def test_version_is_that_of_the_distribution() -> None:
    """There is one version, written in two places."""
    assert agentsight.__version__ == importlib.metadata.version("agentsight-open")


def test_unknown_names_are_attribute_errors() -> None:
    """`hasattr` works on the package."""
    assert not hasattr(agentsight, "no_such_name")
