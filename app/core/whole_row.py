"""A row of which everything is decoded: what is wrong with it is found now, and not when somebody asks."""

from __future__ import annotations

from app.core.profile import Profile, decode_profile


def decode_whole(raw: bytes) -> Profile:
    """As `decode_profile`, with the rare fields. Raises `BadRow`."""
    profile = decode_profile(raw)
    assert profile.outbox is not None  # to ask for one is to decode all
    return profile
