from collections import Counter
from random import Random

import pytest

from app.demo.faults import _KINDS, Shares, broken_record
from app.demo.simulate import Crowd, Load, Mix
from schemas.events import Rejected, decode_event, epoch_ms

NOW_MS = 1_700_000_000_000
CLEAN = Shares(late=0.0, duplicate=0.0, malformed=0.0)


def decoded(crowd: Crowd, number: int):
    return [decode_event(value, key) for key, value in crowd.messages(number, NOW_MS)]


def test_messages_are_valid_and_in_the_stated_mix():
    events = decoded(Crowd(100, 1, Mix(view=3, cart=1, purchase=0, open=0, click=0, dismiss=0, opt_out=0), CLEAN), 4000)
    assert not any(isinstance(event, Rejected) for event in events)
    names = Counter(event.event for event in events)
    assert set(names) == {"Product Viewed", "Product Added"}
    assert names["Product Viewed"] / 4000 == pytest.approx(0.75, abs=0.03)
    assert len({event.message_id for event in events}) == 4000


def test_faults_come_in_the_stated_shares():
    crowd = Crowd(100, 1, Mix(), Shares(late=0.1, duplicate=0.05, malformed=0.04))
    records = [record for _ in range(10) for record in crowd.messages(1000, NOW_MS)]
    assert len(records) == 10_000
    events = [event for key, value in records if not isinstance(event := decode_event(value, key), Rejected)]
    messages = Counter(event.message_id for event in events)
    late = sum(event.timestamp is not None and epoch_ms(event.timestamp) < NOW_MS for event in events)
    assert crowd.kinds["malformed"] / 10_000 == pytest.approx(0.04, abs=0.01)
    assert sum(messages.values()) - len(messages) == pytest.approx(500, abs=100)
    assert late / 10_000 == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("number", [1, 7, 1000])
def test_what_is_reported_is_what_was_made(number):
    crowd = Crowd(10, 1, Mix(), Shares(late=0.1, duplicate=0.5, malformed=0.1))
    records = crowd.messages(number, NOW_MS)
    assert len(records) == number
    assert crowd.kinds.total() - crowd.kinds["late"] == number


def test_the_same_seed_makes_the_same_messages():
    assert Crowd(10, 1, Mix(), Shares()).messages(50, NOW_MS) == Crowd(10, 1, Mix(), Shares()).messages(50, NOW_MS)
    assert Crowd(10, 1, Mix(), Shares()).messages(50, NOW_MS) != Crowd(10, 2, Mix(), Shares()).messages(50, NOW_MS)


def test_everybody_is_introduced_with_consent():
    events = [decode_event(value, key) for key, value in Crowd(5, 1, Mix(), CLEAN).introductions(NOW_MS)]
    assert [event.traits["push_consent"] for event in events] == [True] * 5


@pytest.mark.parametrize("kind", _KINDS)
def test_every_kind_of_broken_record_is_refused_or_out_of_time(kind):
    event = decode_event(kind("u", NOW_MS), b"u")
    if not isinstance(event, Rejected):
        assert abs(epoch_ms(event.timestamp) - NOW_MS) >= 365 * 86_400_000


def test_broken_records_are_of_every_kind():
    rng = Random(1)
    reasons = set()
    for _ in range(500):
        key, value = broken_record(rng, "u", NOW_MS)
        event = decode_event(value, key)
        reasons.add(event.reason if isinstance(event, Rejected) else "time")
    assert len(reasons) >= 8


@pytest.mark.parametrize(
    "arguments", [{}, {"seconds": 1, "rate": -1.0}, {"seconds": 1, "users": 0}], ids=["endless", "rate", "users"]
)
def test_a_load_that_makes_no_sense_is_refused(arguments):
    with pytest.raises(ValueError, match=r"rate=|seconds"):
        Load(**arguments)


def test_weights_and_shares_are_checked():
    with pytest.raises(ValueError, match="weights"):
        Mix(view=-1.0)
    with pytest.raises(ValueError, match="late"):
        Shares(late=1.5)
