"""Collect the token counts that a library keeps itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentsight.enums import LogLevel
from agentsight.logging import say

if TYPE_CHECKING:
    from agentsight.types import TokenHandler

__all__ = ["set_llamaindex_token_handler"]


def set_llamaindex_token_handler(log_level: LogLevel | str) -> TokenHandler | None:
    """Make LlamaIndex count tokens, beside the callback handlers it already has.

    Args:
        log_level: with DEBUG, LlamaIndex prints what it counts.

    Returns:
        LlamaIndex's own handler, `None` where LlamaIndex is not installed.
    """
    try:
        from importlib import import_module

        counting: Any = import_module("llama_index.core.callbacks.token_counting")
        core: Any = import_module("llama_index.core")
    except ImportError:
        say("WARNING", "token handler llamaindex is set, but llama-index is not installed")
        return None
    handler = counting.TokenCountingHandler(verbose=log_level == LogLevel.DEBUG)
    core.Settings.callback_manager.add_handler(handler)
    return handler
