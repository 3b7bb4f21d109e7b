"""Fixtures and hooks for all tests."""

from hypothesis import settings

from tests.support.broker import broker, embedded, kafka, unique
from tests.support.parallel import pytest_collection_modifyitems, pytest_xdist_auto_num_workers
from tests.support.site import site

__all__ = [
    "broker",
    "embedded",
    "kafka",
    "pytest_collection_modifyitems",
    "pytest_xdist_auto_num_workers",
    "site",
    "unique",
]

settings.register_profile("nudge", deadline=None)  # 200 ms an example are soon gone on a busy machine
settings.load_profile("nudge")
