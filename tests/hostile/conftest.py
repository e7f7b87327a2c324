"""Hostile requests go to the same shared application as the server's other tests."""

from tests.server.conftest import house, people, shared_house

__all__ = ["house", "people", "shared_house"]
