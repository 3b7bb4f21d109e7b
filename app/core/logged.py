"""Features as they are logged in a row until their label is known: some 90 bytes in place of 470.

    length of the codes (2 bytes) | codes, one for each feature in order | the other values, float32 little-endian

A code below 240 says which known name and whether the value is 0, 1 or stands at the end; 240 and 241 are followed by a
name that is not in the table. 242 is followed by a number n, and stands for the first n names of `RUN`: of each two
bits say whether its value is 0, 1, at the end, or that of the one before at the end (what is not known yet of a user
has the same value under several names).

Values are float32: a decision rounds its features before it scores them (`rounded`), so what is scored, logged and
learned is the same number. A float32 has 7 digits; no model here tells more apart.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Final

NAMES: Final = (
    *("open_logit", "open_slow_logit", "open_middle_logit", "open_fast_logit", "open_run_log", "matured_log"),
    *("ignored_log", "clicked_log", "dismissed_log", "waiting", "sends_day", "since_send_log_h", "since_open_log_h"),
    *("since_app_log_h", "since_order_log_h", "since_first_log_h", "since_consent_log_h", "orders_log", "revenue_log"),
    *("affinity_log", "hour_response", "hour_sin", "hour_cos", "weekend=", "d=ios", "d=android"),
    *("act_since_log_h", "act_lived_log_h", "act_hour_log", "act_day_log", "act_week_log", "act_days_week"),
    *("act_days_month", "act_today", "act_hour_own", "act_hour_band", "act_visits_log", "act_hour_sin"),
    *("act_hour_cos", "opened_log", "order_known"),
    *(f"h={hour}" for hour in range(24)),
    *("order_rate_log", "order_due_log"),
    *("open_month_logit", "open_quarter_logit", "click_quarter_logit"),
)
"""Known names by index. Append only, up to `ROOM`: rows hold the indexes. A name that is missing costs its length."""

RUN: Final = (
    *("open_logit", "open_slow_logit", "open_middle_logit", "open_fast_logit", "open_run_log", "open_month_logit"),
    *("open_quarter_logit", "click_quarter_logit", "matured_log", "ignored_log", "clicked_log", "dismissed_log"),
    *("waiting", "sends_day", "since_send_log_h", "since_open_log_h", "since_app_log_h", "since_order_log_h"),
    *("since_first_log_h", "since_consent_log_h", "orders_log", "revenue_log", "affinity_log", "hour_response"),
    *("hour_sin", "hour_cos"),
)
"""The names with which `app.core.features` begins, in its order. Rows count from its start: names may follow at the
end, up to 255, and none may move."""

ROOM: Final = 80
_ZERO = ROOM
_ONE = 2 * ROOM
_NAMED_VALUE = 3 * ROOM
_NAMED_ONE = _NAMED_VALUE + 1
_RUN = _NAMED_ONE + 1
_RUN_MIN = 4
"""A shorter run takes as many bytes as its names."""
_IS_ZERO, _IS_ONE, _IS_VALUE, _IS_SAME = range(4)
_LONG = 255

_INDEX = {name: index for index, name in enumerate(NAMES)}
_HEAD = struct.Struct("<H")
_SIZE = struct.Struct("<I")
_RUN_NAMES: Final = list(RUN)


def rounded(features: Mapping[str, float]) -> dict[str, float]:
    """The features with each value rounded to the nearest float32 (beyond its range: infinite).

    Examples
    --------
    >>> rounded({"a": 0.1, "b": 2.0})
    {'a': 0.10000000149011612, 'b': 2.0}
    """
    form = _floats(len(features))
    try:
        values: tuple[float, ...] = form.unpack(form.pack(*features.values()))
    except OverflowError:
        values = tuple(array("f", features.values()))  # several times slower
    result = dict(features)  # has room for all of them at once
    for at, name in enumerate(list(result)):
        result[name] = values[at]
    return result


@lru_cache(maxsize=256)
def _floats(count: int) -> struct.Struct:
    """So many float32, little-endian."""
    return struct.Struct(f"<{count}f")


def pack(features: Mapping[str, float]) -> bytes:
    """Encode features whose values are float32 (see `rounded`); the order is kept.

    Raises
    ------
    OverflowError
        A finite value is beyond float32.
    struct.error
        The names that are not in the table take more than 64 KB.
    """
    if not features:
        return b""
    codes = bytearray()
    values: list[float] = []
    names, given = list(features), list(features.values())
    run = _run_length(names)
    if run:
        codes += _packed_run(given[:run], values)
    for at in range(run, len(names)):
        name, value = names[at], given[at]
        index = _INDEX.get(name)
        if index is None:
            codes += _named(name, value == 1.0)
        elif value == 0.0:
            codes.append(_ZERO + index)
            continue
        elif value == 1.0:
            codes.append(_ONE + index)
            continue
        else:
            codes.append(index)
        if index is not None or value != 1.0:
            values.append(value)
    return _HEAD.pack(len(codes)) + codes + _floats(len(values)).pack(*values)


def _run_length(names: list[str]) -> int:
    """How many of the first names are those of `RUN`; 0 where they are too few to be worth it."""
    if names[: len(_RUN_NAMES)] == _RUN_NAMES:
        return len(_RUN_NAMES)
    length = 0
    for name, known in zip(names, _RUN_NAMES, strict=False):
        if name != known:
            break
        length += 1
    return length if length >= _RUN_MIN else 0


def _packed_run(run: list[float], values: list[float]) -> bytes:
    """The code of a run; the values that stand at the end are added to `values`."""
    kinds = 0
    for at, value in enumerate(run):
        if value == 0.0:
            continue
        if value == 1.0:
            kind = _IS_ONE
        elif values and value == values[-1]:
            kind = _IS_SAME
        else:
            kind = _IS_VALUE
            values.append(value)
        kinds |= kind << 2 * at
    return bytes((_RUN, len(run))) + kinds.to_bytes((len(run) + 3) // 4, "little")


@lru_cache(maxsize=4096)
def _named(name: str, is_one: bool) -> bytes:
    raw = name.encode()
    size = bytes((len(raw),)) if len(raw) < _LONG else bytes((_LONG,)) + _SIZE.pack(len(raw))
    return bytes((_NAMED_ONE if is_one else _NAMED_VALUE,)) + size + raw


def unpack(raw: bytes) -> dict[str, float]:
    """Decode what `pack` made. Raises `ValueError` for other bytes, and for a name that only a newer build knows."""
    if not raw:
        return {}
    try:
        return _unpack(raw)
    except (struct.error, IndexError, StopIteration) as exc:
        raise ValueError("these are no packed features") from exc


def _unpack(raw: bytes) -> dict[str, float]:
    (length,) = _HEAD.unpack_from(raw)
    end = at = _HEAD.size
    end += length
    values = iter(struct.unpack(f"<{(len(raw) - end) // 4}f", raw[end:]))
    features: dict[str, float] = {}
    while at < end:
        code = raw[at]
        at += 1
        if code == _RUN:
            length = raw[at]
            past = at + 1 + (length + 3) // 4
            features.update(_unpacked_run(length, int.from_bytes(raw[at + 1 : past], "little"), values))
            at = past
        elif code > _RUN:
            raise ValueError(f"features are packed with code {code}, which this build does not know")
        elif code >= _NAMED_VALUE:
            size = raw[at]
            at += 1
            if size == _LONG:
                (size,) = _SIZE.unpack_from(raw, at)
                at += _SIZE.size
            name = raw[at : at + size].decode()
            at += size
            features[name] = 1.0 if code == _NAMED_ONE else next(values)
        elif code >= _ONE:
            features[NAMES[code - _ONE]] = 1.0
        elif code >= _ZERO:
            features[NAMES[code - _ZERO]] = 0.0
        else:
            features[NAMES[code]] = next(values)
    return features


def _unpacked_run(length: int, kinds: int, values: Iterator[float]) -> dict[str, float]:
    features: dict[str, float] = {}
    value = 0.0
    for at in range(length):
        kind = kinds >> 2 * at & 3
        if kind == _IS_VALUE:
            value = next(values)
        features[RUN[at]] = (0.0, 1.0, value, value)[kind]
    return features
