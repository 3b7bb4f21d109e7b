"""The profiles table: one row per user, everything that is known of them.

Windowed tables in the sense of this project: windows are panes inside the row (`app.core.panes`), so a window costs
one write an event, expires by the clock after a restart too, and is restored with the row.
"""

from __future__ import annotations

from app.stream.app import StreamApp
from app.stream.stores import StoreFactory
from app.stream.table import RowTable
from schemas.topics import PROFILES_CHANGELOG


def profiles_table(app: StreamApp, factory: StoreFactory, partitions: int) -> RowTable:
    """Rows are `app.core.profile.Profile`, keyed by user; changelog `nudge-profiles-changelog`, compacted."""
    return RowTable(app, name="profiles", changelog=PROFILES_CHANGELOG, partitions=partitions, factory=factory)
