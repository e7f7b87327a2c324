"""Read conversations, their transcripts and their files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentsight import _operations as operations
from agentsight._base import AsyncClient, SyncClient
from agentsight._contract import FILES_PATH
from agentsight.config import UNSET

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncIterator, Callable, Iterator
    from datetime import datetime
    from typing import Literal

    from agentsight.config import Config
    from agentsight.types import DownloadedFile

__all__ = ["AgentSightAPI", "AsyncAgentSightAPI", "agentsight_api"]


class AgentSightAPI(SyncClient):
    """Reads what was recorded. Safe to share between threads.

    Args:
        api_key: default AGENTSIGHT_API_KEY; its shape is checked at once.
        endpoint: default AGENTSIGHT_API_ENDPOINT, else `http://127.0.0.1:8000`.
        config: settings made before; the other arguments change it.
        **kwargs: further settings, see `agentsight.config.Config`.

    Raises:
        NoApiKeyException: there is no key.
        InvalidApiKeyException: the key has not the shape of a key.
        TypeError: a setting has no such name.
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
        """Change settings of this client; what is not given stays.

        Raises:
            NoApiKeyException: `api_key=None`.
            InvalidApiKeyException: the key has not the shape of a key.
        """
        self._configure(_given(api_key=api_key, endpoint=endpoint, **kwargs))

    def fetch_conversations(
        self,
        action_name: str | None = None,
        conversation_id: str | None = None,
        customer_id: str | None = None,
        customer_ip_address: str | None = None,
        device: str | None = None,
        has_messages: bool | None = None,
        language: str | None = None,
        message_contains: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        started_at_after: str | datetime | None = None,
        started_at_before: str | datetime | None = None,
        is_marked: bool | None = None,
        name: str | None = None,
        include_deleted: bool | None = None,
        metadata: str | None = None,
        has_feedback: bool | None = None,
        feedback_sentiment: Literal["positive", "neutral", "negative"] | None = None,
        feedback_source: Literal["customer", "platform"] | None = None,
        **extra_params: Any,
    ) -> dict[str, Any]:
        """Fetch one page of conversations, newest first.

        Args:
            metadata: `key:value,key2:value2`; a dotted key goes into nested objects.
            started_at_after: ISO text or a datetime; without an offset it is UTC.
            page_size: 10 by default, at most 100.
            extra_params: any further filter of the server, such as `attachment_contains` (in a
                file's name or in the text inside it, without case) or `customer_id__icontains`. One
                that the server does not know changes nothing, and a WARNING in the log names it.

        Returns:
            `{"count", "page_size", "total_pages", "current_page", "next", "previous", "results"}`.

        Raises:
            ValueError: an unknown `feedback_sentiment` or `feedback_source`.
            NotFoundException: there is no such page.
        """
        filters = {
            "action_name": action_name,
            "conversation_id": conversation_id,
            "customer_id": customer_id,
            "customer_ip_address": customer_ip_address,
            "device": device,
            "has_messages": has_messages,
            "language": language,
            "message_contains": message_contains,
            "page": page,
            "page_size": page_size,
            "started_at_after": started_at_after,
            "started_at_before": started_at_before,
            "is_marked": is_marked,
            "name": name,
            "include_deleted": include_deleted,
            "metadata": metadata,
            "has_feedback": has_feedback,
            "feedback_sentiment": feedback_sentiment,
            "feedback_source": feedback_source,
        }
        return self.run(operations.fetch_conversations(filters | extra_params))

    def iter_conversations(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Iterate over all conversations that match, fetching page after page.

        Args:
            filters: as for `fetch_conversations`; `page` is the first page, `page_size` 100.
        """
        walk = operations.PageWalk(filters)
        while not walk.is_over:
            yield from self.run(walk.fetch())

    def fetch_conversation(self, conversation_id: int | str) -> dict[str, Any]:
        """Fetch one conversation with its messages, actions, files and feedback.

        Args:
            conversation_id: the conversation's own id (text; deleted ones are found, too) or its
                database id (integer).

        Raises:
            NotFoundException: there is none.
            ValueError: neither text nor integer, or empty.
        """
        return self.run(operations.fetch_conversation(conversation_id))

    def fetch_conversation_attachments(self, conversation_id: int | str) -> dict[str, Any]:
        """Fetch all files of a conversation, by message, each with a link that opens.

        Args:
            conversation_id: the conversation's own id (text) or its database id (integer).

        Returns:
            `{"conversation_id", "conversation", "total_attachments", "messages": [{"message_id",
            "sender", "timestamp", "attachments": [{"id", "type", "filename", "mime_type",
            "size_bytes", "file_url"}]}]}`; only messages that have files.

        Raises:
            NotFoundException: there is no such conversation.
            ValueError: neither text nor integer, or empty.
        """
        return self.run(operations.fetch_attachments(conversation_id))

    def download_attachments(
        self,
        conversation_id: int | str,
        directory: str | os.PathLike[str],
        *,
        max_workers: int = 4,
        progress: Callable[[int, int, str], object] | None = None,
        overwrite: bool = False,
        check: bool = False,
    ) -> list[DownloadedFile]:
        """Fetch all files of a conversation into a directory, some side by side.

        Each file appears under its name only when all of it is there and has the SHA-256 that the
        server keeps. What was cut off goes on where it stopped, in this call or the next; what is
        there already is verified and not fetched again. One file's trouble does not stop the
        others.

        Names are those the files were sent under, made safe for every system: never outside of the
        directory, never hidden, `name (2).ext` for the second of a name. What is there besides is
        left alone.

        Args:
            conversation_id: the conversation's own id (text) or its database id (integer).
            directory: made where it is not there.
            max_workers: how many files at a time.
            progress: told the bytes that are here, the bytes of all files, and the name of the file
                that moves; in a thread of ours, one call at a time. What it raises ends all.
            overwrite: replace what has a file's name and is another file, in place of `name (2)`.
            check: raise where a file is not here at the end.

        Returns:
            What became of each file, in the order of `fetch_conversation_attachments`.

        Raises:
            NotFoundException: there is no such conversation.
            DownloadException: `check`, and not all are here.
            OSError: the directory cannot be made or read.
            ValueError: no conversation, or `max_workers` below 1.
        """
        from agentsight import _downloads as downloads

        downloads.check_workers(max_workers)
        session = self.run(
            downloads.begin(conversation_id, directory, overwrite=overwrite, progress=progress)
        )
        files = downloads.run_in_threads(self, session, max_workers)
        return downloads.checked(files) if check else files

    def download_attachments_zip(
        self,
        conversation_id: int | str,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Fetch all files of a conversation as one ZIP, with folders by message and a manifest.

        The file appears when it is whole. The server makes the ZIP while it sends it: one that is
        cut begins anew, so that `download_attachments` is better for much over a bad line.

        Args:
            path: of the ZIP; one that is there is replaced.
            progress: told how many bytes have come; what it raises ends it.

        Returns:
            The ZIP's size in bytes.

        Raises:
            NotFoundException: there is no such conversation.
            OSError: the file cannot be written.
        """
        from agentsight import _archives as archives

        return self.run(archives.fetch_zip(conversation_id, path, progress))

    def fetch_attachments(self, **filters: Any) -> dict[str, Any]:
        """Fetch one page of the agent's files, across conversations, newest first.

        Args:
            filters: as the server knows them (docs/http-api.md), such as `contains` (in the name or
                in the text inside), `type`, `customer_id`, `sent_after`, `page` and `page_size`;
                `conversation_id` is text or a database id. One that it does not know changes
                nothing, and a WARNING in the log names it.

        Returns:
            `{"count", "page_size", "total_pages", "current_page", "next", "previous", "results"}`;
            a row is that of `fetch_conversation_attachments` with its conversation.

        Raises:
            NotFoundException: there is no such page.
        """
        return self.run(operations.fetch_files(filters))

    def iter_attachments(self, **filters: Any) -> Iterator[dict[str, Any]]:
        """Iterate over all files that match, fetching page after page.

        Args:
            filters: as for `fetch_attachments`; `page` is the first page, `page_size` 100.
        """
        walk = operations.PageWalk(operations.file_filters(filters), FILES_PATH)
        while not walk.is_over:
            yield from self.run(walk.fetch())

    def fetch_attachment(self, uid: str) -> dict[str, Any]:
        """Fetch the row of one file, with a fresh link.

        Raises:
            NotFoundException: there is no such file.
            ValueError: no uid.
        """
        return self.run(operations.fetch_file(uid))


class AsyncAgentSightAPI(AsyncClient):
    """`AgentSightAPI` for asyncio: the same operations, awaited."""

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
        """Change settings, as `AgentSightAPI.configure`."""
        self._configure(_given(api_key=api_key, endpoint=endpoint, **kwargs))

    async def fetch_conversations(self, **filters: Any) -> dict[str, Any]:
        """Fetch one page of conversations, as `AgentSightAPI.fetch_conversations`."""
        return await self.run(operations.fetch_conversations(filters))

    async def iter_conversations(self, **filters: Any) -> AsyncIterator[dict[str, Any]]:
        """Iterate over all conversations that match, as `AgentSightAPI.iter_conversations`."""
        walk = operations.PageWalk(filters)
        while not walk.is_over:
            for conversation in await self.run(walk.fetch()):
                yield conversation

    async def fetch_conversation(self, conversation_id: int | str) -> dict[str, Any]:
        """Fetch one conversation, as `AgentSightAPI.fetch_conversation`."""
        return await self.run(operations.fetch_conversation(conversation_id))

    async def fetch_conversation_attachments(self, conversation_id: int | str) -> dict[str, Any]:
        """Fetch a conversation's files, as `AgentSightAPI.fetch_conversation_attachments`."""
        return await self.run(operations.fetch_attachments(conversation_id))

    async def download_attachments(
        self,
        conversation_id: int | str,
        directory: str | os.PathLike[str],
        *,
        max_workers: int = 4,
        progress: Callable[[int, int, str], object] | None = None,
        overwrite: bool = False,
        check: bool = False,
    ) -> list[DownloadedFile]:
        """Fetch all files into a directory, as `AgentSightAPI.download_attachments`."""
        from agentsight import _downloads as downloads

        downloads.check_workers(max_workers)
        session = await self.run(
            downloads.begin(conversation_id, directory, overwrite=overwrite, progress=progress)
        )
        files = await downloads.run_in_tasks(self, session, max_workers)
        return downloads.checked(files) if check else files

    async def download_attachments_zip(
        self,
        conversation_id: int | str,
        path: str | os.PathLike[str],
        *,
        progress: Callable[[int], object] | None = None,
    ) -> int:
        """Fetch all files as one ZIP, as `AgentSightAPI.download_attachments_zip`."""
        from agentsight import _archives as archives

        return await self.run(archives.fetch_zip(conversation_id, path, progress))

    async def fetch_attachments(self, **filters: Any) -> dict[str, Any]:
        """Fetch one page of the agent's files, as `AgentSightAPI.fetch_attachments`."""
        return await self.run(operations.fetch_files(filters))

    async def iter_attachments(self, **filters: Any) -> AsyncIterator[dict[str, Any]]:
        """Iterate over all files that match, as `AgentSightAPI.iter_attachments`."""
        walk = operations.PageWalk(operations.file_filters(filters), FILES_PATH)
        while not walk.is_over:
            for row in await self.run(walk.fetch()):
                yield row

    async def fetch_attachment(self, uid: str) -> dict[str, Any]:
        """Fetch the row of one file, as `AgentSightAPI.fetch_attachment`."""
        return await self.run(operations.fetch_file(uid))


def _given(**settings: Any) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if value is not UNSET}


agentsight_api: Final = AgentSightAPI.default_instance()
