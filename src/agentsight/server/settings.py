"""Every setting of the server, once: name, type, default, unit, variable, flag, what it does.

A setting comes from its flag, else its environment variable, else its default; an empty variable
counts as not set. `docs/settings.md` is made from `describe_settings`. The SDK's settings are not
here (`agentsight/config.py`).
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from agentsight import _contract as contract
from agentsight.server import settings_text as read

PREFIX = "AGENTSIGHT_"
_DAY_S = 24 * 3600
MAX_KEY_CACHE_S = 5
"""A revoked key must be dead everywhere within 5 s; nothing may cache longer."""

MAX_S3_FILE_BYTES = 10_000 * 8 * contract.MIB
"""An object store takes a file in so many parts at most, and they are of one size."""

_NOT_OURS = frozenset(
    PREFIX + name
    for name in (
        *("API_KEY", "API_ENDPOINT", "APP_URL", "ENVIRONMENT", "CONVERSATION_ID", "SPOOL_DIR"),
        *("TOKEN_HANDLER_TYPE", "FILE_EXPORTER"),
    )
)
"""The SDK's variables, which may stand in the server's environment without meaning anything."""


class SettingsError(ValueError):
    """A setting is wrong; the message names the variable and the remedy."""


class About(msgspec.Struct, frozen=True):
    """What the struct's type cannot say about a setting."""

    text: str
    parse: Callable[[str], Any] = str
    unit: str = ""
    flag: str | None = None
    default_text: str | None = None
    is_secret: bool = False


class SettingRow(msgspec.Struct, frozen=True):
    """One row of the generated documentation."""

    name: str
    variable: str
    flag: str | None
    type: str
    default: str
    unit: str
    text: str


# --- The settings ---------------------------------------------------------------------------------


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of one server, checked. Make it by `load_settings`."""

    data_dir: Annotated[
        Path,
        About(
            "Where everything is kept that no other setting sends elsewhere.",
            read.directory,
            flag="--data",
            default_text="./agentsight-data",
        ),
    ]
    database_url: Annotated[
        str,
        About(
            "The database: `sqlite:///…` or `postgresql://…` (15 or newer).",
            read.database_url,
            flag="--database-url",
            default_text="SQLite: `agentsight.db` in the data directory",
        ),
    ]
    storage_url: Annotated[
        str,
        About(
            "Where the bytes of files are kept: `file:///directory`, on a disk of this host, or"
            " `s3://bucket[/prefix]` in any S3-compatible store, with the usual `AWS_*` variables.",
            read.storage_url,
            flag="--storage-url",
            default_text="`files` in the data directory",
        ),
    ]
    storage_public_url: Annotated[
        str | None,
        About(
            "Where browsers reach the object store, for `downloads=redirect`.",
            read.base_url,
            default_text="`AWS_ENDPOINT_URL`",
        ),
    ] = None
    public_url: Annotated[
        str | None,
        About(
            "The address people and bots reach this server at; links begin with it. Without it the"
            " request's own host counts, but only from loopback or an allowed host.",
            read.base_url,
            flag="--public-url",
        ),
    ] = None
    files_url: Annotated[
        str | None,
        About(
            "An address of their own for file links, so that an uploaded page can never run on the"
            " public URL's origin. It must reach the same server.",
            read.base_url,
            default_text="the public URL",
        ),
    ] = None
    secret_key: Annotated[
        tuple[str, ...],
        About(
            "Signs file links. A list rotates: the first signs, all verify. Without it a secret is"
            " made once and kept in the database.",
            read.secrets,
            flag="--secret-key",
            default_text="made once, kept in the database",
            is_secret=True,
        ),
    ] = ()
    host: Annotated[str, About("The address to listen at.", read.plain_text, flag="--host")] = (
        "127.0.0.1"
    )
    port: Annotated[
        int,
        About("The port to listen at; 0 takes a free one.", read.whole(0, 65535), flag="--port"),
    ] = 8000
    workers: Annotated[
        int, About("How many processes serve.", read.whole(1, 256), "processes", flag="--workers")
    ] = 1
    migrate: Annotated[
        bool,
        About(
            "Whether `serve` brings an older database up to date; off refuses to start instead.",
            read.switch,
            flag="--no-migrate",
        ),
    ] = True
    database_pool_size: Annotated[
        int,
        About(
            "PostgreSQL connections a process keeps at most.", read.whole(1, 1000), "connections"
        ),
    ] = 10
    allowed_hosts: Annotated[
        tuple[str, ...],
        About(
            "Host names a request from outside, or a trusted proxy, may name itself, comma between"
            " them.",
            read.hosts,
        ),
    ] = ()
    trusted_proxies: Annotated[
        tuple[str, ...],
        About(
            "Proxies whose `X-Forwarded-Proto`, `-Host` and `-Port` count: addresses or networks,"
            " comma between them.",
            read.networks,
        ),
    ] = ()
    files_cache: Annotated[
        Literal["private", "public"],
        About(
            "Who may cache files: `private` (browsers) or `public` (also a CDN, which then may"
            " serve a file for a while after it was deleted).",
            read.one_of("private", "public"),
        ),
    ] = "private"
    link_lifetime_days: Annotated[
        int, About("How long a file link works at least.", read.whole(1, 3650), "days")
    ] = 7
    downloads: Annotated[
        Literal["stream", "redirect"],
        About(
            "How files leave an object store: `stream` (through this server; the bucket is seen by"
            " nobody) or `redirect` (downloads and pictures by a presigned link that lives for a"
            " minute).",
            read.one_of("stream", "redirect"),
        ),
    ] = "stream"
    x_accel_redirect: Annotated[
        str | None,
        About(
            "Path of an nginx `internal` location over the files directory; nginx then sends the"
            " bytes itself.",
            read.internal_path,
        ),
    ] = None
    key_cache_s: Annotated[
        int,
        About(
            "How long a process may trust what it knows of an API key. A revoked key dies within"
            " this time.",
            read.whole(0, MAX_KEY_CACHE_S),
            "seconds",
        ),
    ] = MAX_KEY_CACHE_S
    geoip: Annotated[
        bool,
        About("Whether a conversation's IP address gives its country (offline).", read.switch),
    ] = True
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"],
        About("What is logged, from this level up.", read.one_of(*read.LEVELS)),
    ] = "info"
    access_log: Annotated[
        bool, About("Whether each request is logged.", read.switch, flag="--access-log")
    ] = False
    init_key: Annotated[
        str | None,
        About("First start only: the write key of the agent `default`.", read.key, is_secret=True),
    ] = None
    init_email: Annotated[
        str | None,
        About("First start only: the owner's address.", read.email, default_text="owner@localhost"),
    ] = None
    init_password: Annotated[
        str | None,
        About(
            "First start only: the owner's password; without it a one-time link sets one. Pages to"
            " sign in come with a later version.",
            read.password,
            is_secret=True,
        ),
    ] = None
    max_json_body_bytes: Annotated[
        int, About("One JSON body, counted while it is inflated.", read.size, "bytes")
    ] = contract.MAX_JSON_BODY_BYTES
    max_base64_file_bytes: Annotated[
        int, About("One file inside a JSON body, after decoding.", read.size, "bytes")
    ] = contract.MAX_BASE64_FILE_BYTES
    max_file_bytes: Annotated[
        int, About("One file by multipart or upload.", read.size, "bytes")
    ] = contract.MAX_FILE_BYTES
    max_request_bytes: Annotated[
        int, About("All files of one request together.", read.size, "bytes")
    ] = contract.MAX_REQUEST_BYTES
    max_conversation_bytes: Annotated[
        int | None,
        About("All files of one conversation together.", read.size, "bytes", default_text="none"),
    ] = None
    max_agent_bytes: Annotated[
        int | None,
        About(
            "All stored bytes of one agent, each file counted once.",
            read.size,
            "bytes",
            default_text="none",
        ),
    ] = None
    min_free_disk_bytes: Annotated[
        int,
        About(
            "Room that must be left on the disks of a SQLite database and of a local store; with"
            " less, files are refused while messages still fit.",
            read.size,
            "bytes",
        ),
    ] = 256 * contract.MIB
    upload_pin_hours: Annotated[
        int,
        About(
            "How long an upload waits: unfinished since its last byte, or stored until a message"
            " refers to it.",
            read.whole(1, 24 * 365),
            "hours",
        ),
    ] = 24
    max_pending_uploads: Annotated[
        int,
        About("Unfinished uploads an agent may have.", read.whole(1, 100_000), "uploads"),
    ] = contract.MAX_PENDING_UPLOADS
    deletion_grace_days: Annotated[
        int,
        About(
            "How long what was deleted can be brought back before it is erased.",
            read.whole(0, 3650),
            "days",
        ),
    ] = 7
    audit_reads: Annotated[
        bool,
        About("Whether the audit log also keeps who read what, counted by minute.", read.switch),
    ] = True
    clamd: Annotated[
        str | None,
        About(
            "A ClamAV daemon, `host:port`, that scans every new file. Without it files say"
            " `not_scanned`.",
            read.host_and_port,
        ),
    ] = None
    send_timeout_s: Annotated[
        int,
        About(
            "How long a client may leave unread what it is sent; then its connection is ended. A"
            " player that was paused for longer asks again for the rest.",
            read.whole(1, 3600),
            "seconds",
        ),
    ] = 60
    examine: Annotated[
        bool,
        About(
            "Whether files are examined in a process of its own: size of pictures, pages, seconds,"
            " text for the search, previews.",
            read.switch,
        ),
    ] = True
    examine_memory_bytes: Annotated[
        int,
        About("Memory the examining process may take; more ends it.", read.size, "bytes"),
    ] = 1024 * contract.MIB
    examine_timeout_s: Annotated[
        int,
        About("Time one file may take to be examined.", read.whole(1, 3600), "seconds"),
    ] = 30
    max_examined_bytes: Annotated[
        int,
        About("Larger files are not examined and get no preview.", read.size, "bytes"),
    ] = 512 * contract.MIB
    max_files_per_request: Annotated[
        int, About("Files in one request.", read.whole(1, 10_000), "files")
    ] = contract.MAX_FILES_PER_REQUEST
    max_items_per_batch: Annotated[
        int, About("Items in one batch of our own SDK.", read.whole(1, 1_000_000), "items")
    ] = contract.MAX_ITEMS_PER_BATCH
    max_text_bytes: Annotated[
        int, About("One text (a message, an action's response), in UTF-8.", read.size, "bytes")
    ] = contract.MAX_TEXT_BYTES
    max_metadata_bytes: Annotated[
        int, About("The metadata of one thing, as JSON.", read.size, "bytes")
    ] = contract.MAX_METADATA_BYTES
    max_metadata_depth: Annotated[
        int, About("How deep metadata may nest.", read.whole(1, 200), "levels")
    ] = contract.MAX_METADATA_DEPTH
    max_json_in_flight_bytes: Annotated[
        int,
        About("JSON bodies one process holds at a time; more get 503.", read.size, "bytes"),
    ] = contract.MAX_JSON_IN_FLIGHT_BYTES
    max_environments_per_agent: Annotated[
        int,
        About(
            "Environments an agent may have, `production` and `development` counted.",
            read.whole(2, 10_000),
            "environments",
        ),
    ] = contract.MAX_ENVIRONMENTS_PER_AGENT
    max_messages_per_list: Annotated[
        int,
        About(
            "Messages in one answer with full transcripts; what does not fit is left out and says"
            " so.",
            read.whole(100, 10_000_000),
            "messages",
        ),
    ] = contract.MAX_MESSAGES_PER_LIST

    def __repr__(self) -> str:
        """Show no value at all: settings end up in tracebacks, and some are secret."""
        return f"Settings(database_url={hide_password(self.database_url)!r}, …)"

    def leftover_age_s(self) -> int:
        """Return how old half-written objects are when certainly nobody goes on with them.

        An upload waits so long for its next byte; an hour more, for clocks and slow steps.
        """
        return max(_DAY_S, (self.upload_pin_hours + 1) * 3600)

    def trusted_networks(self) -> list[Any]:
        """Return the trusted proxies as `ipaddress` networks."""
        import ipaddress

        return [ipaddress.ip_network(text) for text in self.trusted_proxies]


# --- Loading --------------------------------------------------------------------------------------


def _abouts() -> Iterator[tuple[str, About, Any]]:
    """Yield name, About and bare type of every setting, in the order of the struct."""
    hints = typing.get_type_hints(Settings, include_extras=True)
    for name in Settings.__struct_fields__:
        bare, about = typing.get_args(hints[name])[:2]
        yield name, about, bare


def variable_of(name: str) -> str:
    """Return the environment variable of the setting `name`."""
    return PREFIX + name.upper()


def load_settings(
    environ: Mapping[str, str], flags: Mapping[str, str | None] | None = None
) -> Settings:
    """Read and check all settings.

    Args:
        environ: The environment; an empty variable counts as not set.
        flags: Texts from the command line by setting name; None counts as not given.

    Raises:
        SettingsError: A value is wrong; says which variable or flag, and what it must be.
    """
    flags = flags or {}
    values: dict[str, Any] = {}
    for name, about, _ in _abouts():
        text = flags.get(name)
        source = about.flag if text is not None else variable_of(name)
        if text is None:
            text = environ.get(variable_of(name)) or None
        if text is None:
            continue
        try:
            values[name] = about.parse(text)
        except ValueError as error:
            shown = "" if about.is_secret else f" (it is {hide_password(text)[:100]!r})"
            raise SettingsError(f"{source}: {error}{shown}.") from None
    return _complete(values)


def _complete(values: dict[str, Any]) -> Settings:
    data_dir: Path = values.setdefault("data_dir", read.directory("agentsight-data"))
    values.setdefault("database_url", f"sqlite:///{data_dir / 'agentsight.db'}")
    values.setdefault("storage_url", (data_dir / "files").as_uri())
    settings = Settings(**values)
    if settings.max_json_in_flight_bytes < settings.max_json_body_bytes:
        raise SettingsError(
            f"{variable_of('max_json_in_flight_bytes')}: must be at least"
            f" {variable_of('max_json_body_bytes')} ({settings.max_json_body_bytes}),"
            " or one large body never fits."
        )
    if settings.x_accel_redirect and not settings.storage_url.startswith("file://"):
        raise SettingsError(
            f"{variable_of('x_accel_redirect')}: works only with file:// storage; unset it."
        )
    _check_object_storage(settings)
    return settings


def _check_object_storage(settings: Settings) -> None:
    if not settings.storage_url.startswith("s3://"):
        if settings.downloads == "redirect":
            raise SettingsError(
                f"{variable_of('downloads')}: redirect works only with s3:// storage; unset it."
            )
    elif settings.max_file_bytes > MAX_S3_FILE_BYTES:
        raise SettingsError(
            f"{variable_of('max_file_bytes')}: must be at most {MAX_S3_FILE_BYTES} with s3://"
            " storage (10,000 parts of 8 MiB)."
        )


def settings_environment(settings: Settings) -> dict[str, str]:
    """Return the variables from which `load_settings` makes the same settings in a worker."""
    environment: dict[str, str] = {}
    for name, _, _ in _abouts():
        value = getattr(settings, name)
        if isinstance(value, bool):
            text = "on" if value else "off"
        elif isinstance(value, tuple):
            text = ",".join(typing.cast("tuple[str, ...]", value))
        else:
            text = "" if value is None else str(value)
        environment[variable_of(name)] = text
    return environment


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the `AGENTSIGHT_…` variables that nothing reads, so that a slip is not silent."""
    known = {variable_of(name) for name in Settings.__struct_fields__} | _NOT_OURS
    return sorted(
        name
        for name in environ
        if name.startswith(PREFIX) and name not in known and not name.startswith(PREFIX + "TEST_")
    )


def hide_password(url: str) -> str:
    """Return the URL with its password replaced by `***`; other texts as they are."""
    scheme, separator, rest = url.partition("://")
    authority = rest.partition("/")[0]
    credentials, at, _ = authority.rpartition("@")
    user, colon, _ = credentials.partition(":")
    shown = f"{user}:***@" if colon else credentials + at
    shown_url = scheme + separator + shown + rest[len(credentials) + len(at) :]
    before, query, _ = shown_url.partition("?")
    return f"{before}?…" if query and "password" in shown_url[len(before) :].lower() else shown_url


def describe_settings() -> list[SettingRow]:
    """Describe every setting, for the generated documentation."""
    defaults = dict(
        zip(
            Settings.__struct_fields__[-len(Settings.__struct_defaults__) :],
            Settings.__struct_defaults__,
            strict=True,
        )
    )
    return [
        SettingRow(
            name,
            variable_of(name),
            about.flag,
            _type_text(bare),
            about.default_text or _value_text(defaults.get(name)),
            about.unit,
            about.text,
        )
        for name, about, bare in _abouts()
    ]


def _type_text(bare: Any) -> str:
    if typing.get_origin(bare) is Literal:
        return " | ".join(typing.get_args(bare))
    names = {Path: "directory", bool: "on | off", int: "whole number"}
    if bare in names:
        return names[bare]
    return "list" if typing.get_origin(bare) is tuple else "text"


def _value_text(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        for factor, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
            if value >= factor and value % factor == 0:
                return f"{value // factor} {unit}"
    return "" if value is None or value == () else str(value)
