"""Deliver one conversation's items by `POST /api/v1/batch/`.

One request the server applies whole or not at all. Only what passes a limit of `_contract` (files,
items or bytes a request) is split, in order, into several such requests. Items that the server
refuses for ever are named in its answer: they are left out and the rest is sent again at once.

Files that are not tiny are uploaded before the request, which then refers to them (`_uploads`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple, cast

from agentsight._contract import (
    BATCH_PATH,
    MAX_FILES_PER_REQUEST,
    MAX_ITEMS_PER_BATCH,
    MAX_JSON_BODY_BYTES,
    MIB,
)
from agentsight._files import Field, File, Multipart
from agentsight._flow import FileUnreadable, Operation, Reply, Request, is_passing, retry_after_s
from agentsight._operations import Json, encode, error_of, is_object, joined, read_object
from agentsight._spool import Item
from agentsight._uploads import UploadRefused, Uploads, upload_large
from agentsight.exceptions import ConversationNetworkException

_MAX_BATCH_BYTES: Final = MAX_JSON_BODY_BYTES - MIB
"""Of items; the rest is room for the conversation (64 KiB of metadata) and the files' names."""
UNWELCOME_STATUSES: Final = frozenset({401, 403, 404, 405})
"""A wrong key or a wrong address (an endpoint that ends in `/api`): no item is the worse for it."""
_NO_SUCH_ROUTE: Final = frozenset({404, 405})
_UPLOAD_AGAIN: Final = frozenset({"upload_expired", "upload_pending"})
_NEVER_TAKEN: Final = frozenset({"storage_limit", "quarantined", "infected"})
"""Refusals of a file that its message should not suffer for."""
_NEEDED: Final = frozenset({"conversation_id", "is_used"})
_BUILT_IN_ENVIRONMENTS: Final = frozenset({"production", "prod", "development", "dev"})
_GZIP_FROM_BYTES: Final = 8 * 1024
_JSON_TIMEOUT_S: Final = 15.0
_FILES_TIMEOUT_S: Final = 45.0


class Outcome(NamedTuple):
    """What became of one item."""

    item: Item
    response: Json | None
    error: str | None
    is_final: bool
    """Stored, or refused for ever: not to be sent again."""
    lost_files: tuple[tuple[str, str], ...] = ()
    """Name and reason of files that could not be read or are refused; the item went without."""
    status: int | None = None
    """Of the server's refusal."""
    response_data: object = None
    """The body of the server's refusal."""
    refused_fields: tuple[tuple[str, str], ...] = ()
    """Of a conversation: name and reason of details it was stored without."""


class Delivery(NamedTuple):
    """What became of all items, in their order."""

    outcomes: list[Outcome]
    is_stopped: bool
    """The server cannot be reached or takes nothing now: other conversations need not try."""
    retry_after_s: float | None
    failure: str | None = None
    """What the server did, where it did not answer or could not work; `None` where it did."""
    refused_fields: tuple[tuple[str, str], ...] = ()
    """Name and reason of details of the conversation that the server refused."""


class _Attempt:
    """State of one delivery; `run` is the operation."""

    def __init__(
        self,
        conversation_id: str,
        items: Sequence[Item],
        environment: str | None,
        uploads: Uploads,
    ) -> None:
        self.uploads = uploads
        self.takes_uploads = True
        self.upload_by_key: dict[str, str | None] = {}
        self.uploaded_again: set[str] = set()
        self.opens = [item for item in items if item.kind == "conversation"]
        self.rest = [item for item in items if item.kind != "conversation"]
        self.header = _header(conversation_id, self.opens, self.rest, environment)
        self.refused_fields: dict[str, str] = {}
        self.outcome_by_key: dict[str, Outcome] = {}
        self.left_out: dict[str, str] = {}
        self.is_stopped = False
        self.retry_after_s: float | None = None
        self.failure: str | None = None

    def run(self) -> Operation[None]:
        chunks = deque(_split(self.rest))
        while not self.is_stopped and (chunks or self._undecided_opens()):
            chunk = self._readable(chunks.popleft() if chunks else [])
            if not chunk and not self._undecided_opens():
                continue
            try:
                if not (yield from self._upload_files(chunk)):
                    chunks.appendleft(chunk)
                    continue
                reply = yield self._request(chunk)
            except FileUnreadable as error:
                self.left_out[error.item_key] = error.reason
                chunks.appendleft(chunk)
            except ConversationNetworkException as error:
                self.failure = f"the server did not answer ({error})"
                self._stop(str(error))
            else:
                chunks.extendleft(reversed(self._read(reply, chunk)))

    def _upload_files(self, chunk: Sequence[Item]) -> Operation[bool]:
        """Upload what does not go inline; False where the chunk must be looked at once more."""
        files = [file for item in chunk for file in self._files(item)]
        for file in files:
            if not self.takes_uploads or file.item_key in self.upload_by_key:
                continue
            try:
                uid = yield from upload_large(file, self.uploads)
            except UploadRefused as refused:
                self._note_refused_file(file, refused)
                return False
            self.upload_by_key[file.item_key] = uid
        return True

    def _note_refused_file(self, file: File, refused: UploadRefused) -> None:
        reply = refused.reply
        if refused.code in _NEVER_TAKEN:
            self.left_out[file.item_key] = refused.reason
        elif reply.status in _NO_SUCH_ROUTE:
            self.takes_uploads = False  # an older server, or no server of ours: the batch will tell
        elif reply.status in UNWELCOME_STATUSES or is_passing(reply) or not refused.is_ours:
            self._stop_by(reply)
        else:
            self.left_out[file.item_key] = refused.reason

    def _undecided_opens(self) -> list[Item]:
        return [item for item in self.opens if item.item_key not in self.outcome_by_key]

    def _readable(self, chunk: list[Item]) -> list[Item]:
        """Set aside the items that consist of files none of which can be read."""
        left: list[Item] = []
        for item in chunk:
            if item.kind == "attachments" and not self._files(item):
                self._refuse(item, "none of its files can be sent: " + self._reasons(item))
            else:
                left.append(item)
        return left

    def _request(self, chunk: Sequence[Item]) -> Request:
        files = [
            file
            for item in chunk
            for file in self._files(item)
            if self.upload_by_key.get(file.item_key) is None
        ]
        bodies = b",".join(self._body(item) for item in chunk)
        content = b'{"conversation":%b,"items":[%b]}' % (encode(self.header), bodies)
        if files:
            batch = Field("batch", content, "application/json")
            form = Multipart([batch, *((file.part, file) for file in files)])
            return Request("POST", BATCH_PATH, content=form, timeout_s=_FILES_TIMEOUT_S)
        headers = (("Content-Type", "application/json"),)
        if len(content) > _GZIP_FROM_BYTES:
            content, headers = _gzip(content), (*headers, ("Content-Encoding", "gzip"))
        return Request(
            "POST", BATCH_PATH, content=content, headers=headers, timeout_s=_JSON_TIMEOUT_S
        )

    def _body(self, item: Item) -> bytes:
        files = self._files(item)
        if not files:
            return item.body
        named = [
            {
                "item_key": file.item_key,
                "filename": file.filename,
                "mime_type": file.mime_type,
                **self._bytes_of(file),
            }
            for file in files
        ]
        return b'%b,"attachments":%b}' % (item.body[:-1], encode(named))

    def _bytes_of(self, file: File) -> dict[str, str]:
        """Say where a file's bytes are."""
        uid = self.upload_by_key.get(file.item_key)
        return {"part": file.part} if uid is None else {"upload": uid}

    def _files(self, item: Item) -> list[File]:
        return [file for file in item.files if file.item_key not in self.left_out]

    def _reasons(self, item: Item) -> str:
        return "; ".join(
            f"{file.filename}: {self.left_out[file.item_key]}"
            for file in item.files
            if file.item_key in self.left_out
        )

    def _read(self, reply: Reply, chunk: list[Item]) -> list[list[Item]]:
        """Note what the reply says; return what is to be sent next instead of this chunk."""
        if reply.status in (200, 201):
            return self._stored(reply, chunk)
        refusal = _refusal(reply)
        if refusal is not None and reply.status >= 400:
            left = self._mend_files(reply, refusal, chunk)
            if left is not None:
                return [left] if left else []
        if reply.status < 400 or reply.status in UNWELCOME_STATUSES or is_passing(reply):
            self._stop_by(reply)
            return []
        if refusal is None:  # not our server's words: a proxy, a wrong address; no item is wrong
            if reply.status == 413 and len(chunk) > 1:
                return _halves(chunk)
            self._stop(None, reply)
            return []
        refused = _refused_items(refusal, chunk)
        for item, detail in refused:
            error = f"API error for {_type_of(item)} ({reply.status}): {detail}"
            self._refuse(item, error, reply)
        if refused:
            keys = {item.item_key for item, _ in refused}
            return [[item for item in chunk if item.item_key not in keys]]
        if self._drop_refused_fields(refusal):
            return [chunk] if chunk else []
        return self._refused_as_a_whole(reply, chunk)

    def _mend_files(self, reply: Reply, refusal: Json, chunk: list[Item]) -> list[Item] | None:
        """Do what helps where files are at fault; return what is then to be sent, or `None`.

        What is only to be uploaded again is never set aside: if that does not help, it waits.
        """
        code_by_key = _refusal_codes(refusal, chunk)
        again = {key for key, code in code_by_key.items() if code in _UPLOAD_AGAIN}
        never = {key for key, code in code_by_key.items() if code in _NEVER_TAKEN}
        if not again and not never:
            return None
        left: list[Item] = []
        for item in chunk:
            keys = [file.item_key for file in self._files(item)]
            if item.item_key in never and not keys:
                self._refuse(item, _error_text(item, reply), reply)
                continue
            if item.item_key in never:
                self.left_out |= dict.fromkeys(keys, str(refusal["detail"]))
            elif item.item_key in again:
                for key in keys:
                    self.upload_by_key.pop(key, None)
                self.uploads.forget(keys)
                if item.item_key in self.uploaded_again:
                    error = f"{_error_text(item, reply)}; it is uploaded again with the next send"
                    self._note(_failed(item, error, reply, is_final=False))
                    continue
                self.uploaded_again.add(item.item_key)
            left.append(item)
        return left

    def _drop_refused_fields(self, refusal: Json) -> bool:
        """Leave out the details of the conversation that the server names; say if there are any.

        An environment is not left out, which would mean production: development stands in for it.
        """
        names = [name for name in self.header if name in refusal and name not in _NEEDED]
        if _safe_environment(self.header.get("environment")) == self.header.get("environment"):
            names = [name for name in names if name != "environment"]
        for name in names:
            self.refused_fields[name] = joined(refusal[name])
            if name == "environment":
                self.refused_fields[name] += " Development stands in for it."
                self.header[name] = _safe_environment(self.header[name])
            else:
                del self.header[name]
        return bool(names)

    def _refused_as_a_whole(self, reply: Reply, chunk: list[Item]) -> list[list[Item]]:
        """Find out who is meant: too much is the items' fault, anything else the conversation's."""
        undecided = self._undecided_opens()
        if undecided and (reply.status != 413 or not chunk):
            for item in undecided:
                self._refuse(item, str(error_of(reply, "conversation")), reply)
            self._bare_header()
            return [chunk] if chunk else []
        if len(chunk) > 1:
            return _halves(chunk)
        for item in chunk:
            self._refuse(item, str(error_of(reply, _type_of(item))), reply)
        return []

    def _bare_header(self) -> None:
        environment = _safe_environment(self.header.get("environment"))
        self.header = {"conversation_id": self.header["conversation_id"]}
        if environment is not None:
            self.header["environment"] = environment

    def _stored(self, reply: Reply, chunk: list[Item]) -> list[list[Item]]:
        try:
            answer = read_object(reply, f"POST {BATCH_PATH}")
            rows: dict[str, Json] = {row["item_key"]: row for row in answer["items"]}
            conversation = {name: answer[name] for name in ("conversation_id", "uid")}
            pk = answer["conversation"]
        except (ConversationNetworkException, KeyError, TypeError) as error:
            self._stop(f"Network error: the server's answer cannot be understood: {error!r}")
            return []
        for item in self._undecided_opens():
            fields = tuple(self.refused_fields.items())
            stored = {"id": pk, **conversation}
            self._note(Outcome(item, stored, None, is_final=True, refused_fields=fields))
        for item in chunk:
            row = rows.get(item.item_key)
            if row is None:
                self._note(Outcome(item, None, "the server did not name it", is_final=False))
                continue
            lost = tuple(
                (file.filename, self.left_out[file.item_key])
                for file in item.files
                if file.item_key in self.left_out
            )
            self._note(Outcome(item, {**row, "conversation": pk}, None, True, lost))
        return []

    def _stop_by(self, reply: Reply) -> None:
        """End the delivery because of what the server answered; all that is undecided waits."""
        if is_passing(reply):
            self.failure = f"the server answered {reply.status}"
        self.retry_after_s = retry_after_s(reply)
        self._stop(None, reply)

    def _stop(self, reason: str | None, reply: Reply | None = None) -> None:
        self.is_stopped = True
        for item in (*self.opens, *self.rest):
            if item.item_key not in self.outcome_by_key:
                error = reason if reply is None else _error_text(item, reply)
                self._note(_failed(item, error, reply, is_final=False))

    def _refuse(self, item: Item, error: str, reply: Reply | None = None) -> None:
        self._note(_failed(item, error, reply, is_final=True))

    def _note(self, outcome: Outcome) -> None:
        self.outcome_by_key[outcome.item.item_key] = outcome


def _failed(item: Item, error: str | None, reply: Reply | None, *, is_final: bool) -> Outcome:
    if reply is None:
        return Outcome(item, None, error, is_final)
    body: object = getattr(error_of(reply, _type_of(item)), "response_data", None)
    return Outcome(item, None, error, is_final, status=reply.status, response_data=body)


def _error_text(item: Item, reply: Reply) -> str:
    text = str(error_of(reply, _type_of(item)))
    if reply.status not in _NO_SUCH_ROUTE:
        return text
    return (
        f"{text} (is the endpoint {reply.endpoint} right? It is the server's address, mostly "
        "without a path; set AGENTSIGHT_API_ENDPOINT or endpoint=)"
    )


def _safe_environment(environment: str | None) -> str | None:
    """Return an environment that every agent has, and never production unless it was meant."""
    if environment is None or environment.strip().lower() in _BUILT_IN_ENVIRONMENTS:
        return environment
    return "development"


def deliver(
    conversation_id: str,
    items: Sequence[Item],
    environment: str | None = None,
    uploads: Uploads | None = None,
) -> Operation[Delivery]:
    """Send a conversation's items and say what became of each; it does not raise for refusals.

    Args:
        conversation_id: the caller's id of the conversation.
        items: in the order they were tracked.
        environment: of the conversation, should it be new and no item say it.
        uploads: what earlier deliveries began.
    """
    attempt = _Attempt(conversation_id, items, environment, uploads or Uploads())
    yield from attempt.run()
    outcomes = [attempt.outcome_by_key[item.item_key] for item in items]
    return Delivery(
        outcomes,
        attempt.is_stopped,
        attempt.retry_after_s,
        attempt.failure,
        tuple(attempt.refused_fields.items()),
    )


def _header(
    conversation_id: str, opens: Sequence[Item], rest: Sequence[Item], environment: str | None
) -> Json:
    """Merge what was said of the conversation: the first word counts, as on the server."""
    header: Json = {"conversation_id": conversation_id}
    for item in opens:
        said: Json = json.loads(item.body)
        del said["item_key"]
        if not said.get("metadata"):
            said.pop("metadata", None)
        is_used = said.pop("is_used", False) or header.get("is_used", False)
        header = {**said, **header, "is_used": is_used}
    first = min((item.timestamp for item in (*opens, *rest)), default=None)
    if first is not None:
        header.setdefault("timestamp", first)
    if environment is not None:
        header.setdefault("environment", environment)
    return header


def _split(items: Sequence[Item]) -> Iterator[list[Item]]:
    chunk: list[Item] = []
    n_bytes = n_files = 0
    for item in items:
        if chunk and (
            n_bytes + len(item.body) > _MAX_BATCH_BYTES
            or n_files + len(item.files) > MAX_FILES_PER_REQUEST
            or len(chunk) >= MAX_ITEMS_PER_BATCH
        ):
            yield chunk
            chunk, n_bytes, n_files = [], 0, 0
        chunk.append(item)
        n_bytes += len(item.body) + 1
        n_files += len(item.files)
    yield chunk


def _halves(chunk: list[Item]) -> list[list[Item]]:
    middle = len(chunk) // 2
    return [chunk[:middle], chunk[middle:]]


def _refusal(reply: Reply) -> Json | None:
    """Return the body of a refusal in our server's form, `None` for anybody else's."""
    try:
        body: object = json.loads(reply.content)
    except (ValueError, RecursionError):
        return None
    return body if is_object(body) and {"code", "detail"} <= set(body) else None


def _refusal_codes(refusal_body: Json, chunk: Sequence[Item]) -> dict[str, str]:
    """Return by item_key what the server says is wrong with each item it names."""
    code_by_key: dict[str, str] = {}
    for item, said in _named_items(refusal_body, chunk):
        code_by_key[item.item_key] = str(said.get("code") or refusal_body["code"])
    return code_by_key


def _refused_items(refusal_body: Json, chunk: Sequence[Item]) -> list[tuple[Item, str]]:
    """Return the items that the server names, and why."""
    detail_by_key = {
        item.item_key: (item, str(said.get("detail") or refusal_body["detail"]))
        for item, said in _named_items(refusal_body, chunk)
    }
    return list(detail_by_key.values())


def _named_items(refusal_body: Json, chunk: Sequence[Item]) -> Iterator[tuple[Item, Json]]:
    named: Any = refusal_body.get("items")
    if not isinstance(named, list):
        return
    item_by_key = {item.item_key: item for item in chunk}
    for said in cast("list[object]", named):
        if not is_object(said):
            continue
        index = said.get("index")
        item = item_by_key.get(str(said.get("item_key")))
        if item is None and isinstance(index, int) and 0 <= index < len(chunk):
            item = chunk[index]
        if item is not None:
            yield item, said


def _type_of(item: Item) -> str:
    return "action" if item.kind == "usage" else item.kind


def _gzip(content: bytes) -> bytes:
    import zlib

    packer = zlib.compressobj(3, wbits=31)  # 31: with gzip's header (zlib manual, deflateInit2)
    return packer.compress(content) + packer.flush()
