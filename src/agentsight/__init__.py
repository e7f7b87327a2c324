"""AgentSight: keep the conversations of AI agents and the files in them, and give them back.

The public names, loaded when they are first asked for: importing this package needs no API key and
loads no HTTP library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from agentsight.api import AgentSightAPI, AsyncAgentSightAPI, agentsight_api
    from agentsight.manager import ConversationManager, conversation_manager
    from agentsight.tracker import ConversationTracker, conversation_tracker

__all__ = [
    "AgentSightAPI",
    "AsyncAgentSightAPI",
    "ConversationManager",
    "ConversationTracker",
    "agentsight_api",
    "conversation_manager",
    "conversation_tracker",
]

__version__: Final = "0.1.0"

_HOME_BY_NAME: Final = {
    "AgentSightAPI": "agentsight.api",
    "AsyncAgentSightAPI": "agentsight.api",
    "ConversationManager": "agentsight.manager",
    "ConversationTracker": "agentsight.tracker",
    "agentsight_api": "agentsight.api",
    "conversation_manager": "agentsight.manager",
    "conversation_tracker": "agentsight.tracker",
}


def __getattr__(name: str) -> object:
    if name not in _HOME_BY_NAME:
        raise AttributeError(f"module 'agentsight' has no attribute {name!r}")
    from importlib import import_module

    value: object = getattr(import_module(_HOME_BY_NAME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
