"""How a number is distributed over the users, and the thresholds that follow: a compacted topic, read by every worker.

Each worker writes, for each of its partitions, how many of its users have which value (under `NUMBER/PARTITION`). The
worker that has partition 0 adds those up and writes the thresholds (under `NUMBER/cuts`), which all of them serve. No
user is named.
"""

from __future__ import annotations

import msgspec

from schemas.decoding import json_decoder


class Threshold(msgspec.Struct, rename="camel", frozen=True):
    """Where a percentile begins.

    Parameters
    ----------
    name
        As a policy names it, such as ``top 10``.
    bucket
        Of `app.core.sketch`: who is beyond it belongs.
    value
        A number in that bucket, for people.
    share
        Of the users, those who were beyond it when it was written.
    """

    name: str
    bucket: int
    value: float
    share: float


class Percentiles(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True, frozen=True):
    """One partition's users (`buckets` and how many users each has), or the thresholds over all of them (`cuts`).

    `number` is the number as the policy writes it; `partition` is -1 for the thresholds.
    """

    number: str
    partition: int
    at_ms: int
    users: int
    buckets: list[int] = []
    counts: list[int] = []
    cuts: list[Threshold] = []


_encoder = msgspec.json.Encoder()
_decode = json_decoder(Percentiles)


def percentiles_key(record: Percentiles) -> bytes:
    """The key under which a record stands: the newest of each number and partition is kept."""
    place = "cuts" if record.partition < 0 else str(record.partition)
    return f"{record.number}/{place}".encode()


def encode_percentiles(record: Percentiles) -> bytes:
    """The JSON value of a record of the `percentiles` topic."""
    return _encoder.encode(record)


def decode_percentiles(raw: bytes) -> Percentiles:
    """Raises `msgspec.MsgspecError` when the value is no such record."""
    record = _decode(raw)
    if len(record.buckets) != len(record.counts) or any(count < 0 for count in record.counts):
        raise msgspec.ValidationError("buckets and counts do not fit together")
    return record
