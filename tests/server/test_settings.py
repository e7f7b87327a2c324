"""Settings: read once, checked, described, and handed on to workers unchanged."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentsight import _contract as contract
from agentsight.server.agents.model import generate_key
from agentsight.server.blobs.s3_parts import MAX_OBJECT_BYTES
from agentsight.server.settings import (
    MAX_S3_FILE_BYTES,
    Settings,
    SettingsError,
    describe_settings,
    hide_password,
    load_settings,
    settings_environment,
    unknown_variables,
)


def test_without_settings_everything_is_in_the_data_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A SQLite file and a directory of files, side by side, at absolute places."""
    monkeypatch.chdir(tmp_path)
    settings = load_settings({})
    assert settings.data_dir == tmp_path / "agentsight-data"
    assert settings.database_url == f"sqlite:///{tmp_path}/agentsight-data/agentsight.db"
    assert settings.storage_url == f"file://{tmp_path}/agentsight-data/files"
    assert (settings.host, settings.port, settings.workers) == ("127.0.0.1", 8000, 1)
    assert settings.link_lifetime_days == 7
    assert settings.max_file_bytes == contract.MAX_FILE_BYTES


def test_a_flag_beats_the_variable_and_the_variable_beats_the_default() -> None:
    """An empty variable counts as not set, as compose files leave them."""
    environ = {"AGENTSIGHT_PORT": "9000", "AGENTSIGHT_HOST": ""}
    assert load_settings(environ, {"port": "9001", "host": None}).port == 9001
    assert load_settings(environ).port == 9000
    assert load_settings(environ).host == "127.0.0.1"


def test_odd_directories_survive_the_storage_url(tmp_path: Path) -> None:
    """A space, a percent sign or a hash in the path is escaped in the URL."""
    settings = load_settings({}, {"data_dir": str(tmp_path / "a b%20#c")})
    assert settings.storage_url.endswith("/a%20b%2520%23c/files")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("PORT", "http"),
        ("PORT", "70000"),
        ("PORT", "-1"),
        ("PORT", "١٢"),
        ("WORKERS", "0"),
        ("DATABASE_URL", "mysql://x"),
        ("DATABASE_URL", "sqlite:///"),
        ("STORAGE_URL", "/tmp/files"),
        ("STORAGE_URL", "s3://"),
        ("STORAGE_URL", "s3://key:secret@bucket"),
        ("STORAGE_URL", "s3://Bucket"),
        ("STORAGE_URL", "s3://bucket/../other"),
        ("STORAGE_URL", "s3://bucket?region=x"),
        ("STORAGE_URL", "gs://bucket"),
        ("STORAGE_URL", "az://container"),
        ("PUBLIC_URL", "example.com"),
        ("PUBLIC_URL", "https://"),
        ("PUBLIC_URL", "https://user:secret@example.com"),
        ("PUBLIC_URL", "https://example.com/?a=b"),
        ("SECRET_KEY", "short"),
        ("SECRET_KEY", ","),
        ("ALLOWED_HOSTS", "https://example.com"),
        ("TRUSTED_PROXIES", "nginx"),
        ("FILES_CACHE", "maybe"),
        ("KEY_CACHE_S", "6"),
        ("X_ACCEL_REDIRECT", "internal"),
        ("GEOIP", "perhaps"),
        ("INIT_KEY", "ags_0123456789abcdef0123456789abcdef_000000"),
        ("INIT_EMAIL", "owner"),
        ("INIT_PASSWORD", "short"),
        ("MAX_FILE_BYTES", "lots"),
        ("MAX_FILE_BYTES", "0"),
        ("MAX_JSON_BODY_BYTES", "1GiB"),
        ("LOG_LEVEL", "chatty"),
    ],
)
def test_a_wrong_value_names_its_variable_and_the_remedy(variable: str, value: str) -> None:
    """The message is one line that says what is wrong where, and what it must be."""
    with pytest.raises(SettingsError) as caught:
        load_settings({f"AGENTSIGHT_{variable}": value})
    assert re.match(r"AGENTSIGHT_[A-Z_0-9]+: must ", str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_wrong_flag_is_named_as_it_was_typed() -> None:
    """Who typed `--port` is told about `--port`."""
    with pytest.raises(SettingsError, match=r"^--port: must be a whole number .*'x'"):
        load_settings({}, {"port": "x"})


@pytest.mark.parametrize("name", ["SECRET_KEY", "INIT_KEY", "INIT_PASSWORD"])
def test_a_wrong_secret_is_not_repeated(name: str) -> None:
    """A message that ends up in a log does not hold what was mistyped in a secret."""
    with pytest.raises(SettingsError) as caught:
        load_settings({f"AGENTSIGHT_{name}": "hush-hush"})
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "n_bytes"), [("1024", 1024), ("64 KiB", 65536), ("5MiB", 5 << 20), ("2gib", 2 << 30)]
)
def test_sizes_may_be_written_with_a_unit(text: str, n_bytes: int) -> None:
    """KiB, MiB and GiB are understood, without case."""
    assert load_settings({"AGENTSIGHT_MAX_FILE_BYTES": text}).max_file_bytes == n_bytes


def test_x_accel_redirect_needs_files_on_a_disk() -> None:
    """nginx cannot send what is in a bucket."""
    environ = {"AGENTSIGHT_X_ACCEL_REDIRECT": "/internal", "AGENTSIGHT_STORAGE_URL": "s3://bucket"}
    with pytest.raises(SettingsError, match="file://"):
        load_settings(environ)
    del environ["AGENTSIGHT_STORAGE_URL"]
    assert load_settings(environ).x_accel_redirect == "/internal/"


def test_settings_reach_a_worker_unchanged() -> None:
    """What the parent has read, from flags too, a worker reads from its environment."""
    settings = load_settings(
        {
            "AGENTSIGHT_SECRET_KEY": "a" * 32 + "," + "b" * 32,
            "AGENTSIGHT_TRUSTED_PROXIES": "10.0.0.0/8, ::1",
            "AGENTSIGHT_ALLOWED_HOSTS": "a.example, b.example",
            "AGENTSIGHT_GEOIP": "off",
            "AGENTSIGHT_INIT_KEY": generate_key(),
            "AGENTSIGHT_INIT_PASSWORD": " spaces count ",
            "AGENTSIGHT_FILES_CACHE": "PUBLIC",
        },
        {
            "database_url": "postgres://u:p@h/d",
            "public_url": "https://x.example/",
            "migrate": "off",
        },
    )
    assert settings.database_url == "postgresql://u:p@h/d"
    assert settings.public_url == "https://x.example"
    assert settings.secret_key == ("a" * 32, "b" * 32)
    assert settings.init_password == " spaces count "
    assert load_settings(settings_environment(settings)) == settings


def test_settings_do_not_show_their_values() -> None:
    """A traceback that prints the settings gives no secret away."""
    settings = load_settings(
        {"AGENTSIGHT_SECRET_KEY": "s" * 32, "AGENTSIGHT_DATABASE_URL": "postgresql://u:pw@h/d"}
    )
    assert "sss" not in repr(settings)
    assert "pw" not in repr(settings)


@given(st.text(st.characters(codec="ascii", exclude_characters="/?#@:"), min_size=6))
def test_passwords_are_hidden_in_urls(password: str) -> None:
    """Whatever the password, it is not in what is shown."""
    assert hide_password(f"postgresql://someone:{password}@db/x") == "postgresql://someone:***@db/x"


def test_a_slip_in_a_variable_is_noticed() -> None:
    """What looks like a setting and is none is named; the SDK's variables are not."""
    environ = {
        "AGENTSIGHT_DATABSE_URL": "x",
        "AGENTSIGHT_API_KEY": "x",
        "AGENTSIGHT_PORT": "1",
        "HOME": "/",
    }
    assert unknown_variables(environ) == ["AGENTSIGHT_DATABSE_URL"]


def test_every_setting_is_described() -> None:
    """The rows of the documentation cover the struct, with a variable and words each."""
    rows = describe_settings()
    assert [row.name for row in rows] == list(Settings.__struct_fields__)
    assert all(row.variable == f"AGENTSIGHT_{row.name.upper()}" for row in rows)
    assert all(row.text.endswith(".") and row.type for row in rows)
    by_name = {row.name: row for row in rows}
    assert by_name["max_file_bytes"].default == "1 GiB"
    assert by_name["max_file_bytes"].unit == "bytes"
    assert by_name["data_dir"].flag == "--data"
    assert by_name["geoip"].default == "on"


def test_importing_settings_is_cheap() -> None:
    """Neither the framework nor a database driver comes with the settings."""
    code = "import sys, agentsight.server.settings; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert not loaded & {"litestar", "asyncpg", "sqlite3", "asyncio", "jinja2", "dataclasses"}


@pytest.mark.parametrize("url", ["s3://bucket", "s3://my.bucket-1/some/Prefix_2", "s3://bucket/"])
def test_a_bucket_may_be_named_with_a_folder(url: str) -> None:
    """Object storage is a bucket, or a folder in one; a slash at its end says nothing."""
    assert load_settings({"AGENTSIGHT_STORAGE_URL": url}).storage_url == url.rstrip("/")


def test_redirecting_downloads_needs_object_storage() -> None:
    """A directory has no door of its own to send anybody to."""
    environ = {"AGENTSIGHT_DOWNLOADS": "redirect"}
    with pytest.raises(SettingsError, match="AGENTSIGHT_DOWNLOADS: redirect works only with s3://"):
        load_settings(environ)
    assert load_settings({**environ, "AGENTSIGHT_STORAGE_URL": "s3://bucket"}).downloads


def test_a_file_must_fit_into_the_parts_of_an_object() -> None:
    """What an object store could never take is refused at the start and not at its last byte."""
    environ = {"AGENTSIGHT_MAX_FILE_BYTES": "100 GiB"}
    assert load_settings(environ).max_file_bytes == 100 << 30
    with pytest.raises(SettingsError, match="AGENTSIGHT_MAX_FILE_BYTES: must be at most"):
        load_settings({**environ, "AGENTSIGHT_STORAGE_URL": "s3://bucket"})
    assert MAX_S3_FILE_BYTES == MAX_OBJECT_BYTES
