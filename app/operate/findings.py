"""What the doctor finds."""

from __future__ import annotations

from typing import Literal

import msgspec

Status = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True):
    """What a check found; `mend` says what to do when all is not well."""

    check: str
    status: Status
    says: str
    mend: str = ""


Findings = list[Finding]
