"""The one call once more, with the bytes in a bucket: streamed, and by redirect.

The tests are those of `test_attachments.py`; only the server is another one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.test_attachments import (
    test_a_deleted_conversation_keeps_its_files_for_those_who_know_its_number,
    test_an_empty_file_is_a_file,
    test_both_senders_linked_and_alone,
    test_every_file_comes_back_by_its_link,
    test_names_survive_or_are_mended,
    test_the_permanent_address_asks_for_a_key,
    test_twelve_files_keep_their_order,
)
from tests.support.seaweed import Seaweed
from tests.support.server import LiveServer
from tests.support.soak import only_in_soak

__all__ = [
    "test_a_deleted_conversation_keeps_its_files_for_those_who_know_its_number",
    "test_an_empty_file_is_a_file",
    "test_both_senders_linked_and_alone",
    "test_every_file_comes_back_by_its_link",
    "test_names_survive_or_are_mended",
    "test_the_permanent_address_asks_for_a_key",
    "test_twelve_files_keep_their_order",
]


@pytest.fixture(scope="module", params=["stream", pytest.param("redirect", marks=only_in_soak)])
def s3_server(
    request: pytest.FixtureRequest, seaweed: Seaweed, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """Run one server on a bucket for this file's tests."""
    place = {"AGENTSIGHT_STORAGE_URL": seaweed.new_url(), "AGENTSIGHT_DOWNLOADS": request.param}
    directory = tmp_path_factory.mktemp("s3-server")
    with LiveServer(directory, settings=seaweed.environ | place) as running:
        yield running


@pytest.fixture
def server(s3_server: LiveServer) -> Iterator[LiveServer]:
    """Stand in for the servers with a directory; a failed test shows what it wrote."""
    mark = s3_server.log_mark()
    yield s3_server
    print(s3_server.log_since(mark))
