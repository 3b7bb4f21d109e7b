"""Fixtures for all tests."""

from tests.support.broker import broker, embedded, kafka, unique
from tests.support.site import site

__all__ = ["broker", "embedded", "kafka", "site", "unique"]
