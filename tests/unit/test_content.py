"""What a person reads and where a tap leads: language, length, link."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.lengths import TEXT_BYTES_MAX, UNLIMITED, Limits, cut, fit, joined, limits_of
from app.core.links import clean_link
from app.core.locales import chain, locale_of, localized
from app.core.render import FieldError, MessageTemplate
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy
from tests.support.streams import START, Stream, track

POLICY = """\
version: 1
name: tongues
defaults: {consent: assumed, providers: [apns, fcm]}
campaigns:
  - name: hello
    category: promo
    trigger: {event: Ping}
    template:
      title: Hello
      body: Hello {{ user.name }}!
      deep_link: shop://hello
      locales:
        de:
          title: Hallo
          body: Hallo {{ user.name }}!
        de-AT: {title: Servus, body: Servus!, deep_link: shop://servus}
        "no": {title: Hei, body: Hei!}
"""


def load(tmp_path: Path, text: str) -> Any:
    path = tmp_path / "p.yaml"
    path.write_text(text)
    return load_policy(path)


def mistakes(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(PolicyErrors) as caught:
        load(tmp_path, text)
    return [str(error).rpartition("/")[2] for error in caught.value.errors]


# -- language


@pytest.mark.parametrize(
    ("user", "device", "title", "link"),
    [
        ({}, "", "Hello", "shop://hello"),
        ({}, "de-at", "Servus", "shop://servus"),
        ({}, "de-ch", "Hallo", "shop://hello"),
        ({"locale": "nb"}, "de-at", "Hello", "shop://hello"),
        ({"locale": "no_NO"}, "de-at", "Hei", "shop://hello"),
        ({"language": "de"}, "fr", "Hallo", "shop://hello"),
        ({"locale": 5}, "de", "Hallo", "shop://hello"),
        ({"locale": "fr"}, "", "Hello", "shop://hello"),
    ],
)
def test_a_wording_is_in_the_users_language_or_the_nearest_or_the_default(
    tmp_path: Path, user: dict[str, Any], device: str, title: str, link: str
) -> None:
    render = load(tmp_path, POLICY).campaigns[0].variants[0].render
    content = render({"user": user, "event": {}, "profile": {"locale": device}, "campaign": {}})
    assert (content.title, content.deep_link) == (title, link)


def test_the_language_of_the_newest_context_stands_in_the_row_and_chooses_the_wording(tmp_path: Path) -> None:
    stream = Stream(load(tmp_path, POLICY)).at(9_000)
    stream.send(track("Home", START + 1_000, context={"locale": "de_DE.UTF-8"}))
    stream.send(track("Home", START + 500, context={"locale": "fr"}))
    stream.send(track("Home", START + 1_500, context={"locale": "not a tag"}))
    assert stream.row.locale == "de-de"
    stream.send(track("Ping", START + 2_000))
    assert [decision.content.title for decision in stream.sends if decision.content] == ["Hallo"]


tags = st.lists(st.from_regex(r"[a-z]{2,3}|[a-z0-9]{2,8}", fullmatch=True), min_size=1, max_size=4).map("-".join)


@given(tag=tags, known=st.sets(tags, max_size=5))
def test_the_longest_known_prefix_of_the_tag_wins(tag: str, known: set[str]) -> None:
    wordings = {one: (lambda _context, one=one: SimpleNamespace(title=one)) for one in known}
    render = localized(lambda _context: SimpleNamespace(title="default"), wordings)  # type: ignore[arg-type]
    found = render({"user": {"locale": tag}}).title
    parts = tag.split("-")
    prefixes = {"-".join(parts[: size + 1]) for size in range(len(parts))} if locale_of(tag) else set()
    assert found == max(prefixes & known, key=len, default="default")


def test_a_single_letter_is_not_looked_up_without_what_it_announces() -> None:
    assert list(chain("zh-hant-x-private")) == ["zh-hant-x-private", "zh-hant", "zh"]


def test_a_wording_that_is_not_sound_is_refused_at_its_place_in_its_language(tmp_path: Path) -> None:
    text = POLICY.replace("Hallo {{ user", "Hallo {{ usr")
    (found,) = mistakes(tmp_path, text)
    assert found.startswith("p.yaml:15:26: campaigns[0].template.locales.de.body: unknown variable 'usr'; ")
    assert found.endswith("did you mean 'user'?")


def test_a_key_that_is_no_language_and_one_that_comes_twice_are_refused(tmp_path: Path) -> None:
    assert "'d e' is no language tag" in mistakes(tmp_path, POLICY.replace('"no":', "d e:"))[0]
    assert "'de-at' stands here twice" in mistakes(tmp_path, POLICY.replace('"no":', "de_at:"))[0]


# -- length


def test_a_text_that_a_provider_would_not_show_is_refused_where_it_stands(tmp_path: Path) -> None:
    text = POLICY.replace("title: Hallo", f"title: {'lang ' * 11}")
    assert mistakes(tmp_path, text) == [
        "p.yaml:14:18: campaigns[0].template.locales.de.title: 54 characters; apns, fcm show 50"
    ]


def test_a_texts_values_do_not_count_when_it_is_loaded_and_its_words_do() -> None:
    limits = limits_of(["webpush"])
    template = MessageTemplate("Hi {{ user.name }}", "b", limits=limits)
    assert template.render({"user": {"name": "Maximiliane Mustermann " * 3}}).title.endswith("…")
    with pytest.raises(FieldError, match="51 characters without its values; webpush show 50"):
        MessageTemplate("x" * 51 + "{{ user.name }}", "b", limits=limits)


def test_without_providers_only_the_bounds_of_a_payload_hold() -> None:
    assert limits_of([]) == UNLIMITED
    assert limits_of(["fcm"]) == Limits(65, 240, "fcm")
    with pytest.raises(FieldError, match="121 characters; a title has at most 120"):
        MessageTemplate("x" * 121, "b")


@given(text=st.text(max_size=200), room=st.integers(1, 120))
def test_a_cut_text_fits_and_is_a_beginning_of_the_text(text: str, room: int) -> None:
    found = cut(text, room)
    assert len(found) <= room
    if found != joined(text):
        assert found.endswith("…")
        assert joined(text).startswith(found[:-1])


@given(words=st.lists(st.text("abcdefgh", min_size=1, max_size=8), min_size=1, max_size=40), room=st.integers(20, 80))
def test_no_word_is_cut_that_is_shorter_than_half_the_room(words: list[str], room: int) -> None:
    assert set(cut(" ".join(words), room).removesuffix("…").split()) <= set(words)


def test_a_letter_keeps_its_accent_and_a_family_its_members() -> None:
    accented = unicodedata.normalize("NFD", "é" * 20)
    assert cut(accented, 10) == accented[:8] + "…"
    assert cut("👩\u200d👩\u200d👧" * 3, 7) == "👩\u200d👩\u200d👧…"


@given(
    title=st.text(max_size=120),
    body=st.text(min_size=1, max_size=600),
    link=st.text("ab/", max_size=2_000),
)
def test_title_body_and_link_fit_into_every_providers_payload(title: str, body: str, link: str) -> None:
    title, body = cut(title, 120), cut(body, 600)
    body = fit(title, body, link)
    size = len(msgspec.json.encode([title, body, link]))
    assert size <= TEXT_BYTES_MAX + 32


def test_a_long_text_of_wide_letters_is_cut_to_the_payload() -> None:
    body = fit("t", "語" * 600, "shop://" + "a" * 1_990)
    assert 400 < len(body) < 600
    assert body.endswith("…")


# -- link


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{ event.url }}", "fixed scheme"),
        ("https://{{ event.host }}/x", "fixed host"),
        ("https://shop.example{{ event.rest }}", "fixed host"),
        ("javascript:/x", "must not start with 'javascript:'"),
        ("//evil.example", "starts with one '/'"),
        ("shop://" + "a" * 2_000, "at most 2000"),
    ],
)
def test_a_link_that_a_value_could_lead_elsewhere_is_refused(source: str, message: str) -> None:
    with pytest.raises(FieldError, match=message) as caught:
        MessageTemplate("t", "b", source)
    assert caught.value.field == "deep_link"


@pytest.mark.parametrize(
    "source", ["", "/", "/cart?id={{ event.id }}", "shop://", "https://shop.example", "HTTP://a.b/"]
)
def test_links_whose_start_is_fixed_are_sound(source: str) -> None:
    MessageTemplate("t", "b", source)


def test_a_value_neither_ends_a_link_nor_names_a_host() -> None:
    link = MessageTemplate("t", "b", "/{{ event.path }}").render
    assert link({"event": {"path": "/evil.example"}}).deep_link == ""
    assert link({"event": {"path": "\\evil.example"}}).deep_link == "/%5Cevil.example"
    assert clean_link(" shop://a b\nc<d ") == "shop://a%20b%0Ac%3Cd"
