"""What all tests of proxies share: one certificate."""

from __future__ import annotations

import pytest

from tests.support.proxies import Certificate, make_certificate


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """Make one self-signed certificate for all proxies."""
    return make_certificate(tmp_path_factory.mktemp("certificate"))
