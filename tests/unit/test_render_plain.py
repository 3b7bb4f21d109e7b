"""The short way to a text gives what Liquid gives, or leaves it to Liquid."""

from __future__ import annotations

import random
from typing import Any

import pytest

from app.core.render import _ENVIRONMENT
from app.core.render_plain import plain

TEMPLATES = (
    "Hi {{ user.name | default: 'there' }}",
    "{{user.name}}, your {{ event['product id'] | default: \"basket\" }} waits",
    "  {{- event.price -}}  for {{ event.a.b.c }}!",
    "{{ profile.device }}{{ event.count | default: 'none' }}",
    "no value at all {{ nothing | default: 'x' }}",
)
LEFT_TO_LIQUID = (
    "{{ user.name | upcase }}",
    "{{ user.name | default: 'a' | upcase }}",
    "{{ user.name | default: event.name }}",
    "{{ user.name | default: '' }}",
    "{{ event.tags.size }}",
    "{{ event.tags[0] }}",
    "{% if user.name %}x{% endif %}",
    "{{ 'a' }}",
    "{{ user.name | default: 'x', allow_false: true }}",
)
VALUES: tuple[Any, ...] = (
    "Ann", "", " ", "a<b>&", "ünï", 0, 7, -3, 2**70, True, False, None, 1.5, 0.0, [], ["a", 1], {},
    {"b": {"c": "deep"}}, {"b": None}, "x" * 3_000,
)  # fmt: skip


def drawn(rng: random.Random) -> dict[str, Any]:
    names = ("name", "product id", "price", "a", "count", "device", "tags")
    return {
        root: {name: rng.choice(VALUES) for name in names if rng.random() < 0.7}
        for root in ("user", "event", "profile")
        if rng.random() < 0.9
    }


@pytest.mark.parametrize("source", TEMPLATES)
def test_the_text_is_liquids(source: str) -> None:
    bound = _ENVIRONMENT.from_string(source)
    short = plain(bound)
    assert short is not None
    rng = random.Random(source)
    answered = 0
    for _ in range(400):
        context = drawn(rng)
        text = short(context)
        if text is not None:
            answered += 1
            assert text == bound.render(**context), context
    assert answered > 20


@pytest.mark.parametrize("source", LEFT_TO_LIQUID)
def test_whatever_is_more_than_a_placeholder_is_left_to_liquid(source: str) -> None:
    assert plain(_ENVIRONMENT.from_string(source)) is None
