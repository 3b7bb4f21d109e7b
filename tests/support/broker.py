"""Fixtures: a broker for tests. Import them in a conftest.py: `from tests.support.broker import *`.

`broker` is the embedded one, and also real Apache Kafka where NUDGE_TEST_KAFKA=host:port is set; `embedded` and
`kafka` are one of them each. Several addresses, with spaces between, are one for each process of pytest-xdist. Topic
names are the caller's to make unique: a real broker keeps what earlier runs left.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest

from app.embedded import BrokerUnavailable, EmbeddedBroker
from tests.support.parallel import kafka_address

__all__ = ["broker", "embedded", "kafka", "unique"]

KAFKA = os.environ.get("NUDGE_TEST_KAFKA", "")


@pytest.fixture
def unique() -> str:
    """A prefix for topic and group names."""
    return f"t{uuid.uuid4().hex[:10]}-"


@pytest.fixture
def embedded() -> Iterator[EmbeddedBroker]:
    """A running, empty embedded broker."""
    broker = EmbeddedBroker()
    try:
        broker.start()
    except BrokerUnavailable as exc:
        pytest.skip(str(exc))
    yield broker
    broker.stop()


@pytest.fixture
def kafka() -> str:
    """Bootstrap address of real Apache Kafka."""
    if not KAFKA:
        pytest.skip("NUDGE_TEST_KAFKA=host:port is not set")
    return kafka_address(KAFKA)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def broker(request: pytest.FixtureRequest) -> str:
    """Bootstrap address: each test runs on the embedded broker and, where there is one, on real Kafka."""
    found = request.getfixturevalue(request.param)
    return found.bootstrap if isinstance(found, EmbeddedBroker) else str(found)
