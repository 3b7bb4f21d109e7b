"""What a fetch brought of one partition; an agent is given those of all partitions of its topic together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple


class RecordBatch:
    """Consecutive records of one partition, and the duty to say when all that follows from them is durable.

    Parameters
    ----------
    records
        Records as `app.stream.fetch` gives them, offsets ascending (with gaps where compaction or transactions left
        them).
    generation
        The consumer group's generation in which they were fetched.
    on_begin, on_complete, on_give_back
        The consumer's side of `begin`, `complete` and `give_back`.
    """

    __slots__ = (
        "_on_begin",
        "_on_complete",
        "_on_give_back",
        "generation",
        "next_offset",
        "partition",
        "records",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        partition: int,
        records: Sequence[Any],
        generation: int,
        on_begin: Callable[[RecordBatch], bool],
        on_complete: Callable[[RecordBatch], None],
        on_give_back: Callable[[RecordBatch], None] | None = None,
    ) -> None:
        assert records, "a batch holds at least one record"
        self.topic = topic
        self.partition = partition
        self.records = records
        self.generation = generation
        self.next_offset: int = records[-1].offset + 1
        self._on_begin = on_begin
        self._on_complete = on_complete
        self._on_give_back = on_give_back

    @property
    def first_offset(self) -> int:
        """Offset of the first record."""
        offset: int = self.records[0].offset
        return offset

    def begin(self) -> bool:
        """Ask to process the batch.

        False when its partition is being given up: drop it without a trace, whoever owns the partition next
        reads it again. After True, `complete` or `give_back` must follow, or the process must end.
        """
        return self._on_begin(self)

    def complete(self) -> None:
        """Everything that follows from this batch is durable: its offset may be committed."""
        self._on_complete(self)

    def give_back(self) -> None:
        """Part of it is left undone, durably so: its offset and those after it are not committed in this generation.

        Only while the partition is being given up: whoever owns it next reads the batch again.
        """
        assert self._on_give_back is not None, "this consumer does not take batches back"
        self._on_give_back(self)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        return f"RecordBatch({self.topic}[{self.partition}] {self.first_offset}..{self.next_offset - 1})"


class Portion(NamedTuple):
    """Records of a batch that are processed in one go; with the `last` of them all have been."""

    batch: RecordBatch
    records: Sequence[Any]
    last: bool


def portions(batches: Iterable[RecordBatch], records_max: int) -> Iterator[list[Portion]]:
    """Cut batches into portions of at most `records_max` records; those of small batches together, up to as many.

    Each batch is begun when its turn comes. One that may not be begun is left out.
    """
    together: list[Portion] = []
    records = 0
    for batch in batches:
        if together and records + len(batch) > records_max:
            yield together
            together, records = [], 0
        if not batch.begin():
            continue
        end = (len(batch) - 1) // records_max * records_max
        for start in range(0, end, records_max):
            yield [Portion(batch, batch.records[start : start + records_max], last=False)]
        together.append(Portion(batch, batch.records[end:], last=True))
        records += len(batch) - end
    if together:
        yield together
