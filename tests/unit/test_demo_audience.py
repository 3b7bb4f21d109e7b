import random

import pytest

from app.demo.audience import DAY_MS, HOUR_MS, Audience, Fatigue, Sent, meet, open_probability, sent_of
from app.demo.quality import quality_of
from schemas.events import NOTIFICATION_OPENED, Event

MARCH_MS = 1_488_326_400_000  # Wednesday 2017-03-01 00:00 UTC


def sent(number: int, *, user: str = "u", at_ms: int = MARCH_MS + 20 * HOUR_MS) -> Sent:
    return Sent(f"d{number}", user, "cart", "reminder", "a", at_ms)


def names(answers) -> list[str]:
    return [event.event for _, event in answers]


def test_a_person_is_the_same_whenever_met():
    assert meet("household-1", 7) == meet("household-1", 7)
    assert meet("household-1", 7) != meet("household-1", 8)


def test_answers_do_not_depend_on_what_else_was_asked():
    alone = Audience(7).receive(sent(1, user="a"))
    crowd = Audience(7)
    for number in range(50):
        crowd.receive(sent(100 + number, user=f"b{number}"))
    assert crowd.receive(sent(1, user="a")) == alone


def test_the_same_notification_is_noticed_once():
    audience = Audience(7)
    numbers = range(200)
    first = [audience.receive(sent(number, user=f"u{number}")) for number in numbers]
    assert any(first)
    assert not any(audience.receive(sent(number, user=f"u{number}")) for number in numbers)


def test_answers_come_after_the_notification_in_order_and_name_it():
    audience = Audience(7)
    for number in range(500):
        notification = sent(number, user=f"u{number}")
        answers = audience.receive(notification)
        times = [at_ms for at_ms, _ in answers]
        assert times == sorted(times)
        for at_ms, event in answers:
            assert notification.at_ms < at_ms <= notification.at_ms + DAY_MS
            assert event.timestamp == at_ms
            if event.event.startswith("Notification "):
                assert event.properties["decisionId"] == notification.decision_id


def test_a_click_needs_an_open_and_an_opt_out_a_dismissal():
    audience = Audience(7)
    seen = set()
    for number in range(4000):
        found = names(audience.receive(sent(number, user=f"u{number % 40}", at_ms=MARCH_MS + number * HOUR_MS // 10)))
        seen.update(found)
        assert ("Notification Clicked" in found) <= (NOTIFICATION_OPENED in found)
        assert ("Notifications Disabled" in found) <= ("Notification Dismissed" in found)
        assert not {NOTIFICATION_OPENED, "Notification Dismissed"} <= set(found)
    assert {"Notification Clicked", "Notifications Disabled"} <= seen


def test_fatigue_lowers_the_probability_and_fades():
    person = meet("u", 7)
    fatigue = Fatigue()
    fresh = open_probability(person, sent(1), fatigue.felt(0), 7)
    for _ in range(5):
        fatigue.add(MARCH_MS)
    tired = open_probability(person, sent(1), fatigue.felt(MARCH_MS), 7)
    rested = open_probability(person, sent(1), fatigue.felt(MARCH_MS + 14 * DAY_MS), 7)
    assert tired < fresh / 2
    assert rested == pytest.approx(fresh, rel=0.01)


def test_the_favourite_hour_is_in_the_persons_own_time_zone():
    for number in range(50):
        person = meet(f"u{number}", 7)
        chances = [open_probability(person, sent(1, at_ms=MARCH_MS + hour * HOUR_MS), 0.0, 7) for hour in range(24)]
        best_utc = chances.index(max(chances))
        behind = {"New_York": 5, "Chicago": 6, "Denver": 7, "Los_Angeles": 8}[person.timezone.split("/")[1]]
        distance = (best_utc - behind - person.favourite_hour + 12) % 24 - 12
        assert abs(distance) <= 0.5


def test_opens_can_be_learned_but_not_foretold():
    audience, rng = Audience(7), random.Random(1)
    examples = []
    for number in range(6000):
        at_ms = MARCH_MS + number * 20 * DAY_MS // 6000
        notification = sent(number, user=f"u{rng.randrange(800)}", at_ms=at_ms)
        opened = NOTIFICATION_OPENED in names(audience.receive(notification))
        examples.append((audience.truth[notification.decision_id], int(opened)))
    quality = quality_of(examples)
    assert quality.auc is not None
    assert 0.75 < quality.auc < 0.88
    assert quality.calibration_ratio == pytest.approx(1.0, abs=0.06)


def test_a_receipt_without_a_decision_is_nobodys():
    assert sent_of(Event(type="track", event="Notification Sent", user_id="u"), 1) is None
    event = Event(type="track", event="Notification Sent", user_id="u", properties={"decisionId": "d", "campaign": "c"})
    assert sent_of(event, 5) == Sent("d", "u", "c", "", "", 5)
