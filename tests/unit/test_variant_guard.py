"""From opt-outs to a variant that nobody gets any more: worker, learner, snapshot, worker."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from agents.learner import LearnerService, _Partition
from app.core.campaign import Campaign
from app.metrics import Metrics
from app.model_feed import ModelFeed
from app.settings import load_settings
from schemas.events import NOTIFICATION_OPENED, NOTIFICATION_SENT, NOTIFICATIONS_DISABLED
from schemas.topics import OUTCOMES
from tests.support.plans import DAY, HOUR, MINUTE, campaign, make_plan, on_event, variant
from tests.support.streams import START, Stream, track

SETTINGS = load_settings(profile="dev", broker="127.0.0.1:1")


class World:
    """A partition, the learner, and the topic between them."""

    def __init__(self, part: Campaign) -> None:
        self.stream = Stream(make_plan(campaigns=[part], label_horizon_ms=HOUR))
        self.metrics = Metrics(CollectorRegistry())
        self.feed = ModelFeed(self.stream.processor, SETTINGS, self.metrics)
        self.learned = 0
        self.learning = _Partition(0)
        app: Any = SimpleNamespace(durable_producer=self, client_settings={})
        observer: Any = SimpleNamespace(learned=lambda _learner: None, refused=lambda _reason: None)
        self.service = LearnerService(app, SETTINGS.secret_bytes(), observer, lambda: START + 9 * DAY, interval_s=1.0)
        self.service._partitions[0] = self.learning

    async def send(self, _topic: str, _key: bytes, value: bytes) -> None:
        self.feed.apply(None, value, 0)

    async def round(self, at_ms: int, users: list[str], leaving: str) -> set[str]:
        """Everybody is sent something; of those shown `leaving` half leave. What was shown."""
        stream, before = self.stream, len(self.stream.sends)
        stream.at(at_ms).send(*[track("Go", START + at_ms, user=user) for user in users])
        made = stream.sends[before:]
        for at, decision in enumerate(made):
            of = {"user": decision.user, "decisionId": decision.id}
            stream.at(at_ms + MINUTE).send(track(NOTIFICATION_SENT, START + at_ms, **of))
            stream.send(track(NOTIFICATION_OPENED, START + at_ms + 1, **of))
            if decision.variant == leaving and at % 2:
                stream.send(track(NOTIFICATIONS_DISABLED, START + at_ms + MINUTE, **of))
        stream.at(at_ms + 2 * HOUR).fire()
        outcomes = [output for output in stream.outputs if output.topic == OUTCOMES]
        for offset, output in enumerate(outcomes[self.learned :], self.learned):
            self.service._learn(self.learning, SimpleNamespace(value=output.value, offset=offset))
        self.learned = len(outcomes)
        await self.service._publish_choices(self.learning, 0)
        return {decision.variant for decision in made}


async def test_a_variant_that_drives_people_away_is_shown_to_nobody_and_the_reason_is_said() -> None:
    for choose in ("fixed", "contextual"):
        part = campaign(
            "hello",
            on_event("Go"),
            variants=(variant("bad"), variant("good")),
            choose=choose,
            explore=0.5,
            opt_out_limit=0.01,
        )  # type: ignore[arg-type]
        world = World(part)
        with capture_logs() as logs:
            assert await world.round(0, [f"u{n}" for n in range(80)], "bad") == {"bad", "good"}
        assert await world.round(DAY, [f"v{n}" for n in range(40)], "bad") == {"good"}
        (stop,) = [entry for entry in logs if entry["event"] == "variant_stopped"]
        assert (stop["campaign"], stop["variant"], stop["limit"]) == ("hello", "bad", 0.01)
        assert stop["opt_outs"] > 0.1 * stop["sends"]
        assert world.metrics.registry.get_sample_value("nudge_variants_stopped") == 1.0
        assert await world.round(2 * DAY, [f"w{n}" for n in range(60)], "good") == {"good"}
        assert await world.round(3 * DAY, ["x1", "x2"], "") == set()
        assert world.stream.reasons[-2:] == ["no_variant", "no_variant"], "all of them were stopped"
