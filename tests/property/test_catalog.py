"""Whatever is viewed, bought and changed, and whenever a worker dies: each is told once of each change, as by hand."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from app.core.campaign import ItemTrigger, Trigger
from app.core.profile import decode_profile, encode_profile
from app.core.wishes import KINDS
from schemas.decisions import Decision
from schemas.events import ORDER_COMPLETED, PRODUCT_VIEWED
from tests.support.plans import DAY, MINUTE, campaign, make_plan
from tests.support.shelf import Shelf
from tests.support.streams import START, track

Step = tuple[object, ...]
USERS = ("u1", "u2", "u3")
ITEMS = ("p1", "p2")
BY = 0.1
INTEREST = ItemTrigger(sum(KINDS.values()), by=BY)
PLAN = make_plan(
    campaigns=[
        campaign("cheaper", Trigger("price_drop", item=INTEREST), expires_ms=DAY),
        campaign("back", Trigger("back_in_stock", item=INTEREST), expires_ms=DAY),
    ]
)
steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["view", "buy"]), st.sampled_from(USERS), st.sampled_from(ITEMS)),
        st.tuples(st.just("put"), st.sampled_from(ITEMS), st.integers(1, 20), st.integers(0, 1), st.booleans()),
    ),
    max_size=40,
)


class ByHand:
    """What a person with a list would do."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[int, int]] = {}
        self.seen: dict[tuple[str, str], int] = {}
        self.bought: set[tuple[str, str]] = set()
        self.expected: set[tuple[str, str, str, int]] = set()

    def put(self, item: str, price: int, stock: int, version: int) -> None:
        before = self.items.get(item)
        self.items[item] = (price, stock)
        if before is None or not stock or (price >= before[0] and before[1]):
            return
        for (user, wanted), last in self.seen.items():
            if wanted != item or (user, item) in self.bought:
                continue
            restocked = not before[1]
            cheaper = last - price >= BY * last
            if restocked:
                self.expected.add((user, "back", item, version))
            if cheaper:
                self.expected.add((user, "cheaper", item, version))
            if restocked or cheaper:
                self.seen[user, wanted] = price


@settings(max_examples=150)
@given(steps, st.lists(st.booleans(), min_size=40, max_size=40))
def test_everybody_is_told_of_just_what_concerns_them_and_once(
    plan: list[tuple[object, ...]], kills: list[bool]
) -> None:
    stream, by_hand = Shelf(PLAN), ByHand()
    for item in ITEMS:
        stream.put(item, price=20, stock=1)
        by_hand.items[item] = (20, 1)
    for at, (step, kill) in enumerate(zip(plan, kills, strict=False), 1):
        stream.at(at * MINUTE)
        if step[0] == "put":
            _, item, price, stock, _ = step
            by_hand.put(str(item), int(str(price)), int(str(stock)), stream.version)
            stream.put(str(item), price=int(str(price)), stock=int(str(stock)))
            if kill:  # it died before the rows were durable: what it said may have left all the same
                stored = {key: encode_profile(row) for key, row in stream.rows.items()}
                stream.offer()
                stream.rows = {key: decode_profile(raw) for key, raw in stored.items()}
            stream.offer()
        else:
            kind, user, item = map(str, step)
            name = PRODUCT_VIEWED if kind == "view" else ORDER_COMPLETED
            stream.send(track(name, START + at * MINUTE, user, products=[{"product_id": item}], product_id=item))
            if kind == "view":
                by_hand.seen[user, item] = by_hand.items[item][0]
            else:
                by_hand.bought.add((user, item))
    again = stream.offer()  # another owner of the partition offers everything again
    assert (again.outputs, again.changed) == ([], {})
    made = {one.id: one for one in stream.decisions}
    found = [(one.user, one.campaign, one.trigger_key, _version(stream, one)) for one in made.values()]
    assert sorted(found) == sorted(by_hand.expected)


def _version(stream: Shelf, made: Decision) -> int:
    changes = [change for change in stream.changed if change.item.id == made.trigger_key]
    return next(change.offset for change in changes if change.at_ms == made.source_ms)
