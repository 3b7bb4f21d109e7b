"""Fixtures and hooks for all tests."""

import logging
from collections.abc import Iterator

import pytest
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


@pytest.fixture(autouse=True)
def no_handler_outlives_its_test() -> Iterator[None]:
    """A command that sets up logs writes to a stream that is closed with its test: whoever logs next would say so."""
    yield
    root = logging.getLogger()
    root.handlers[:] = [handler for handler in root.handlers if type(handler) is not logging.StreamHandler]
