"""The `policy` topic as a value: which versions there are, which is in force, and what the next one is.

Pure: records in, answers out. Whoever reads the topic feeds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from app.core.plan import Plan
from schemas.policies import BadPolicyVersion, PolicyVersion, decode_policy_version, head_key, history_key

HISTORY_MAX: Final = 50
"""Versions of a policy that are kept; `expired` names the older ones."""

_SERIAL_DIGITS_MAX: Final = 18


class NoVersion(LookupError):
    """There is no such version; the message says what there is."""


class PolicyLog:
    """What the topic has said so far.

    Parameters
    ----------
    secret
        The key that versions must be signed with; others are counted in `refused` and otherwise ignored.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._heads: dict[str, PolicyVersion] = {}
        self._history: dict[str, dict[int, PolicyVersion]] = {}
        self.refused: list[str] = []

    def apply(self, key: bytes | None, value: bytes | None, _offset: int = 0) -> PolicyVersion | None:
        """Take in one record, oldest first. Returns the version when it is one that is now in force."""
        if key is None or value is None:
            self._forget(key or b"")
            return None
        try:
            version = decode_policy_version(value, self._secret)
        except BadPolicyVersion as exc:
            self.refused.append(str(exc))
            return None
        if key == head_key(version.policy):
            self._heads[version.policy] = version
        elif key != history_key(version.policy, version.serial):
            self.refused.append(f"policy {version.policy!r} version {version.serial} stands under another's key")
            return None
        self._history.setdefault(version.policy, {})[version.serial] = version
        return version if key == head_key(version.policy) else None

    def _forget(self, key: bytes) -> None:
        name, _, serial = key.decode(errors="replace").partition("@")
        if not serial:
            self._heads.pop(name, None)
        elif serial.isdecimal() and len(serial) <= _SERIAL_DIGITS_MAX:  # int() raises for thousands of them
            self._history.get(name, {}).pop(int(serial), None)

    def names(self) -> list[str]:
        """The policies that have a version in force."""
        return sorted(self._heads)

    def head(self, policy: str) -> PolicyVersion | None:
        """The version in force."""
        return self._heads.get(policy)

    def history(self, policy: str) -> list[PolicyVersion]:
        """Every version that is known, oldest first."""
        return [version for _, version in sorted(self._history.get(policy, {}).items())]

    def fallbacks(self, policy: str) -> Sequence[PolicyVersion]:
        """The version in force and then those before it, newest first: what a worker may serve, in that order."""
        head = self._heads.get(policy)
        if head is None:
            return ()
        return [head, *(v for v in reversed(self.history(policy)) if v.serial < head.serial)]

    def successor(self, plan: Plan, policy: str, text: str, *, author: str, at_ms: int) -> PolicyVersion:
        """The next version of a policy, unsigned. `plan` is what `text` compiles to."""
        serials = self._history.get(policy, {})
        return PolicyVersion(
            policy=policy,
            serial=max(serials, default=0) + 1,
            version=plan.version,
            text=text,
            author=author,
            at_ms=at_ms,
            features=[feature.text for feature in plan.features],
            segments=[segment.name for segment in plan.segments],
        )

    def rollback(self, policy: str, serial: int | None, *, author: str, at_ms: int) -> PolicyVersion:
        """The next version, with the text of an earlier one: of `serial`, or of what was in force before.

        Raises
        ------
        NoVersion
            When there is none such, or it is in force already.
        """
        head = self._heads.get(policy)
        if head is None:
            raise NoVersion(f"no version of policy {policy!r} was ever applied")
        known = self._history[policy]
        wanted = serial if serial is not None else max((s for s in known if s < head.serial), default=0)
        old = known.get(wanted)
        if old is None:
            there = ", ".join(map(str, sorted(known)))
            missing = f"version {serial}" if serial is not None else f"version before {head.serial}"
            raise NoVersion(f"policy {policy!r} has no {missing}; it has {there}")
        if old.version == head.version:
            raise NoVersion(f"version {old.serial} of policy {policy!r} is what is in force already ({head.version})")
        serial = max(known) + 1
        return msgspec.structs.replace(
            old, serial=serial, author=author, at_ms=at_ms, restores=old.restores or old.serial, signature=""
        )

    def expired(self, policy: str) -> list[bytes]:
        """Keys of versions beyond `HISTORY_MAX`, to be deleted."""
        head = self._heads.get(policy)
        serials = sorted(self._history.get(policy, {}))[:-HISTORY_MAX]
        return [history_key(policy, serial) for serial in serials if head is None or serial != head.serial]
