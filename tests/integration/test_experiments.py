"""Reports and evaluations read the topics themselves."""

from __future__ import annotations

import msgspec
import pytest

from schemas.decisions import Decision
from schemas.events import Event
from schemas.outcomes import Outcome, encode_outcome
from schemas.topics import OUTCOMES
from tests.support.site import Site

pytestmark = pytest.mark.broker

T0 = 1_772_442_000_000
HOUR = 3_600_000
POLICY = """
version: '1'
name: b
campaigns:
  - name: hello
    category: promo
    trigger: {event: Go}
    choose: thompson
    variants:
      - {name: plain, title: a, body: b}
      - {name: warm, title: a, body: b}
"""


def decision(n: int) -> Decision:
    return Decision(
        id=f"d{n}", user=f"u{n}", action="send", campaign="hello", category="promo", decided_ms=T0,
        variant="warm" if n % 2 else "plain", propensity=0.5,
    )  # fmt: skip


def opened(n: int) -> Event:
    return Event(
        type="track",
        event="Notification Opened",
        user_id=f"u{n}",
        message_id=f"o{n}",
        timestamp=T0 + HOUR,
        properties={"decisionId": f"d{n}"},
    )


def outcome(n: int) -> Outcome:
    return Outcome(
        id=f"d{n}", model="open", label=int(n % 4 == 0), features={}, score=0.3, model_version=0, campaign="hello",
        decided_ms=T0, matured_ms=T0 + HOUR, variant="warm" if n % 2 else "plain", propensity=0.5,
    )  # fmt: skip


async def test_what_the_topics_hold_is_reported_and_evaluated(site: Site) -> None:
    await site.decide([decision(n) for n in range(40)])
    clock = Event(type="track", event="Tick", user_id="clock0", message_id="t", timestamp=T0 + 48 * HOUR)
    await site.happen([*[opened(n) for n in range(0, 40, 4)], clock])
    for n in range(40):
        await site.put(OUTCOMES, "model0", encode_outcome(outcome(n)), key=b"open")
    await site.flush()
    made = await site.command("experiments", "report", "--json")
    assert made.returncode == 0, made.stderr
    (report,) = msgspec.json.decode(made.stdout)["reports"]
    assert report["units"] == {"plain": 20, "warm": 20}
    assert report["rates"]["plain"]["open"] == 0.5
    policy = site.directory / "b.yaml"
    policy.write_text(POLICY)
    found = await site.command("evaluate", "--policy", str(policy), "--json")
    assert found.returncode == 0, found.stderr
    (evaluation,) = msgspec.json.decode(found.stdout)["evaluations"]
    assert evaluation["evaluation"]["snips"]["value"] == pytest.approx(0.25)
