"""Change what was recorded: rename, mark, update and delete conversations, and give feedback."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentsight import _operations as operations
from agentsight._base import SyncClient
from agentsight.config import UNSET

if TYPE_CHECKING:
    from agentsight.config import Config
    from agentsight.enums import Sentiment

__all__ = ["ConversationManager", "conversation_manager"]


class ConversationManager(SyncClient):
    """Changes conversations; each needs a key that may write. Safe to share between threads.

    Everywhere `conversation_id` is the conversation's own id (text) or its database id (integer).

    Args:
        api_key: default AGENTSIGHT_API_KEY; its shape is checked at once.
        endpoint: default AGENTSIGHT_API_ENDPOINT, else `http://127.0.0.1:8000`.
        config: settings made before; the other arguments change it.
        **kwargs: further settings, see `agentsight.config.Config`.

    Raises:
        NoApiKeyException: there is no key.
        InvalidApiKeyException: the key has not the shape of a key.
    """

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        config: Config | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, {"api_key": api_key, "endpoint": endpoint, **kwargs})

    def configure(
        self, api_key: str | None = UNSET, endpoint: str | None = UNSET, **kwargs: Any
    ) -> None:
        """Change settings of this client; what is not given stays."""
        settings = {"api_key": api_key, "endpoint": endpoint, **kwargs}
        self._configure({name: value for name, value in settings.items() if value is not UNSET})

    def submit_feedback(
        self,
        conversation_id: int | str,
        sentiment: Sentiment | str,
        comment: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Record an end user's feedback; sent once even where the network makes us repeat it.

        Args:
            conversation_id: of the conversation the feedback is about.
            sentiment: `positive`, `neutral` or `negative`.
            comment: at most 5000 characters.
            metadata: JSON object.

        Returns:
            `{"id", "conversation", "sentiment", "source", "comment", "metadata", "created_at"}`.

        Raises:
            ValueError: no conversation.
            InvalidConversationDataException: another sentiment, or a comment that is too long.
            NotFoundException: there is no such conversation.
        """
        return self.run(operations.submit_feedback(conversation_id, sentiment, comment, metadata))

    def rename_conversation(self, conversation_id: int | str, name: str) -> dict[str, Any]:
        """Give a conversation a name of at most 255 characters.

        Returns:
            `{"id", "conversation_id", "name"}`.

        Raises:
            InvalidConversationDataException: the name is empty or too long.
            NotFoundException: there is no such conversation.
        """
        operations.check_reference(conversation_id)
        return self.run(operations.rename_conversation(conversation_id, name))

    def mark_conversation(self, conversation_id: int | str, is_marked: bool) -> dict[str, Any]:
        """Mark a conversation, or take the mark away.

        Returns:
            `{"id", "conversation_id", "is_marked"}`.

        Raises:
            NotFoundException: there is no such conversation.
        """
        return self.run(operations.mark_conversation(conversation_id, is_marked))

    def delete_conversation(self, conversation_id: int | str) -> dict[str, Any]:
        """Delete a conversation, so that lists leave it out unless asked for deleted ones.

        Returns:
            `{"id", "conversation_id", "is_deleted", "deleted_at"}`.

        Raises:
            NotFoundException: there is none, or it is already deleted.
        """
        return self.run(operations.delete_conversation(conversation_id))

    def restore_conversation(self, conversation_id: int | str) -> dict[str, Any]:
        """Undo the deletion of a conversation, within the server's grace period.

        Raises:
            NotFoundException: there is no such conversation any more.
        """
        return self.run(operations.restore_conversation(conversation_id))

    def erase_conversation(self, conversation_id: int | str) -> dict[str, Any]:
        """Erase a conversation with its messages and files, at once and for good.

        Returns:
            The receipt: how many rows, objects and bytes are gone, what was kept because something
            else refers to it, and until when copies may live elsewhere.

        Raises:
            NotFoundException: there is no such conversation.
        """
        return self.run(operations.erase_conversation(conversation_id))

    def delete_attachment(self, uid: str, *, erase: bool = False) -> dict[str, Any]:
        """Delete a file: its message stays, its links end at once.

        Args:
            uid: of the file's row.
            erase: for good, with its bytes where nothing else refers to them; else
                `restore_attachment` undoes it within the server's grace period.

        Returns:
            `{"uid", "is_deleted", "deleted_at", "erased_after"}`; with `erase` the receipt, as
            `erase_conversation` returns it.

        Raises:
            NotFoundException: there is none, or it is already deleted.
        """
        return self.run(operations.delete_file(uid, erase=erase))

    def restore_attachment(self, uid: str) -> dict[str, Any]:
        """Undo the deletion of a file, within the server's grace period.

        Raises:
            NotFoundException: there is no such file any more.
        """
        return self.run(operations.restore_file(uid))

    def update_conversation(
        self,
        conversation_id: int | str,
        name: str | None = None,
        is_marked: bool | None = None,
        customer_id: str | None = None,
        device: str | None = None,
        language: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Change several fields at once; `None` leaves a field as it is.

        Returns:
            `id`, `conversation_id` and the changed fields.

        Raises:
            ValueError: no conversation, or nothing to change.
            InvalidConversationDataException: the name is empty or too long, or metadata no object.
            NotFoundException: there is no such conversation.
        """
        operations.check_reference(conversation_id)
        changes = {
            "name": name,
            "is_marked": is_marked,
            "customer_id": customer_id,
            "device": device,
            "language": language,
            "metadata": metadata,
        }
        return self.run(operations.update_conversation(conversation_id, changes))


conversation_manager: Final = ConversationManager.default_instance()
