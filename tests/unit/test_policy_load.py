"""Policy files: what a good one becomes, and where a bad one is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent

import pytest

from app.core.campaign import Novelty, Reward, SendTime
from app.core.plan import AdaptiveCaps, Plan, event_id
from app.core.profile import Profile
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy, load_policy_text
from app.policy.schema import policy_schema

POLICIES = Path(__file__).parents[2] / "policies"
NOW = 1_700_000_000_000
DAY = 86_400_000


def lines_of(text: str) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        load_policy_text(dedent(text).lstrip("\n"), "p.yaml")
    return str(caught.value).splitlines()


def plan_of(text: str) -> Plan:
    return load_policy_text("version: '1'\nname: test\n" + dedent(text))


@pytest.mark.parametrize("name", ["shop", "news"])
def test_the_shipped_policies_load(name: str) -> None:
    plan = load_policy(POLICIES / f"{name}.yaml")
    assert len(plan.segments) >= 8
    assert {campaign.trigger.kind for campaign in plan.campaigns} >= {"event", "absence", "dormancy", "enter"}
    assert plan.version.startswith("1+")


def test_the_shop_says_every_message_for_someone_of_whom_nothing_is_known() -> None:
    for name in ("shop", "news"):
        for campaign in load_policy(POLICIES / f"{name}.yaml").campaigns:
            for variant in campaign.variants:
                content = variant.render({"user": {}, "event": {}, "profile": {}, "campaign": {}})
                assert content.title, campaign.name
                assert content.body, campaign.name
                assert "{" not in content.title + content.body + content.deep_link


def test_defaults_and_their_units_reach_the_plan() -> None:
    plan = load_policy(POLICIES / "shop.yaml")
    assert plan.quiet_hours is not None
    assert (plan.quiet_hours.start_minute, plan.quiet_hours.end_minute) == (22 * 60, 8 * 60)
    assert [(cap.limit, cap.window_ms, cap.category) for cap in plan.caps][:3] == [
        (2, DAY, ""), (5, 7 * DAY, ""), (1, 7 * DAY, "winback"),
    ]  # fmt: skip
    assert (plan.holdout_share, plan.consent_required, plan.default_timezone) == (0.05, True, "America/New_York")
    assert plan.rfm.frequency == (3, 5, 9, 16)


def test_an_event_touches_only_what_it_can_change() -> None:
    plan = plan_of(
        """
        segments:
          - {name: lookers, when: 'count("Viewed", "1h") >= 3 and not did("Bought", "1h")'}
          - {name: rich, when: 'trait("income") == "high"'}
          - {name: rich_lookers, when: 'in_segment("rich") and in_segment("lookers")'}
          - {name: mornings, when: 'hour() < 9'}
        campaigns:
          - name: cart
            category: cart
            trigger: {absence: {after: Added, without: [Bought], for: 15m, key: cart_id}}
            template: {title: t, body: b}
        """.replace(", where: null", "")
    )
    viewed = plan.events["Viewed"]
    assert [segment.name for segment in viewed.segments] == ["lookers", "mornings", "rich_lookers"]
    assert [feature.event for feature in viewed.features] == ["Viewed"]
    assert [segment.name for segment in plan.other.segments] == ["mornings"]
    assert [segment.name for segment in plan.on_traits.segments] == ["rich", "mornings", "rich_lookers"]
    assert [campaign.name for campaign in plan.events["Added"].triggers] == ["cart"]
    assert [campaign.name for campaign in plan.events["Bought"].cancels] == ["cart"]
    assert {segment.name for segment in plan.segments if segment.reads_clock} == {"lookers", "rich_lookers", "mornings"}


def test_segments_are_evaluated_after_those_that_they_name() -> None:
    plan = plan_of("""
        segments:
          - {name: c, when: 'in_segment("b")'}
          - {name: b, when: 'not in_segment("a")'}
          - {name: a, when: 'orders() > 1'}
        """)
    assert [segment.name for segment in plan.segments] == ["a", "b", "c"]
    assert plan.segments[2].evaluate(Profile(orders=1), NOW, "u")
    assert not plan.segments[2].evaluate(Profile(orders=2), NOW, "u")


def test_an_audience_brings_the_features_and_events_that_it_reads() -> None:
    plan = plan_of("""
        campaigns:
          - name: x
            category: x
            trigger: {dormancy: {for: 48h}}
            audience: count("Viewed", "7d") > 2 and did("Opened")
            template: {title: t, body: b}
        """)
    assert [feature.event for feature in plan.events["Viewed"].features] == ["Viewed"]
    assert "Opened" in plan.events
    assert [campaign.name for campaign in plan.other.triggers] == ["x"]
    audience = plan.campaigns[0].audience
    assert audience is not None
    feature = plan.features[0]
    profile = Profile(last={event_id("Opened"): NOW}, features={feature.id: [3, NOW // DAY, 3]})
    assert audience(profile, NOW, "u")


def test_the_version_changes_with_the_content() -> None:
    one, other = plan_of("segments: []"), plan_of("segments: [] ")
    assert one.version != other.version
    assert one.version == plan_of("segments: []").version


def test_scalars_mean_what_they_look_like() -> None:
    plan = plan_of("""
        defaults: {quiet_hours: {start: 22:00, end: 7:30}, holdout: {share: 2.5%}, suppressed_share: 0.1}
        traits: {on: {default: off}, zip: {default: "01234"}}
        segments: [{name: s, when: 'on == "off" and zip == "01234"'}]
        """)
    assert plan.quiet_hours is not None
    assert (plan.quiet_hours.start_minute, plan.quiet_hours.end_minute) == (1320, 450)
    assert plan.holdout_share == 0.025
    assert plan.segments[0].evaluate(Profile(), NOW, "u")


def test_every_mistake_of_a_file_is_reported_with_its_place_and_what_was_meant() -> None:
    found = lines_of("""
        version: 1
        name: shop
        defaults:
          timezone: Europe/Berln
          caps: [{limit: 1, window: 24h, category: crt}]
          holdout: {share: 200%}
          grace: 24
        segments:
          - name: a
            wen: orders() > 1
            when: orders() > 1
          - name: b
            when: >-
              orders() > 1
              and cuont("X", "7d") > 3
          - {name: c, when: 'in_segment("a") and in_segment("d")'}
        campaigns:
          - name: x
            category: cart
            trigger: {enter: bb}
            template: {title: "Hi {{ uzer.name }}", body: b}
          - name: y
            category: cart
            trigger: {event: A, enter: b}
            template: {title: t, body: b}
        """)
    assert "\n".join(found) == (
        "p.yaml:4:13: defaults.timezone: unknown time zone 'Europe/Berln'; write an IANA name such as "
        "America/New_York; did you mean 'Europe/Berlin'?\n"
        "p.yaml:5:44: defaults.caps[0].category: no campaign has category 'crt'; did you mean 'cart'?\n"
        "p.yaml:6:20: defaults.holdout.share: write a share from 0 to 1, or a percentage such as 5%\n"
        "p.yaml:7:10: defaults.grace: write a duration with its unit, such as '15m', '48h' or '7d'\n"
        "p.yaml:10:5: segments[0].wen: unknown field 'wen'; did you mean 'when'?\n"
        "p.yaml:15:11: segments[1].when: unknown function 'cuont'; did you mean 'count'?\n"
        "p.yaml:16:53: segments[2].when: unknown segment 'd'\n"
        "p.yaml:20:22: campaigns[0].trigger.enter: unknown segment 'bb'; did you mean 'b'?\n"
        "p.yaml:21:30: campaigns[0].template.title: unknown variable 'uzer'; the roots are user, event, profile, "
        "campaign; did you mean 'user'?\n"
        "p.yaml:24:14: campaigns[1].trigger: a trigger is one of event, absence, dormancy, enter, leave, schedule, "
        "price_drop, back_in_stock; this has event and enter"
    )


HEAD = "version: 1\nname: x\n"
CAMPAIGN = "campaigns:\n  - {{name: c, category: k, trigger: {trigger}, template: {template}}}\n"


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("", "1:1", "must be a mapping"),
        ("- 1", "1:1", "must be a mapping"),
        ("a: [1", "1:6", "not YAML"),
        ("a: 1\n\tb: 2", "2:1", "not YAML"),
        ("version: 1\nname: x\nname: y", "3:1", "repeated key 'name'; the first is on line 2"),
        ("version: !!python/object:os.system x", "1:10", "is not allowed"),
        ("version: 1", "1:1", "name: this field is missing"),
        (HEAD + "segmnts: []", "3:1", "did you mean 'segments'?"),
        (HEAD + "segments: {}", "3:11", "must be a list"),
        (HEAD + "segments: [{name: Big Spender, when: orders() > 1}]", "3:19", "lower-case"),
        (HEAD + "segments: [{name: a, when: sent() > 1}, {name: a, when: sent() > 1}]", "3:48", "segments[0] already"),
        (HEAD + "segments: [{name: a, when: in_segment('a')}]", "3:28", "in a circle: a → a"),
        (HEAD + "defaults: {quiet_hours: {start: '9:00', end: '9:00'}}", "3:25", "same time"),
        (HEAD + "defaults: {quiet_hours: {start: '24:00', end: '9:00'}}", "3:33", "not a time of day"),
        (HEAD + "defaults: {rfm: {frequency: [4, 3, 2, 1]}}", "3:17", "must ascend"),
        (HEAD + "defaults: {holdout: {share: 120%}}", "3:29", "share from 0 to 1"),
        (HEAD + "defaults: {grace: 3 fortnights}", "3:19", "is not a duration"),
        (HEAD + "defaults: {consent: maybe}", "3:21", "'required' or 'assumed'"),
        (HEAD + CAMPAIGN.format(trigger="{}", template="{title: t, body: b}"), "4:37", "this has none"),
        (HEAD + CAMPAIGN.format(trigger="{event: A, where: price >}", template="{title: t, body: b}"), "4:61",
         "campaigns[0].trigger.where: not an expression"),
        (HEAD + CAMPAIGN.format(trigger="{event: A}", template="{title: t}"), "4:59", "body: this field is missing"),
        (HEAD + CAMPAIGN.format(trigger="{event: A}", template="{title: t, body: '{{ user.x }}'}"), "4:77", "is empty"),
        (HEAD + CAMPAIGN.format(trigger="{event: A}", template="{title: t, body: b, deep_link: '{{ event.u }}'}"),
         "4:91", "fixed scheme"),
        (HEAD + "events: [Bought]\n" + CAMPAIGN.format(trigger="{event: Bougth}", template="{title: t, body: b}"),
         "5:45", "did you mean 'Bought'?"),
    ],
)  # fmt: skip
def test_a_mistake_names_line_and_column(text: str, place: str, message: str) -> None:
    found = lines_of(text)
    assert any(line.startswith(f"p.yaml:{place}: ") and message in line for line in found), found


def condition(when: str) -> str:
    return HEAD + f"segments:\n  - {{name: loyal, when: orders() > 1}}\n  - name: a\n    when: {json.dumps(when)}"


MISTAKES = {
    # what is written as in other languages
    condition("orders() > 1 && sent() < 3"): "6:25: segments[1].when: not an expression: write 'and'",
    condition("trait('plan') = 'pro'"): "6:26: segments[1].when: not an expression: to compare, write '=='",
    condition("orders() > 1 OR sent() > 2"): "6:25: segments[1].when: not an expression: write 'and', 'or', 'not'",
    condition("since('Order Completed') > 48h"): "6:39: segments[1].when: not an expression: write a duration in",
    # names
    condition("loyal"): "segments[1].when: loyal is a segment: write in_segment('loyal')",
    condition("revenu > 3"): "did you mean 'revenue(...)'?",
    condition("devise == 'ios'"): "did you mean 'device'?",
    # functions
    condition("count('A', '7d', size == 2 and x > 1) > 1"): "a condition is named: write where=size == 2 and x > 1",
    condition("top(orders(), 10)"): "top() needs a percentage first",
    condition("count('A', '7days') > 1"): "'7days' is not a duration: write a number and a unit",
    condition("count('A', '365d') > 1"): "a window is at most 90d; 365d is longer",
    # what is never true
    condition("22 < hour() < 7"): "above 22 and below 7; if it goes past midnight, write hour() >= 22 or hour() < 7",
    condition("open_rate() > 60"): "this is never true: the value is from 0 to 1; write 60 % as 0.6",
    condition("random_bucket('x') > 100"): "this is never true: the value is from 0 to 100",
    condition("open_rate() > 60%"): "0.6 for a score of 60 %",
    condition("count('A', '7d', where section == 'x') > 1"): "a condition is named: write where=...",
    "version: 1\nname: t\nsegments: [{name: a, when: x in ['y']}]": "a text with any of [ ] { } , : # stands in quotes",
    condition("5 > orders() > 5"): "this is never true: nothing is above 5 and below 5",
    # fields
    HEAD + "defaults: {quiet_hours: {from: '22:00', to: '7:00'}}": "unknown field 'from'; did you mean 'start'?",
    HEAD + "defaults: {caps: [{limit: 3, window: 100d}]}": "caps[0].window: this must be less than or equal to 90d",
    HEAD + "defaults: {consent: assume}": "this must be 'required' or 'assumed'; did you mean 'assumed'?",
    HEAD + CAMPAIGN.format(trigger="{price_drop: {}, where: pice > 5}", template="{title: t, body: b}"):
    "4:61: campaigns[0].trigger.where: unknown fact 'pice' of an item; there are category, currency,",
    HEAD + CAMPAIGN.format(trigger="{price_drop: {interest: viewd}}", template="{title: t, body: b}"):
    "did you mean 'viewed'?",
}  # fmt: skip


@pytest.mark.parametrize(("text", "says"), MISTAKES.items())
def test_a_mistake_says_what_to_write_instead(text: str, says: str) -> None:
    found = lines_of(text)
    assert any(says in line for line in found), found


GOOD = [
    "0.5 < open_rate() <= 1", "open_rate() == 0", "open_rate() in [2, 1]", "open_rate() < 2",
    "random_bucket('x') >= 99.9",
    "7 < hour() < 22", "orders() == 5 == 5", "5 <= orders() <= 5", "count('a = b && c', '7d', where=x == 'y|z') > 1",
    "20 > hour() >= 8",
]  # fmt: skip


@pytest.mark.parametrize("when", GOOD)
def test_what_only_looks_like_a_mistake_is_none(when: str) -> None:
    assert load_policy_text(condition(when))


def test_aliases_that_multiply_are_refused() -> None:
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
    )
    assert "too large" in lines_of(bomb)[0]
    assert "too large or too deeply nested" in lines_of("a: &a [*a]")[0]


def test_a_file_that_cannot_be_read_is_named() -> None:
    with pytest.raises(PolicyErrors, match=r"nowhere\.yaml:1:1: the file cannot be read: No such file"):
        load_policy("nowhere.yaml")


def test_the_schema_knows_every_field_of_the_shop() -> None:
    schema = policy_schema()
    assert {"segments", "campaigns", "defaults"} <= set(schema["properties"])
    assert "for" in schema["$defs"]["AbsenceModel"]["properties"]
    assert schema["additionalProperties"] is False


CHOOSING = """
campaigns:
  - name: hello
    category: promo
    trigger: {event: Go}
    experiment: tone
    choose: thompson
    explore: 10%
    novelty: {penalty: 50%, half_life: 7d}
    holdout: 20%
    opt_out_limit: 1%
    variants:
      - {name: plain, title: a, body: b}
      - {name: warm, title: a, body: b, when: 'count("Order Completed", "7d") >= 1'}
"""


def test_how_a_variant_is_chosen_reaches_the_plan() -> None:
    plan = plan_of(CHOOSING)
    (campaign,) = plan.campaigns
    assert (campaign.choose, campaign.explore, campaign.experiment) == ("thompson", 0.1, "tone")
    assert campaign.novelty == Novelty(0.5, 7 * DAY)
    assert (campaign.holdout_share, campaign.opt_out_limit) == (0.2, 0.01)
    plain, warm = campaign.variants
    assert plain.eligible is None
    assert warm.eligible is not None
    assert not warm.eligible(Profile(), NOW, "u")
    assert [feature.event for feature in plan.features] == ["Order Completed"], "what a variant asks for is counted"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("explore: 10%", "explore: 0%", "explore must be above 0"),
        ("choose: thompson", "choose: fixed", "novelty needs choose"),
        ("experiment: tone", "transactional: true", "nobody is held out of a transactional campaign"),
        ("choose: thompson", "choose: best", "must be 'fixed', 'thompson' or 'contextual'"),
        ('count("Order Completed", "7d") >= 1', "cuont() >= 1", "did you mean 'count'"),
    ],
)
def test_a_choice_that_cannot_work_is_refused(old: str, new: str, message: str) -> None:
    (line,) = lines_of("version: '1'\nname: test\n" + CHOOSING.replace(old, new))
    assert message in line


def test_a_choice_needs_variants() -> None:
    text = CHOOSING[: CHOOSING.index("    variants:")] + "    template: {title: a, body: b}\n"
    (line,) = lines_of("version: '1'\nname: test\n" + text)
    assert "needs at least two variants" in line


def test_a_reward_reaches_the_plan() -> None:
    def reward_of(text: str) -> Reward | None:
        return (
            plan_of("defaults: {label_horizon: 6h}\n" + CHOOSING.replace("experiment: tone", text)).campaigns[0].reward
        )

    assert reward_of("reward: open") is None
    assert reward_of("reward: click") == Reward("click", DAY // 4)
    assert reward_of("reward: {kind: open, opt_out_penalty: 3}") == Reward("open", DAY // 4, opt_out_penalty=3.0)
    assert reward_of("reward: conversion") == Reward("conversion", 3 * DAY, event="Order Completed")
    worth = "reward: {kind: conversion, event: Lesson Done, within: 7d, value: total, value_max: 50}"
    assert reward_of(worth) == Reward("conversion", 7 * DAY, event="Lesson Done", value="total", value_max=50.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("reward: open_rate", "must be 'open', 'click' or 'conversion'"),
        ("reward: {kind: click, event: Order Completed}", "belong to kind: conversion, not to click"),
        ("reward: {kind: conversion, value: total}", "value and value_max go together"),
        ("reward: {kind: click, within: 40d}", "less than or equal to 30d"),
        ("reward: {kind: click, opt_out_penalty: -1}", "greater than or equal to 0"),
        ("choose: fixed\n    reward: click", "reward needs choose"),
    ],
)
def test_a_reward_that_cannot_work_is_refused(text: str, message: str) -> None:
    source = CHOOSING.replace("experiment: tone", text)
    if text.startswith("choose"):
        source = "\n".join(line for line in source.splitlines() if "thompson" not in line and "novelty" not in line)
    (line,) = lines_of("version: '1'\nname: test\n" + source + "\n")
    assert message in line


def test_caps_that_adapt_and_hours_that_are_waited_for_reach_the_plan() -> None:
    timed = CHOOSING.replace("experiment: tone", "send_time: {within: 12h, explore: 5%}")
    plan = plan_of("defaults: {adaptive_caps: {floor: 25%, half_life: 7d}}\n" + timed)
    assert plan.adaptive == AdaptiveCaps(0.25, 7 * DAY)
    assert plan.campaigns[0].send_time == SendTime(DAY // 2, 0.05)
    drawn = CHOOSING.replace("experiment: tone", "send_time: {within: 12h, choose: thompson, novelty: NOVELTY}")
    novelty = "{penalty: 20%, half_life: 2d}"
    expected = SendTime(DAY // 2, 0.03, "thompson", Novelty(0.2, 2 * DAY))
    assert plan_of(drawn.replace("NOVELTY", novelty)).campaigns[0].send_time == expected
    (line,) = lines_of("version: '1'\nname: test\n" + drawn.replace("novelty: NOVELTY", "explore: 0"))
    assert "some hours are never tried" in line
    assert plan_of("defaults: {}").adaptive is None
    late = timed.replace("holdout: 20%", "transactional: true")
    (line,) = lines_of("version: '1'\nname: test\n" + late)
    assert "does not wait for a good hour" in line


def test_a_flag_holds_for_its_share_of_users_and_keeps_them_as_it_grows() -> None:
    text = "flags: {fresh: SHARE}\nsegments:\n  - {name: some, when: 'flag(\"fresh\")'}\n"
    having = []
    for share in ("0%", "20%", "50%", "100%"):
        (segment,) = plan_of(text.replace("SHARE", share)).segments
        having.append({n for n in range(2000) if segment.evaluate(Profile(), NOW, f"u{n}")})
    assert [len(users) for users in having] == [0, pytest.approx(400, abs=60), pytest.approx(1000, abs=80), 2000]
    assert having[1] < having[2]
    (line,) = lines_of(
        "version: '1'\nname: test\n" + text.replace("SHARE", "5%").replace('flag("fresh")', 'flag("frsh")')
    )
    assert "unknown flag 'frsh'; did you mean 'fresh'" in line
