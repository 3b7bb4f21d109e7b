"""The topic `policy` as a value: what is in force, what may be served, what a rollback publishes."""

from __future__ import annotations

import msgspec
import pytest

from app.policy.load import load_policy_text
from app.policy.versions import HISTORY_MAX, NoVersion, PolicyLog
from schemas.policies import PolicyVersion, encode_policy_version, head_key, history_key

SECRET = b"secret"


def text(number: int) -> str:
    return (
        f'version: {number}\nname: shop\nsegments:\n  - {{name: s{number}, when: \'count("E{number}", "7d") > 1\'}}\n'
    )


def put(log: PolicyLog, version: PolicyVersion, *, head: bool = True, secret: bytes = SECRET) -> None:
    value = encode_policy_version(version, secret)
    log.apply(history_key(version.policy, version.serial), value)
    if head:
        log.apply(head_key(version.policy), value)


def apply(log: PolicyLog, number: int) -> PolicyVersion:
    version = log.successor(load_policy_text(text(number)), "shop", text(number), author="ann", at_ms=number)
    put(log, version)
    return version


def test_versions_are_numbered_from_one_and_the_newest_is_in_force() -> None:
    log = PolicyLog(SECRET)
    assert [apply(log, number).serial for number in (7, 8, 9)] == [1, 2, 3]
    head = log.head("shop")
    assert head is not None
    assert head.text == text(9)
    assert head.segments == ["s9"]
    assert len(head.features) == 1
    assert log.names() == ["shop"]


def test_a_version_without_the_head_is_not_in_force_and_its_number_is_not_given_again() -> None:
    log = PolicyLog(SECRET)
    first = apply(log, 1)
    put(log, msgspec.structs.replace(first, serial=2), head=False)
    assert [version.serial for version in log.fallbacks("shop")] == [1]
    assert apply(log, 3).serial == 3


def test_a_rollback_is_a_version_of_its_own_with_the_text_of_the_one_before() -> None:
    log = PolicyLog(SECRET)
    apply(log, 1)
    apply(log, 2)
    back = log.rollback("shop", None, author="bob", at_ms=9)
    assert (back.serial, back.restores, back.text, back.author) == (3, 1, text(1), "bob")
    put(log, back)
    again = log.rollback("shop", None, author="bob", at_ms=10)
    assert (again.serial, again.restores, again.text) == (4, 2, text(2))
    named = log.rollback("shop", 2, author="bob", at_ms=10)
    assert named.text == text(2)


@pytest.mark.parametrize(("policy", "serial"), [("shop", 5), ("shop", 1), ("shop", None), ("other", None)])
def test_a_rollback_to_what_is_not_there_or_in_force_is_refused(policy: str, serial: int | None) -> None:
    log = PolicyLog(SECRET)
    apply(log, 1)
    with pytest.raises(NoVersion):
        log.rollback(policy, serial, author="bob", at_ms=9)


def test_a_version_with_another_signature_or_under_anothers_key_changes_nothing() -> None:
    log = PolicyLog(SECRET)
    first = apply(log, 1)
    forged = msgspec.structs.replace(first, serial=2, text=text(2))
    put(log, forged, secret=b"guess")
    log.apply(b"news", encode_policy_version(first, SECRET))
    log.apply(b"shop", b"no json")
    head = log.head("shop")
    assert head is not None
    assert head.text == text(1)
    assert len(log.refused) == 4
    assert len(log.history("shop")) == 1


def test_old_versions_expire_but_never_the_one_in_force() -> None:
    log = PolicyLog(SECRET)
    for number in range(1, HISTORY_MAX + 4):
        apply(log, number)
    assert log.expired("shop") == [b"shop@1", b"shop@2", b"shop@3"]
    for key in log.expired("shop"):
        log.apply(key, None)
    assert log.expired("shop") == []
    assert len(log.history("shop")) == HISTORY_MAX


def test_a_key_that_no_version_has_takes_none_away() -> None:
    log = PolicyLog(SECRET)
    apply(log, 1)
    for serial in ("9" * 5_000, "²", "-1", "x"):
        log.apply(f"shop@{serial}".encode(), None)
    assert [version.serial for version in log.history("shop")] == [1]
