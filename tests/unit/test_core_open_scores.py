"""`open_probability()`: when the open model is asked about a user, and what then stays in the row."""

from __future__ import annotations

import pytest

from app.core.history import Windows
from app.core.open_scores import ACTIVE_MS
from app.core.plan import Plan
from app.core.processor import make_index
from app.core.scores import score_of
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from schemas.events import NOTIFICATION_OPENED
from tests.support.plans import DAY, HOUR, FixedScorer
from tests.support.streams import START, Stream, track

POLICY = """
version: "1"
name: shop
defaults: {{consent: assumed, label_horizon: 6h}}
segments:
  - {{name: openers, when: {when}}}
campaigns:
  - name: cart
    category: sales
    trigger: {{event: Product Added}}
    template: {{title: Hello, body: World, deep_link: shop://cart}}
  - name: digest
    category: news
    trigger: {{event: Digest Due}}
    template: {{title: Hello, body: World, deep_link: shop://news}}
  - name: receipt
    category: service
    transactional: true
    trigger: {{event: Order Completed}}
    template: {{title: Hello, body: World, deep_link: shop://orders}}
"""
ALL = "open_probability() >= 0.3"


def plan(when: str = ALL) -> Plan:
    return load_policy_text(POLICY.format(when=when))


def scores(user: Stream) -> dict[str, float]:
    return user.row.propensity.scores if user.row.propensity is not None else {}


def entered(user: Stream) -> list[tuple[str, str]]:
    return [(change.change, change.cause) for change in user.changes]


def test_a_user_is_scored_at_their_first_event_by_the_mean_over_the_campaigns_that_are_not_transactional() -> None:
    user = Stream(plan(), FixedScorer(by_campaign={"cart": 0.5, "digest": 0.2, "receipt": 0.9}))
    user.send(track("Product Viewed", START))
    assert scores(user) == {"open()": 0.35}
    assert entered(user) == [("enter", "event")]


@pytest.mark.parametrize(("name", "score"), [("cart", 0.5), ("news", 0.2), ("receipt", 0.9)])
def test_a_campaign_or_a_category_is_asked_about_by_name(name: str, score: float) -> None:
    user = Stream(
        plan(f'open_probability("{name}") > 0.1'),
        FixedScorer(by_campaign={"cart": 0.5, "digest": 0.2, "receipt": 0.9}),
    )
    user.send(track("Product Viewed", START))
    assert scores(user) == {f"open({name})": score}


def test_another_model_changes_nothing_until_the_users_next_look_which_comes_by_the_clock() -> None:
    model = FixedScorer(0.1)
    user = Stream(plan(), model)
    user.send(track("Product Viewed", START))
    model.default = 0.8
    user.at(HOUR).send(track("Product Viewed", START + HOUR))
    assert scores(user) == {"open()": 0.1}
    look = user.row.due_ms()
    assert START < look <= START + DAY
    user.at(look - START).fire()
    assert (scores(user), entered(user)) == ({"open()": 0.8}, [("enter", "clock")])


def test_an_open_has_the_user_scored_and_judged_in_the_same_event() -> None:
    model = FixedScorer(0.1)
    user = Stream(plan(), model)
    user.send(track("Product Viewed", START))
    model.default = 0.4
    user.at(HOUR).send(track(NOTIFICATION_OPENED, START + HOUR))
    assert entered(user) == [("enter", "event")]


def test_an_ignored_notification_has_the_user_scored_and_judged_when_its_horizon_has_passed() -> None:
    model = FixedScorer(0.4)
    user = Stream(plan(), model)
    user.send(track("Product Added", START))
    (sent,) = user.sends
    user.send(track("Notification Sent", START, decisionId=sent.id))
    model.default = 0.1
    user.at(6 * HOUR).fire()
    assert entered(user) == [("enter", "event"), ("leave", "clock")]


def test_a_user_who_does_nothing_any_more_keeps_the_score_and_no_timer() -> None:
    user = Stream(plan())
    user.send(track("Product Viewed", START))
    while (due := user.row.due_ms()) <= START + ACTIVE_MS + 3 * DAY:
        user.at(due - START).fire()
    assert user.row.timers == []
    assert scores(user) == {"open()": 0.3}
    user.at(60 * DAY).send(track("Product Viewed", START + 60 * DAY))
    assert len(user.row.timers) == 1


def test_a_replayed_event_asks_no_model() -> None:
    model = FixedScorer(0.1)
    user = Stream(plan(), model)
    user.send(track("Product Viewed", START))
    model.default = 0.9
    user.process(user.log)
    assert scores(user) == {"open()": 0.1}
    assert user.changes == []


def test_a_model_that_gives_no_number_leaves_the_score_out() -> None:
    user = Stream(plan(), FixedScorer(float("nan")))
    user.send(track("Product Viewed", START))
    assert scores(user) == {}
    assert score_of(user.row, "open()") is None
    assert user.changes == []


def test_a_policy_that_does_not_ask_keeps_nothing() -> None:
    user = Stream(plan("orders() > 3"))
    user.send(track("Product Viewed", START))
    assert user.row.propensity is None
    assert user.row.timers == []


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(PolicyErrors, match=r"no campaign and no category is called 'cort'; did you mean 'cart'\?"):
        plan('open_probability("cort") > 0.2')


def test_a_policy_that_begins_to_ask_reaches_users_who_do_nothing_by_the_sweep() -> None:
    user = Stream(plan("orders() > 3"))
    user.send(track("Product Viewed", START))
    new = plan()
    user.processor.switch(make_index(new))
    user.processor.sweep(user.rows, user.rows, Windows(), now_ms=START + HOUR, mark=1, acked_offset=0)
    assert scores(user) == {"open()": 0.3}
    assert set(user.row.segments) == {new.segments[0].id}
    assert user.row.due_ms() <= START + HOUR + DAY
