"""The newest model that the topic holds, to show what a logged score was made of."""

from __future__ import annotations

from contextlib import suppress

import msgspec

from app.core.choices import NOTHING_KNOWN, Choices
from app.learning.book import ModelBook
from app.learning.contract import BadModel
from app.learning.scorer import Frozen
from app.learning.served_choices import SUFFIX, read_choices
from app.learning.serving import read_scorer
from app.settings import Settings
from app.stream.broadcast import read_to_end
from schemas.models import BadSignature
from schemas.topics import MODELS

READ_S_MAX = 15.0


async def newest_scorer(settings: Settings, model: str = "open") -> tuple[Frozen | None, str]:
    """The model as workers serve it now; or None and why."""
    book = ModelBook(settings.secret_bytes(), lambda name: name == model)
    rejected = 0

    def keep(_key: bytes | None, value: bytes | None, _offset: int) -> None:
        nonlocal rejected
        try:
            book.apply(value or b"")
        except (BadSignature, msgspec.MsgspecError):
            rejected += 1

    try:
        await read_to_end(settings.client_settings(), MODELS, keep, READ_S_MAX)
    except TimeoutError as exc:
        return None, str(exc)
    snapshot = book.served(model)
    if snapshot is None:
        reason = "its snapshots are not signed with NUDGE_SECRET" if rejected else "it has no snapshot yet"
        return None, f"no contributions of model {model!r}: {reason}"
    try:
        return read_scorer(snapshot), ""
    except BadModel as exc:
        return None, str(exc)


async def newest_choices(settings: Settings, model: str = "open") -> Choices:
    """What workers know of variants now; nothing when the topic says nothing that can be read."""
    key = model + SUFFIX
    book = ModelBook(settings.secret_bytes(), lambda name: name == key)

    def keep(_key: bytes | None, value: bytes | None, _offset: int) -> None:
        with suppress(BadSignature, msgspec.MsgspecError):
            book.apply(value or b"")

    try:
        await read_to_end(settings.client_settings(), MODELS, keep, READ_S_MAX)
        snapshot = book.newest(key)
        return read_choices(snapshot) if snapshot is not None else NOTHING_KNOWN
    except (TimeoutError, BadModel):
        return NOTHING_KNOWN
