from __future__ import annotations

import itertools
import random

import pytest

from app.core.ids import stable_id
from app.core.profile import Profile, encode_profile
from app.overlap.cli import _show as show
from app.overlap.cli import take
from app.overlap.membership import Memberships
from app.overlap.report import OverlapReport, report
from app.policy.load import load_policy_text

PLAN = load_policy_text("""
version: 1
name: shop
segments:
  - {name: a, when: orders() > 1}
  - {name: b, when: orders() > 2}
  - {name: c, when: sent() > 1}
  - {name: d, when: sent() > 9}
campaigns:
  - {name: one, category: promo, trigger: {enter: a}, template: {title: T, body: B}}
  - {name: two, category: promo, trigger: {enter: b}, template: {title: T, body: B}}
  - {name: far, category: news, trigger: {enter: b}, template: {title: T, body: B}}
""")


def found(rows: dict[str, str], users_min: int = 0) -> OverlapReport:
    memberships = Memberships()
    for user, names in rows.items():
        memberships.put(user.encode(), [stable_id(name) for name in names])
    return report(memberships, PLAN, users_min=users_min)


def test_sizes_and_pairs_equal_a_count_by_hand_over_any_stream() -> None:
    rng = random.Random(3)
    memberships, truth = Memberships(), dict[bytes, set[str]]()
    for _ in range(3000):
        user = b"u%d" % rng.randrange(400)
        if rng.random() < 0.05:
            truth.pop(user, None)
            memberships.put(user, None)
            continue
        truth[user] = {name for name in "abcdz" if rng.random() < 0.4}
        memberships.put(user, [stable_id(name) for name in truth[user]])
    made = report(memberships, PLAN, users_min=0)
    assert made.users == len(truth)
    assert {size.segment: size.users for size in made.segments} == {
        name: sum(name in held for held in truth.values()) for name in "abcd"
    }
    assert {(pair.a, pair.b): pair.both for pair in made.pairs} == {
        (one, other): sum({one, other} <= held for held in truth.values())
        for one, other in itertools.combinations("abcd", 2)
    }
    assert made.in_none == sum(held <= {"z"} for held in truth.values())
    assert made.unknown == sum("z" in held for held in truth.values())


def test_bytes_that_are_no_row_are_counted_and_their_user_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    memberships = Memberships()
    row = encode_profile(Profile(segments={stable_id("a"): 1}))
    for key, raw in (
        (b"ann", row),
        (b"bob", b"no row"),
        (b"cid", row),
        (b"cid", b""),
        (None, row),
        (b"\xffe", b"mark"),
    ):
        take(memberships, key, raw)
    made = report(memberships, PLAN, users_min=0)
    assert (made.users, made.unreadable) == (1, 2)
    show(made, 0)
    assert "2 records of the changelog were left out" in capsys.readouterr().out


def test_what_is_the_same_or_inside_another_or_too_small_is_said() -> None:
    rows = {f"u{n}": "ab" for n in range(40)} | {f"v{n}": "c" + "a" * (n < 5) for n in range(5)}
    made = found({**rows, "w": "a"}, users_min=6)
    kinds = {(pair.a, pair.b): pair.kind for pair in made.pairs}
    assert kinds == {("a", "b"): "b_inside_a", ("a", "c"): "b_inside_a"}
    assert {size.segment for size in made.segments if size.too_small} == {"c", "d"}
    (same,) = found({f"u{n}": "ab" for n in range(40)}).pairs
    assert (same.kind, same.jaccard, same.lift) == ("same", 1.0, 1.0)


def test_hints_say_where_a_small_segment_belongs_and_which_of_two_is_enough() -> None:
    rows = {f"u{n}": "abd" for n in range(40)} | {f"v{n}": "ac" for n in range(2)} | {"w": "a"}
    hints = found(rows, users_min=6).hints
    assert hints == [
        "c has 2 users, fewer than 6; 100% of them are in a as well: it could be part of that",
        "b and d say nearly the same: one of them is enough",
    ]
    fine = found({f"u{n}": "abcd"[n % 4] for n in range(40)}, users_min=11)
    assert fine.hints[0] == "4 of 4 segments are smaller than they should be: the policy divides too finely"
    assert fine.hints[1] == "a has 10 users, fewer than 11: widen its condition, or give it up"
    assert fine.combinations == 4


def test_each_segment_is_held_to_its_own_minimum() -> None:
    memberships = Memberships()
    memberships.put(b"u", [stable_id("a")])
    plan = load_policy_text("""
version: 1
name: shop
defaults: {segment_users_min: 2}
segments:
  - {name: a, when: orders() > 1}
  - {name: b, when: orders() > 2, minimum_size: 0}
""")
    assert {size.segment: size.too_small for size in report(memberships, plan).segments} == {"a": True, "b": False}


def test_campaigns_of_one_category_that_start_on_overlapping_segments_contend() -> None:
    made = found({f"u{n}": "ab" for n in range(7)} | {"v": "a"})
    assert [(each.a, each.b, each.users) for each in made.contests] == [("one", "two", 7)]


def test_too_many_users_are_sampled_by_their_key_and_the_estimate_is_near() -> None:
    memberships = Memberships(users_max=1000)
    for turn in (1, 2):  # the newest record of a user counts
        for number in range(20_000):
            memberships.put(b"u%d" % number, [stable_id("a")] if turn == 2 and number % 4 == 0 else [])
    assert len(memberships) <= 1000
    assert memberships.share == 1 / 32
    made = report(memberships, PLAN, users_min=0)
    assert made.users == pytest.approx(20_000, rel=0.1)
    assert made.segments[0].of_all == pytest.approx(0.25, abs=0.05)
