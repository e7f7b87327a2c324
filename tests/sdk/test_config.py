"""Settings: where they come from, what they may be, and that keys are not shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentsight import AgentSightAPI, ConversationManager, ConversationTracker
from agentsight.config import Config
from agentsight.enums import Environment, LogLevel, TokenHandlerType
from agentsight.exceptions import InvalidApiKeyException, NoApiKeyException
from tests.sdk.support import KEY

CLIENTS = [AgentSightAPI, ConversationManager, ConversationTracker]


@pytest.mark.parametrize("client", CLIENTS)
def test_constructing_without_a_key_raises_at_once(client: type) -> None:
    """There is nothing to wait for."""
    with pytest.raises(NoApiKeyException, match="AGENTSIGHT_API_KEY"):
        client()


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("key", ["ags_secret", " " + KEY, KEY + "\n", KEY + "0", "sk-secretsecret"])
def test_a_malformed_key_is_refused_without_being_shown(client: type, key: str) -> None:
    """Exceptions end in logs and tickets."""
    with pytest.raises(InvalidApiKeyException) as caught:
        client(api_key=key)
    assert key.strip() not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "`agentsight keys create --agent SLUG --role write`" in str(caught.value)
    assert "http" not in str(caught.value)  # the endpoint makes no keys


def test_hexadecimal_digits_may_be_upper_case() -> None:
    """The published client accepts them."""
    assert Config(api_key=KEY.upper().replace("AGS_", "ags_")).api_key


def test_a_blank_key_is_no_key() -> None:
    """An empty variable in a compose file is not a key."""
    assert Config(api_key="  ").api_key is None


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting of the SDK in docs/settings.md."""
    monkeypatch.setenv("AGENTSIGHT_API_KEY", KEY)
    monkeypatch.setenv("AGENTSIGHT_API_ENDPOINT", "https://agents.example/")
    monkeypatch.setenv("AGENTSIGHT_ENVIRONMENT", "staging")
    monkeypatch.setenv("AGENTSIGHT_LOG_LEVEL", "debug")
    monkeypatch.setenv("AGENTSIGHT_CONVERSATION_ID", "conv-1")
    monkeypatch.setenv("AGENTSIGHT_SPOOL_DIR", "/var/spool/x")
    monkeypatch.setenv("AGENTSIGHT_TOKEN_HANDLER_TYPE", "langchain")
    assert Config().dict() == {
        "api_key": KEY,
        "endpoint": "https://agents.example/",
        "app_url": "https://agents.example/",
        "environment": "staging",
        "conversation_id": "conv-1",
        "token_handler": TokenHandlerType.LANGCHAIN,
        "log_level": LogLevel.DEBUG,
        "spool_dir": "/var/spool/x",
    }


def test_the_default_endpoint_is_this_machine() -> None:
    """Data never leaves by default."""
    assert Config().endpoint == "http://127.0.0.1:8000"


def test_an_environment_enum_becomes_its_value() -> None:
    """The published client could not send it."""
    config = Config(environment=Environment.PRODUCTION)
    assert '"environment": "production"' in config.json()


def test_a_refused_change_changes_nothing() -> None:
    """Half a change would be worse than none."""
    config = Config(api_key=KEY)
    with pytest.raises(ValueError, match="http://"):
        config.configure(environment="production", endpoint="agents.example")
    assert config == Config(api_key=KEY)


def test_a_config_s_repr_hides_the_key() -> None:
    """It ends in logs."""
    assert KEY not in repr(Config(api_key=KEY))


def test_an_unknown_setting_is_named_with_those_there_are() -> None:
    """A misspelt setting must not be ignored."""
    with pytest.raises(TypeError, match=r"unknown setting api_kay; there are api_key, endpoint"):
        AgentSightAPI(api_kay=KEY)


def test_two_clients_have_two_settings() -> None:
    """The published client had one tenant a process."""
    other = KEY.replace("0123", "aaaa")
    first = AgentSightAPI(KEY, "http://127.0.0.1:1")
    second = AgentSightAPI(other, "http://127.0.0.1:2")
    assert (first.config.api_key, first.config.endpoint) == (KEY, "http://127.0.0.1:1")
    assert (second.config.api_key, second.config.endpoint) == (other, "http://127.0.0.1:2")


@pytest.mark.parametrize("client", CLIENTS)
def test_configure_refuses_to_take_the_key_away(client: type) -> None:
    """As in the published client."""
    with pytest.raises(NoApiKeyException, match="cannot be None"):
        client(KEY).configure(api_key=None)


def test_a_default_instance_asks_for_its_key_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And finds what was set after the import."""
    api = AgentSightAPI.default_instance()
    with pytest.raises(NoApiKeyException):
        api.fetch_conversation(1)
    monkeypatch.setenv("AGENTSIGHT_API_KEY", KEY)
    assert api.config.api_key == KEY


def test_a_default_instance_may_be_told_its_settings_one_by_one() -> None:
    """`configure(endpoint=…)` before `configure(api_key=…)` is no error."""
    api = AgentSightAPI.default_instance()
    api.configure(endpoint="http://127.0.0.1:9")
    api.configure(api_key=KEY)
    assert (api.config.api_key, api.config.endpoint) == (KEY, "http://127.0.0.1:9")


def test_a_dotenv_file_is_read_on_first_use_where_no_key_is_set(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As the published client did at import."""
    monkeypatch.setenv("AGENTSIGHT_API_KEY", "")  # so that monkeypatch removes what is loaded
    monkeypatch.delenv("AGENTSIGHT_API_KEY")
    (tmp_path / ".env").write_text(f"AGENTSIGHT_API_KEY={KEY}\n")
    assert AgentSightAPI().config.api_key == KEY


def test_a_dotenv_file_is_not_read_where_a_key_is_set(tmp_path: Path) -> None:
    """What is given counts."""
    (tmp_path / ".env").write_text("AGENTSIGHT_API_ENDPOINT=http://127.0.0.1:7\n")
    assert AgentSightAPI(KEY).config.endpoint == "http://127.0.0.1:8000"


def test_log_level_argument_sets_the_logger_s_level() -> None:
    """In the published client it did nothing."""
    import logging

    logger = logging.getLogger("agentsight")
    before = logger.level
    try:
        ConversationTracker(KEY, log_level="ERROR")
        assert logger.level == logging.ERROR
        assert logger.handlers == []
    finally:
        logger.setLevel(before)
