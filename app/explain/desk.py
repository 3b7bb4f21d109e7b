"""The worker's side of an explanation: finds the row, and explains it beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from app.admin import Question
from app.core.decide import FeaturesOf
from app.core.explain import Explainer, UserView, row_as_json
from app.core.processor import Processor
from app.core.profile import Profile
from app.stream.table import RowTable
from app.stream.unreadable import decode_row


class UserAnswer(msgspec.Struct, frozen=True):
    """What a worker says of a user: where the row is, the view, and the row itself where it was asked for."""

    partition: int
    view: UserView
    row: dict[str, object] | None = None


class UserDesk:
    """Answers `app.admin` from the rows of this worker.

    One question at a time, in a thread: compiling the clauses of a large policy for the first time takes a good part
    of a second, which the event loop must not wait for.
    """

    def __init__(
        self, table: RowTable, processor: Processor, features_of: FeaturesOf, clock_ms: Callable[[], int]
    ) -> None:
        self._table = table
        self._processor = processor
        self._features_of = features_of
        self._clock_ms = clock_ms
        self._explainer: Explainer | None = None
        self._one_at_a_time = asyncio.Lock()

    async def answer(self, question: Question) -> bytes | None:
        """The JSON of `UserAnswer`; None when the user has no row here."""
        found = self._table.find(question.user.encode())
        if found is None:
            return None
        partition, raw = found
        profile = decode_row(raw, whole=True)
        if profile is None or profile.erased_ms:  # what is left of an erased user is not theirs to be found by
            return None
        async with self._one_at_a_time:
            return await asyncio.to_thread(self._encode, question, partition, profile)

    def _encode(self, question: Question, partition: int, profile: Profile) -> bytes:
        processor = self._processor
        index, scorer = processor.index, processor.scorer
        explainer = self._explainer
        if explainer is None or explainer.index is not index:
            explainer = self._explainer = Explainer(index, self._features_of)
        contributions = getattr(scorer, "explain_one", None)
        view = explainer.user(
            question.user,
            profile,
            self._clock_ms(),
            scorer,
            contributions,
            processor.choices,
            items=processor.items,
            catalog=processor.catalog,
            percentiles={
                one.text: known for one in processor.measured if (known := processor.percentiles.get(one.text))
            },
        )
        return msgspec.json.encode(UserAnswer(partition, view, row_as_json(profile) if question.row else None))
