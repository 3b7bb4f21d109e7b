"""Products in messages: what a row remembers, what everybody's baskets teach, and what is never recommended."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.learner import LearnerService, _Partition
from app.core.browsing import (
    BOUGHT_MAX,
    VIEWED_MAX,
    Browsing,
    Item,
    Viewed,
    add_purchases,
    add_view,
    newest_views,
    pack_purchases,
    purchases_of,
    views_of,
)
from app.core.campaign import Campaign, Recommend
from app.core.ids import stable_id
from app.core.interest import level_at
from app.core.item_table import BESIDE, ItemTable
from app.core.items import BASKETS_DAY_MAX, merged
from app.core.plan import Plan
from app.core.profile import Profile, decode_profile, encode_profile
from app.core.recommend import recommend, slot
from app.learning.contract import BadModel
from app.learning.items import ITEMS_MAX, ItemLearner
from app.learning.served_items import NEAR_MAX, SUFFIX, ItemsState, read_items
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy_text
from schemas.models import ModelSnapshot, decode_snapshot
from schemas.outcomes import NO_EXAMPLE, Outcome, encode_outcome
from tests.support.plans import DAY, HOUR, campaign, make_plan, on_event
from tests.support.streams import START, FakeRecord, Stream, track

POLICY = """\
version: 1
name: shelf
defaults: {consent: assumed}
campaigns:
  - name: more
    category: promo
    trigger: {event: Ping}
    recommend: {kind: [also_bought, viewed, popular], count: 2}
    template:
      title: 'Try {{ items[0].name | default: "something new" }}'
      body: "{% for item in items %}{{ item.id }} {% endfor %}and more"
      deep_link: shop://p/{{ items[0].id | url_encode }}
"""

SEGMENTS = """\
segments:
  - {name: keen, when: orders() >= 1}
  - {name: rich, when: revenue() > 100}
campaigns:"""


def basket(
    number: int, *products: str, user: int = -1, at_ms: int = START, segments: list[str] | None = None
) -> Outcome:
    """An order of products; each is of the category of its first letter."""
    return Outcome(
        id=f"b{number}",
        model="open",
        label=NO_EXAMPLE,
        features={"bucket": float(number if user < 0 else user)},
        score=0.0,
        model_version=0,
        campaign="",
        decided_ms=at_ms,
        matured_ms=at_ms,
        items=[[product, product[0], product.upper()] for product in products],
        segments=segments or [],
    )


def taught(*baskets: Outcome) -> ItemLearner:
    learner = ItemLearner("open")
    for one in baskets:
        learner.learn(one)
    return learner


def table(*baskets: Outcome) -> ItemTable:
    return read_items(taught(*baskets).snapshot(1, 0, 0))


def beside(found: ItemTable, product: str) -> list[str]:
    return [found.items[place].id for place, _ in found.beside(stable_id(product))]


def order(*products: str, at_ms: int = START, **properties: Any) -> dict[str, Any]:
    entries = [{"product_id": product, "category": product[0]} for product in products]
    return track("Order Completed", at_ms, products=entries, **properties)


def wishing(*kinds: Any) -> Campaign:
    return campaign("more", on_event("Ping"), recommend=Recommend(kinds))


# -- the row


def test_a_row_remembers_the_newest_views_and_purchases_only_if_a_policy_asks() -> None:
    messages = [track("Product Viewed", START + n, product_id=f"p{n}") for n in range(VIEWED_MAX + 5)]
    messages += [order(*(f"q{n}" for n in range(m, m + 40)), at_ms=START + 1000 * m) for m in range(0, 160, 40)]
    plain = Stream(make_plan(campaigns=[campaign("c", on_event("Ping"))])).at(1_000)
    plain.send(*messages)
    assert plain.row.browsing is None
    stream = Stream(make_plan(campaigns=[wishing("viewed")])).at(1_000)
    stream.send(*reversed(messages))
    state = stream.row.browsing
    assert state is not None
    assert [viewed.item.id for viewed in views_of(state)] == [f"p{n}" for n in range(5, VIEWED_MAX + 5)]
    bought = purchases_of(state)
    assert len(bought) == BOUGHT_MAX
    assert stable_id("q159") in bought
    assert stable_id("q0") not in bought
    assert stream.row.orders == plain.row.orders == 4
    assert not [outcome for outcome in stream.outcomes if outcome.items]


def test_views_are_the_same_however_often_they_were_tidied_and_in_whatever_order_they_came() -> None:
    views = [Viewed(n, Item(f"p{n % 17}", "category", "a name " * (n % 5))) for n in range(90)]
    found = []
    for order in (views, views[::-1], views[::2] + views[1::2]):
        state = Browsing([])
        for view in order:
            add_view(state, view)
        assert len(state.viewed) < 1_600
        found.append(views_of(state))
    assert found[0] == found[1] == found[2] == newest_views(views)


@pytest.mark.parametrize("product", [None, "", "x" * 65, [], {}, 1.5, True])
def test_what_is_no_product_leaves_no_trace(product: object) -> None:
    stream = Stream(make_plan(campaigns=[wishing("popular")]))
    stream.send(track("Product Viewed", START, product_id=product), track("Order Completed", START, products=[product]))
    assert stream.row.browsing is None
    assert not stream.outcomes


def test_an_order_is_a_basket_that_is_no_example_and_a_user_has_a_few_a_day() -> None:
    stream = Stream(make_plan(campaigns=[wishing("popular")]))
    stream.send(*(order("a1", "b1", at_ms=START + n) for n in range(BASKETS_DAY_MAX + 3)))
    baskets = stream.outcomes
    assert len(baskets) == BASKETS_DAY_MAX
    assert len({one.id for one in baskets}) == BASKETS_DAY_MAX
    assert {(one.label, one.campaign) for one in baskets} == {(NO_EXAMPLE, "")}
    assert baskets[0].items == [["a1", "a", ""], ["b1", "b", ""]]
    stream.at(DAY).send(order("a1", at_ms=START + DAY))
    assert len(stream.outcomes) == BASKETS_DAY_MAX + 1


def test_an_order_says_in_which_of_the_segments_of_the_slots_its_user_is() -> None:
    policy = POLICY.replace("count: 2}", "count: 2, segment: [keen, rich]}").replace("campaigns:", SEGMENTS)
    stream = Stream(load_policy_text(policy))
    stream.send(order("a1"), track("Ping", START + 1), order("b1", at_ms=START + 2))
    assert [one.segments for one in stream.outcomes if one.items] == [[], ["keen"]]  # before the order


def test_popular_is_what_the_users_first_segment_buys() -> None:
    known = ItemTable(top=(Item("t1"),), by_segment={"keen": (Item("k1"),), "rich": (Item("r1"),)})
    row = Profile(segments={stable_id("keen"): 1, stable_id("rich"): 1})

    def ids(*segments: str) -> list[str]:
        return [item.id for item in recommend(row, Recommend(("popular",), segments=segments), known, {}, START)]

    assert ids("rich", "keen") == ["r1", "t1"]
    assert ids("gone", "keen") == ["k1", "t1"]
    assert ids("gone") == ids() == ["t1"]


def test_a_row_of_before_is_read_and_packed_with_the_next_event() -> None:
    old = Profile(browsing=Browsing([Viewed(START - 9, Item("a", "c", "n"))], {stable_id("b"): START - 5_000}))
    row = decode_profile(encode_profile(old))
    assert row.browsing is not None
    assert views_of(row.browsing) == [Viewed(START - 9, Item("a", "c", "n"))]
    assert purchases_of(row.browsing) == {stable_id("b"): START - 5_000}
    add_view(row.browsing, Viewed(START, Item("d")))
    add_purchases(row.browsing, [stable_id("e")], START)
    again = decode_profile(encode_profile(row)).browsing
    assert again is not None
    assert (type(again.viewed), type(again.bought)) == (bytes, bytes)
    assert [view.item.id for view in views_of(again)] == ["a", "d"]
    assert list(purchases_of(again)) == [stable_id("b"), stable_id("e")]


def test_two_rows_of_one_person_know_together_what_each_knew() -> None:
    ours = Browsing([Viewed(1, Item("a")), Viewed(3, Item("b"))], {1: 5_000}, day=2, baskets=3)
    theirs = Browsing(
        [Viewed(2, Item("b")), Viewed(4, Item("a"))], pack_purchases({1: 7_000, 2: 6_000}), day=2, baskets=1
    )
    both = merged(ours, theirs)
    assert both is not None
    assert [(viewed.at_ms, viewed.item.id) for viewed in views_of(both)] == [(3, "b"), (4, "a")]
    assert (purchases_of(both), both.baskets) == ({2: 6_000, 1: 7_000}, 4)
    assert merged(None, theirs) is theirs


# -- what baskets teach


def test_the_best_sellers_come_first_and_old_ones_fade() -> None:
    old = [basket(n, "a1") for n in range(8)]
    new = [basket(100 + n, "a2", at_ms=START + 60 * DAY) for n in range(4)]
    found = table(*old, *new)
    assert [item.id for item in found.popular["a"]] == ["a2", "a1"]
    assert [item.name for item in found.top] == ["A2", "A1"]


def test_what_is_in_every_basket_goes_with_none_in_particular() -> None:
    pairs = [basket(n, "bread", "jam", "milk") for n in range(4)]
    others = [basket(50 + n, "milk", f"x{n % 9}") for n in range(30)]
    assert beside(table(*pairs, *others), "bread") == ["jam", "milk"]


def test_what_one_person_buys_is_shown_to_nobody_else() -> None:
    found = table(*(basket(n, "spam", "ham", user=7) for n in range(50)), *(basket(90 + n, "ham") for n in range(3)))
    assert [item.id for item in found.top] == ["ham"]
    assert not beside(found, "ham")


def test_a_basket_that_comes_again_teaches_nothing() -> None:
    learner = taught(basket(1, "a"), basket(1, "a"), basket(2))
    assert learner.baskets == 1


def test_a_restored_learner_goes_on_as_if_it_had_never_stopped() -> None:
    baskets = [basket(n, f"a{n % 7}", f"b{n % 5}", at_ms=START + n * HOUR) for n in range(60)]
    whole = taught(*baskets[:30])
    again = ItemLearner.restore(whole.snapshot(3, 4, 5))
    for one in baskets[25:]:
        whole.learn(one)
        again.learn(one)
    assert again.snapshot(3, 4, 5) == whole.snapshot(3, 4, 5)


def test_a_heavy_hitter_survives_more_products_than_are_kept_and_a_snapshot_stays_below_a_megabyte() -> None:
    wide = "\U0001f600"
    learner = ItemLearner("open")
    for n in range(ITEMS_MAX + 300):
        rare = [f"{n:05}{k}".ljust(64, wide) for k in range(3)]
        learner.learn(
            msgspec.structs.replace(
                basket(n, "hit"), items=[["hit", "h", ""]] + [[p, wide * 64, wide * 60] for p in rare]
            )
        )
    snapshot = learner.snapshot(1, 0, 0)
    assert len(msgspec.json.encode(snapshot)) < 1_000_000
    assert learner._items[0].id == "hit"


def test_beside_a_product_stand_the_best_of_all_that_go_with_it() -> None:
    found = table(*(basket(n, *(f"q{(7 * n + k) % 60}" for k in range(20))) for n in range(120)))
    weights = [weight for _, weight in found.beside(stable_id("q7"))]
    assert len(weights) == NEAR_MAX
    assert weights == sorted(weights, reverse=True)
    assert set(beside(found, "q7")[:4]) == {"q5", "q6", "q8", "q9"}


def test_a_new_product_takes_a_place_when_it_is_bought_more_than_the_least() -> None:
    learner = taught(*(basket(n, *(f"p{n}-{k}" for k in range(20))) for n in range(ITEMS_MAX // 20)))
    for n in range(300):
        learner.learn(basket(1_000 + n, f"tail{n}"))
    kept = {item.id for item in read_items(learner.snapshot(1, 0, 0)).items}
    assert not any(product.startswith("tail") for product in kept)
    for n in range(3):
        learner.learn(basket(2_000 + n, "new"))
    assert "new" in {item.id for item in read_items(learner.snapshot(1, 0, 0)).items}


def test_a_product_that_took_anothers_place_has_nothing_of_its_neighbours_and_segments() -> None:
    full = [basket(n, *(f"p{n}-{k}" for k in range(20)), segments=["keen"]) for n in range(ITEMS_MAX // 20)]
    learner = taught(*full, *(basket(500 + n, f"p{n // 3}-{k}") for n in range(75) for k in range(20)))
    for n in range(6):
        learner.learn(basket(9_000 + n, "new"))
    found = read_items(learner.snapshot(1, 0, 0))
    assert "new" in {item.id for item in found.items}
    assert not beside(found, "new")


def test_counts_of_pairs_that_are_too_great_for_half_precision_still_rise_by_the_right_amount() -> None:
    learner = taught()
    for n in range(6_000):
        learner.learn(basket(n, "tea", "milk"))
    assert 5_900 < float(learner._pairs[0, 1]) < 6_100


def test_what_a_segment_buys_more_than_others_is_popular_in_it() -> None:
    keen = [basket(n, "bread", "beer", segments=["keen"]) for n in range(30)]
    others = [basket(100 + n, "bread", "wine") for n in range(60)]
    found = table(*keen, *others)
    assert [item.id for item in found.top] == ["bread", "wine", "beer"]
    assert [item.id for item in found.by_segment["keen"]] == ["bread", "beer", "wine"]
    few = table(basket(900, "beer", segments=["tiny"]), *others, *keen)
    assert [item.id for item in few.by_segment["tiny"]] == ["bread", "wine", "beer"]


def test_a_learner_goes_on_from_a_snapshot_of_an_earlier_build() -> None:
    old = {
        "version": 1,
        "baskets": 9,
        "at_ms": START,
        "items": [["tea", "t", "Tea", 5.0, [1, 2, 3], [1.0, 4.0]], ["milk", "m", "", 4.0, [1, 2, 3], [0.0, 4.0]]],
    }
    snapshot = msgspec.structs.replace(taught().snapshot(1, 0, 0), state=msgspec.json.encode(old))
    again = ItemLearner.restore(snapshot)
    again.learn(basket(1, "tea"))
    assert again.baskets == 10
    found = read_items(again.snapshot(2, 0, 0))
    assert [item.name for item in found.top] == ["TEA", ""]
    assert beside(found, "tea") == ["milk"]


def test_a_snapshot_that_is_not_sound_is_refused() -> None:
    snapshot = taught(basket(1, "a", "b")).snapshot(1, 0, 0)
    state = ItemsState.read(snapshot)
    torn = [
        b"{",
        b'{"version": 9}',
        msgspec.msgpack.encode([9, *msgspec.to_builtins(state, builtin_types=(bytes,))[1:]]),
        _with(state, served=msgspec.structs.replace(state.served, top=[2])),
        _with(state, served=msgspec.structs.replace(state.served, near=[BESIDE.pack(2, 1.0)])),
        _with(state, served=msgspec.structs.replace(state.served, near=[b"abc"])),
    ]
    for raw in torn:
        with pytest.raises(BadModel):
            read_items(msgspec.structs.replace(snapshot, state=raw))
    for books in ({"short": b"\0" * 8}, {"pairs": b""}, {"recent": b"1"}, {"long": b"\xff" * 16}):
        raw = _with(state, books=msgspec.structs.replace(state.books, **books))
        with pytest.raises(BadModel):
            ItemLearner.restore(msgspec.structs.replace(snapshot, state=raw))


def _with(state: ItemsState, **changes: Any) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(state, **changes))


async def test_the_learner_publishes_baskets_beside_its_models_and_skips_what_its_snapshot_holds() -> None:
    sent: list[ModelSnapshot] = []

    async def send(_topic: str, _key: bytes, value: bytes) -> None:
        sent.append(decode_snapshot(value, b"secret"))

    batches = SimpleNamespace(highwater=lambda _tp: None)
    app: Any = SimpleNamespace(durable_producer=SimpleNamespace(send=send), client_settings={}, batches=batches)
    observer: Any = SimpleNamespace(learned=lambda _learner: None, refused=lambda _reason: None)
    service = LearnerService(app, b"secret", observer, lambda: 2**42, interval_s=1.0)
    state = service._partitions[0] = _Partition(0)
    records = [FakeRecord(b"open", encode_outcome(basket(n, "tea", "milk")), n) for n in range(4)]
    for one in records[:3]:
        service._learn(state, one)
    state.next_offset = 3
    await service.publish()
    (snapshot,) = sent
    assert (snapshot.model, snapshot.next_offset) == ("open" + SUFFIX, 3)
    assert not state.learners
    again = service._partitions[0] = _Partition(3)
    service._resume_from(again, snapshot, snapshot.next_offset)
    for one in records:
        service._learn(again, one)
    assert again.items["open"].baskets == 4


# -- what is recommended

items = st.builds(Item, st.sampled_from([f"p{n}" for n in range(12)]), st.sampled_from(["", "a", "b", "c"]))
near = st.dictionaries(
    st.integers(0, 11).map(lambda n: stable_id(f"p{n}")),
    st.lists(st.builds(BESIDE.pack, st.integers(0, 11), st.floats(0.01, 1)), max_size=6).map(b"".join),
)
tables = st.builds(
    ItemTable,
    version=st.just(1),
    top=st.lists(items, max_size=12).map(tuple),
    popular=st.dictionaries(st.sampled_from("abc"), st.lists(items, max_size=6).map(tuple)),
    items=st.lists(items, min_size=12, max_size=12).map(tuple),
    near=near,
    by_segment=st.dictionaries(st.sampled_from(["keen", "calm"]), st.lists(items, max_size=6).map(tuple)),
)
wishes = st.builds(
    Recommend,
    kinds=st.permutations(["viewed", "popular", "also_bought"]).map(tuple),
    count=st.integers(1, 10),
    exclude_bought=st.booleans(),
    window_ms=st.just(DAY),
    per_category=st.integers(1, 3),
    segments=st.permutations(["keen", "calm", "gone"]).map(tuple),
)
rows = st.builds(
    Profile,
    browsing=st.none()
    | st.builds(
        Browsing,
        viewed=st.lists(st.builds(Viewed, st.integers(0, START), items), max_size=6),
        bought=st.dictionaries(
            st.integers(0, 11).map(lambda n: stable_id(f"p{n}")), st.integers(START - 2 * DAY, START), max_size=6
        ),
    ),
    segments=st.dictionaries(st.sampled_from(["keen", "gone"]).map(stable_id), st.just(1)),
    affinity=st.dictionaries(st.sampled_from("abcz"), st.integers(0, START // 1000)),
)


@given(row=rows, wish=wishes, known=tables, here=st.sampled_from(["", "p1", "p2"]))
def test_nothing_bought_nothing_twice_and_no_crowd_of_a_category_is_ever_recommended(
    row: Profile, wish: Recommend, known: ItemTable, here: str
) -> None:
    before = encode_profile(row)
    found = recommend(row, wish, known, {"product_id": here}, START)
    assert len(found) <= wish.count
    ids = [item.id for item in found]
    assert len(set(ids)) == len(ids)
    assert here not in ids
    for category in {item.category for item in found} - {""}:
        assert sum(item.category == category for item in found) <= wish.per_category
    if wish.exclude_bought and row.browsing is not None:
        bought = {product for product, at_ms in purchases_of(row.browsing).items() if at_ms > START - DAY}
        assert not bought & {stable_id(product) for product in ids}
    assert found == recommend(row, wish, known, {"product_id": here}, START)
    assert encode_profile(row) == before


def test_sources_are_asked_in_the_policys_order_until_there_are_enough() -> None:
    known = ItemTable(
        top=(Item("t1", "x"), Item("t2", "y")),
        items=(Item("n1", "m"),),
        near={stable_id("v1"): BESIDE.pack(0, 0.9)},
        popular={"k": (Item("k1", "k"),)},
    )
    row = Profile(browsing=Browsing([Viewed(1, Item("v1", "v"))]), affinity={"k": level_at(START)})

    def ids(*kinds: Any, count: int = 9) -> list[str]:
        return [item.id for item in recommend(row, Recommend(kinds, count), known, {}, START)]

    assert ids("also_bought", "viewed", "popular") == ["n1", "v1", "k1", "t1", "t2"]
    wish = Recommend(("also_bought", "viewed", "popular"), 9, segments=("fans",))
    known, row.segments = replace(known, by_segment={"fans": (Item("f1", "f"),)}), {stable_id("fans"): START}
    assert [(item.id, source) for item, source in slot(row, wish, known, {}, START)] == [
        ("n1", "also_bought"), ("v1", "viewed"), ("f1", "popular in fans"), ("k1", "popular in k"), ("t1", "popular"),
        ("t2", "popular"),
    ]  # fmt: skip
    assert ids("viewed", "popular", count=2) == ["v1", "k1"]
    assert ids("also_bought") == ["n1"]


def test_the_less_is_known_of_what_a_user_bought_the_more_counts_what_everybody_buys() -> None:
    known = table(*(basket(n, "tea", "milk") for n in range(9)), *(basket(100 + n, "bread") for n in range(60)))

    def ids(*bought: str) -> list[str]:
        row = Profile(browsing=Browsing(bought=pack_purchases({stable_id(product): START for product in bought})))
        return [item.id for item in recommend(row, Recommend(("also_bought",)), known, {}, START)]

    assert ids("tea")[:2] == ["milk", "bread"]
    assert ids("a thing that nobody else buys")[0] == "bread"
    assert ids() == []


def plan() -> Plan:
    return load_policy_text(POLICY)


def test_a_message_names_what_goes_with_the_users_purchase() -> None:
    stream = Stream(plan()).at(HOUR)
    stream.processor.items = table(*(basket(n, "tea", "milk", "cake") for n in range(3)))
    stream.send(order("tea", "cake"), track("Ping", START + 1))
    (sent,) = stream.sends
    assert sent.content is not None
    assert (sent.content.title, sent.content.deep_link) == ("Try MILK", "shop://p/milk")
    assert sent.content.body == "milk and more"


def test_without_anything_to_recommend_the_message_has_its_defaults() -> None:
    stream = Stream(plan())
    stream.send(track("Ping", START))
    (sent,) = stream.sends
    assert sent.content is not None
    assert (sent.content.title, sent.content.body) == ("Try something new", "and more")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "    recommend: {kind: [also_bought, viewed, popular], count: 2}\n",
            "",
            "only in a campaign with 'recommend'",
        ),
        ("items[0].name", "items[0].nmae", "10:22: campaigns[0].template.title: an item has no 'nmae'"),
        ("also_bought,", "bought,", "campaigns[0].recommend.kind"),
        ("count: 2", "window: 1y", "campaigns[0].recommend.window"),
        ("count: 2", "segment: kene", "8:64: campaigns[0].recommend.segment[0]: unknown segment"),
        ("viewed, popular], count: 2", "viewed], segment: keen", "kind must have popular"),
    ],
)
def test_a_slot_that_is_not_sound_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(PolicyErrors) as caught:
        load_policy_text(POLICY.replace(old, new))
    assert message in str(caught.value)
