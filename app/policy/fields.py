"""What the fields of a policy file are made of: durations, shares, times of day, names, and what is wrong with one."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from app.core.durations import parse_duration_ms
from app.core.locales import locale_of


def wrong(message: str) -> PydanticCustomError:
    """The error of a validator, in our words."""
    return PydanticCustomError("policy", "{message}", {"message": message})


def _duration(value: Any) -> int:
    if not isinstance(value, str):
        raise wrong("write a duration with its unit, such as '15m', '48h' or '7d'")
    try:
        return parse_duration_ms(value)
    except ValueError as exc:
        raise wrong(str(exc)) from None


def _share(value: Any) -> float:
    share: float | None = None
    if isinstance(value, int | float) and not isinstance(value, bool):
        share = float(value)
    elif isinstance(value, str) and value.endswith("%"):
        try:
            share = float(value[:-1]) / 100
        except ValueError:
            share = None
    if share is None or not 0 <= share <= 1:
        raise wrong("write a share from 0 to 1, or a percentage such as 5%")
    return share


def _minute(value: Any) -> int:
    hours, colon, minutes = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not (colon and hours.isdecimal() and minutes.isdecimal() and len(minutes) == 2):
        raise wrong("write a time of day such as 22:00")
    if int(hours) > 23 or int(minutes) > 59:
        raise wrong(f"{value} is not a time of day (00:00 to 23:59)")
    return int(hours) * 60 + int(minutes)


def names(value: Any) -> Any:
    """One name stands for a list of it."""
    return [value] if isinstance(value, str) else value


def _locale(value: Any) -> str:
    if not (tag := locale_of(value)):
        raise wrong(f"{value!r} is no language tag, such as 'de' or 'pt-BR'")
    return tag


def text(value: Any) -> Any:
    """A number stands for its digits."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_DURATION_SCHEMA = {"type": "string", "pattern": "^([0-9]+\\s*(ms|s|m|h|d|w)\\s*)+$", "examples": ["15m", "48h", "7d"]}
_SHARE_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0, "maximum": 1}, {"type": "string", "pattern": "%$"}]}
_MINUTE_SCHEMA = {"type": "string", "pattern": "^[0-9]{1,2}:[0-9]{2}$", "examples": ["22:00"]}

DurationMs = Annotated[int, BeforeValidator(_duration), WithJsonSchema(_DURATION_SCHEMA)]
Share = Annotated[float, BeforeValidator(_share), WithJsonSchema(_SHARE_SCHEMA)]
Minute = Annotated[int, BeforeValidator(_minute), WithJsonSchema(_MINUTE_SCHEMA)]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
Locale = Annotated[str, BeforeValidator(_locale), WithJsonSchema({"type": "string", "examples": ["de", "pt-BR"]})]
EventName = Annotated[str, Field(min_length=1, max_length=200)]
EventNames = Annotated[list[EventName], BeforeValidator(names), Field(min_length=1, max_length=32)]
Text = Annotated[str, Field(min_length=1)]
ShortText = Annotated[str, Field(min_length=1, max_length=80)]
Amount = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
Cut = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Cuts = Annotated[list[Cut], Field(min_length=4, max_length=4)]


STRICT = ConfigDict(extra="forbid", frozen=True, strict=True)
"""Of every part of a policy: exactly the fields that are declared, of exactly these types."""
