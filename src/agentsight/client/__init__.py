"""The import path `agentsight.client` of 0.0.x."""

from __future__ import annotations

from agentsight.api import AgentSightAPI, agentsight_api
from agentsight.manager import ConversationManager, conversation_manager
from agentsight.tracker import ConversationTracker, conversation_tracker

__all__ = [
    "AgentSightAPI",
    "ConversationManager",
    "ConversationTracker",
    "agentsight_api",
    "conversation_manager",
    "conversation_tracker",
]
