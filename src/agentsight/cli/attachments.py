"""`agentsight attachments`: the files of conversations, from wherever a server's API is reached.

These speak to a server by a key, as a bot does, and need the SDK only: no database, no extra.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentsight.cli._progress import Bar, shown, shown_size
from agentsight.cli._support import (
    CliError,
    Groups,
    add_command,
    add_group,
    add_json_flag,
    not_a_time,
    positive_number,
    print_rows,
    say,
)

if TYPE_CHECKING:
    from agentsight import AgentSightAPI
    from agentsight._delivery import Outcome
    from agentsight._spool import Item
    from agentsight.types import DownloadedFile

_DEFAULT_LIMIT: Final = 50
_ORDERS: Final = {
    "newest": "-sent_at",
    "oldest": "sent_at",
    "largest": "-size_bytes",
    "smallest": "size_bytes",
    "name": "filename",
}
_WITHOUT_KEY: Final = (
    "no API key: set AGENTSIGHT_API_KEY, or give --key-file FILE (- reads standard input);"
    " on the server's host, agentsight keys create --agent SLUG --role read makes one"
)


def add_commands(groups: Groups) -> None:
    """Add `list`, `download`, `upload` and `search`."""
    commands = add_group(groups, "attachments", "files of conversations, by the API")
    listing = _add(commands, "list", "list a conversation's files", run_list)
    _add_conversation(listing)
    add_json_flag(listing)
    _add_download(commands)
    _add_upload(commands)
    _add_search(commands)


def _add(commands: Groups, name: str, text: str, run: Any) -> argparse.ArgumentParser:
    parser = add_command(
        commands, name, text, _explained(run), on_database=False, needs_server=False
    )
    parser.add_argument(
        "--endpoint", metavar="URL",
        help="the server's address (AGENTSIGHT_API_ENDPOINT, else http://127.0.0.1:8000)",
    )  # fmt: skip
    parser.add_argument(
        "--key-file", metavar="FILE",
        help="a file with the API key; - reads standard input (AGENTSIGHT_API_KEY)",
    )  # fmt: skip
    return parser


def _add_conversation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("conversation", metavar="CONVERSATION", help="its conversation_id")
    parser.add_argument(
        "--id", action="store_true", dest="by_row_id",
        help="CONVERSATION is the server's row id, a number",
    )  # fmt: skip


def _add_download(commands: Groups) -> None:
    parser = _add(commands, "download", "fetch a conversation's files", run_download)
    _add_conversation(parser)
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--to", metavar="DIR", default=".", help="the directory they go to (the current one)"
    )
    where.add_argument("--zip", metavar="FILE", help="all of them in one ZIP; - is standard output")
    parser.add_argument(
        "--overwrite", action="store_true",
        help="replace other files of the same names, in place of writing 'name (2)'; or the ZIP",
    )  # fmt: skip
    parser.add_argument(
        "--workers", type=positive_number, default=4, metavar="N", help="so many at a time (4)"
    )


def _add_upload(commands: Groups) -> None:
    parser = _add(commands, "upload", "put files into a conversation", run_upload)
    _add_conversation(parser)
    parser.add_argument("files", metavar="FILE", nargs="+", help="a file to send")
    parser.add_argument(
        "--sender", choices=("end_user", "agent"), default="end_user",
        help="who sends them (end_user)",
    )  # fmt: skip
    parser.add_argument("--message-text", metavar="TEXT", help="the message that brings them")


def _add_search(commands: Groups) -> None:
    parser = _add(commands, "search", "find files in all conversations", run_search)
    parser.add_argument(
        "text", metavar="TEXT", nargs="?", help="in a file's name or in the text inside it"
    )
    parser.add_argument("--name", metavar="TEXT", help="in a file's name")
    parser.add_argument("--type", metavar="TYPE", help="image, document, text, audio or video")
    parser.add_argument("--customer", metavar="ID", help="of this customer_id, exactly")
    parser.add_argument("--conversation", metavar="ID", help="of this conversation_id, exactly")
    parser.add_argument("--sender", metavar="WHO", help="end_user, agent or system")
    parser.add_argument("--since", metavar="TIME", help="sent then or later; ISO 8601, UTC")
    parser.add_argument("--until", metavar="TIME", help="sent then or earlier")
    parser.add_argument("--min-size", type=_size, metavar="BYTES", help="of so many bytes or more")
    parser.add_argument("--max-size", type=_size, metavar="BYTES", help="of so many at most")
    parser.add_argument(
        "--order", choices=_ORDERS, default="newest", help="which are shown first (newest)"
    )
    parser.add_argument(
        "--limit", type=positive_number, default=_DEFAULT_LIMIT, metavar="N",
        help=f"show so many at most ({_DEFAULT_LIMIT})",
    )  # fmt: skip
    add_json_flag(parser)


# --- Commands -------------------------------------------------------------------------------------


def run_list(arguments: argparse.Namespace) -> int:
    """List a conversation's files."""
    with _open_api(arguments) as api:
        found = api.fetch_conversation_attachments(_reference(arguments))
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = [
        (shown(file["filename"]), file["type"], shown_size(file["size_bytes"]), message["sender"],
         message["timestamp"], file["uid"])
        for message in found["messages"]
        for file in message["attachments"]
    ]  # fmt: skip
    print_rows(("name", "type", "size", "sender", "sent_at", "uid"), rows, as_json=False)
    return 0


def run_search(arguments: argparse.Namespace) -> int:
    """List the files that match, in the order that is asked for."""
    for name in ("text", "name", "type", "customer", "conversation", "sender", "since", "until"):
        _readable("TEXT" if name == "text" else f"--{name}", getattr(arguments, name) or "")
    filters = {
        "contains": arguments.text,
        "filename_contains": arguments.name,
        "type": arguments.type,
        "customer_id": arguments.customer,
        "conversation_id": arguments.conversation,
        "sender": arguments.sender,
        "sent_after": arguments.since,
        "sent_before": arguments.until,
        "size_min": arguments.min_size,
        "size_max": arguments.max_size,
        "ordering": _ORDERS[arguments.order],
        "page_size": min(arguments.limit, 100),
        "count": False,
    }
    found, is_more = _find(arguments, filters)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        rows = [
            (shown(row["filename"]), row["type"], shown_size(row["size_bytes"]),
             shown(row["conversation_id"]), row["timestamp"], row["uid"])
            for row in found
        ]  # fmt: skip
        names = ("name", "type", "size", "conversation", "sent_at", "uid")
        print_rows(names, rows, as_json=False)
    if is_more:
        say(f"there are more: --limit {arguments.limit * 10} shows more of them")
    return 0


def _find(
    arguments: argparse.Namespace, filters: dict[str, Any]
) -> tuple[list[dict[str, Any]], bool]:
    """Return the first rows, and whether there are more."""
    from agentsight._operations import is_object
    from agentsight.exceptions import ConversationApiException

    found: list[dict[str, Any]] = []
    with _open_api(arguments) as api:
        try:
            for row in api.iter_attachments(**filters):
                if len(found) == arguments.limit:
                    return found, True
                found.append(row)
        except ConversationApiException as error:
            refused = error.response_data if is_object(error.response_data) else {}
            for field, name in (("sent_after", "since"), ("sent_before", "until")):
                if field in refused:
                    raise not_a_time(f"--{name}", getattr(arguments, name)) from None
            raise
    return found, False


def run_download(arguments: argparse.Namespace) -> int:
    """Fetch all files, or the ZIP; 1 where one of them is not here at the end."""
    with _open_api(arguments) as api:
        if arguments.zip is not None:
            return _download_zip(api, arguments)
        with _going_on(), Bar() as bar:
            files = _download_files(api, arguments, bar)
    missing = [file for file in files if not file.is_here]
    n_bytes = sum(file.size_bytes for file in files if file.is_here)
    n_new = sum(file.status == "downloaded" for file in files)
    text = f"{len(files) - len(missing)} of {len(files)} files are here, {shown_size(n_bytes)}"
    say(f"{text}; {n_new} downloaded")
    if any(file.status == "failed" for file in missing):
        say("run it again: what is here is not fetched again, and parts go on where they stopped")
    return 1 if missing else 0


def _download_files(
    api: AgentSightAPI, arguments: argparse.Namespace, bar: Bar
) -> list[DownloadedFile]:
    from agentsight import _downloads as downloads

    directory = Path(arguments.to)
    session = api.run(
        downloads.begin(
            _reference(arguments), directory, overwrite=arguments.overwrite, progress=bar.update
        )
    )
    n_untold = 0

    def tell(file: DownloadedFile) -> None:
        nonlocal n_untold
        if file.is_here:
            bar.say(f"{file.status:10}  {directory / file.path.name}")
        elif session.over is not None and str(file.error).endswith(session.over):
            n_untold += 1  # they all have the same to say
        else:
            line = f"{file.status}: {shown(file.filename)}: {file.error}"
            bar.say(f"agentsight: {line}", sys.stderr)

    files = downloads.run_in_threads(api, session, arguments.workers, tell)
    if n_untold:
        bar.say(f"agentsight: {_files(n_untold)} not fetched: {session.over}", sys.stderr)
    return files


def _files(n: int) -> str:
    return "1 file was" if n == 1 else f"{n} files were"


def _download_zip(api: AgentSightAPI, arguments: argparse.Namespace) -> int:
    from agentsight.cli._zips import fetch_zip

    with Bar() as bar:
        n_bytes, absent = fetch_zip(
            api, _reference(arguments), arguments.zip, overwrite=arguments.overwrite,
            progress=lambda n_done: bar.update(n_done, None, arguments.zip),
        )  # fmt: skip
    for line in absent or ():
        say(f"agentsight: not in the ZIP: {shown(line)}")
    say(f"{shown_size(n_bytes)} in {arguments.zip}")
    if absent is None:
        say("whether all files are in it, its manifest.json says")
    return 1 if absent else 0


def run_upload(arguments: argparse.Namespace) -> int:
    """Put files into a conversation, as one message; 1 where one of them did not arrive."""
    from agentsight._delivery import deliver
    from agentsight._files import read_attachments
    from agentsight._items import plain_environment
    from agentsight._uploads import Uploads

    files = read_attachments([{"path": name} for name in arguments.files], "form_data")
    with _open_api(arguments) as api, _going_on(), Bar() as bar:
        uploads = Uploads()
        begun: dict[str, tuple[int, int]] = {}

        def tell(name: str, n_done: int, n_all: int) -> None:
            begun[name] = n_done, n_all
            bar.update(n_done, n_all, name)

        uploads.tell = tell
        conversation_id = _own_id(api, arguments)
        items = _items(arguments, conversation_id, files, api.config.environment)
        environment = plain_environment(api.config.environment)
        delivery = api.run(deliver(conversation_id, items, environment, uploads))
    outcome = delivery.outcomes[-1]
    if outcome.error is not None and delivery.is_stopped:
        for name, (n_done, n_all) in begun.items():
            if 0 < n_done < n_all:
                say(
                    f"{shown(name)} stopped after about {shown_size(n_done)} of"
                    f" {shown_size(n_all)}: run it again, and it goes on from there"
                )
    return _report_upload(outcome)


def _own_id(api: AgentSightAPI, arguments: argparse.Namespace) -> str:
    """Return the conversation's own id, by which items name it."""
    if not arguments.by_row_id:
        return arguments.conversation
    found: str = api.fetch_conversation(_reference(arguments))["conversation_id"]
    return found


def _items(
    arguments: argparse.Namespace, conversation_id: str, files: Any, environment: Any
) -> list[Item]:
    """Return what opens the conversation, and the message with its files."""
    from agentsight._items import checked_text, new_item, opening_item
    from agentsight.exceptions import InvalidQuestionDataException

    details = {"environment": "development", "metadata": None}
    opening = opening_item(conversation_id, details, is_used=True, environment=environment)
    wire: dict[str, Any] = {"type": "attachments", "sender": arguments.sender, "metadata": {}}
    kind = "attachments"
    if arguments.message_text is not None:
        text = checked_text(arguments.message_text, InvalidQuestionDataException, "message")
        wire |= {"type": "message", "content": text}
        kind = "question" if arguments.sender == "end_user" else "answer"
    return [opening, new_item(kind, conversation_id, wire, files=files, mode="form_data")]


def _report_upload(outcome: Outcome) -> int:
    for name, reason in outcome.lost_files:
        say(f"agentsight: {shown(name)}: {reason}")
    if outcome.error is not None:
        files = outcome.error.removeprefix("none of its files can be sent: ")
        raise CliError(_for_flags(f"nothing was stored: {files}"))
    for row in (outcome.response or {}).get("attachments", []):
        print(f"stored  {row['uid']}  {shown(row['filename'])}")
    return 1 if outcome.lost_files else 0


# --- What they share ------------------------------------------------------------------------------


@contextlib.contextmanager
def _going_on() -> Generator[None]:
    """Say on Ctrl-C that nothing is lost by it."""
    try:
        yield
    except KeyboardInterrupt:
        say("\nstopped: the same command goes on with what is missing")
        raise


def _readable(name: str, text: str) -> str:
    """Refuse words that the shell handed over in an encoding other than the terminal's."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise CliError(f"{name} {text!r} is not text in UTF-8", exit_code=2) from None
    return text


def _size(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes")
    return int(text)


def _reference(arguments: argparse.Namespace) -> int | str:
    text = _readable("CONVERSATION", arguments.conversation)
    if not arguments.by_row_id:
        return text
    if not (text.isascii() and text.isdigit()):
        raise CliError(f"with --id, CONVERSATION is a number, not {text!r}", exit_code=2)
    return int(text)


def _open_api(arguments: argparse.Namespace) -> AgentSightAPI:
    """Return a client of the server that is named.

    Raises:
        CliError: there is no usable key or address.
    """
    from agentsight import AgentSightAPI
    from agentsight.exceptions import InvalidApiKeyException, NoApiKeyException

    key = None if arguments.key_file is None else _read_key(arguments.key_file)
    try:
        return AgentSightAPI(key, arguments.endpoint)
    except NoApiKeyException:
        raise CliError(_WITHOUT_KEY, exit_code=2) from None
    except (InvalidApiKeyException, ValueError) as error:
        raise CliError(str(error), exit_code=2) from None


def _read_key(name: str) -> str:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CliError(f"the key cannot be read from {name}: {reason}", exit_code=2) from None
    if not text.strip():
        raise CliError(f"there is no key in {name}", exit_code=2)
    return text.strip()


def _for_flags(text: str) -> str:
    """Return an error's text with the flag in place of the SDK's argument."""
    return text.replace(" or endpoint=", " or --endpoint")


def _explained(run: Any) -> Any:
    """Turn what the SDK raises into a `CliError` of one line."""

    def explained(arguments: argparse.Namespace) -> int:
        from agentsight import exceptions as sdk

        try:
            code: int = run(arguments)
        except sdk.UnauthorizedException:
            text = "the server does not know this key: is it revoked, or another server's?"
            raise CliError(text) from None
        except sdk.ForbiddenException as error:
            raise CliError(f"this key may not do that ({error})") from None
        except sdk.ConversationNetworkException as error:
            raise CliError(_for_flags(str(error))) from None
        except sdk.ConversationApiException as error:
            raise CliError(str(error), exit_code=2 if error.status_code == 400 else 1) from None
        except (sdk.ConversationTrackingException, sdk.InvalidAttachmentException) as error:
            raise CliError(str(error)) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise CliError(f"{error.strerror or error}{where}") from None
        except ValueError as error:
            raise CliError(str(error), exit_code=2) from None
        return code

    return explained
