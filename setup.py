"""What is compiled: with NUDGE_COMPILE=1 the modules that run once an event are built by mypyc, from the same sources.

    make compile

Without it nothing is built, and nothing but speed differs (docs/adr/0008). What rows are made of are msgspec structs,
whose metaclass is not mypyc's, so `row_parts` stays as it is.
"""

from __future__ import annotations

import os
from typing import Any

from setuptools import setup

CORE = (
    "answers",
    "arbiter",
    "batch",
    "choose",
    "decide",
    "devices",
    "expression_known",
    "expression_runtime",
    "features",
    "fold",
    "guardrails",
    "id_map",
    "identity",
    "ids",
    "index",
    "interest",
    "items",
    "label_history",
    "lengths",
    "local_time",
    "logged",
    "longs",
    "marks",
    "membership",
    "name_map",
    "owed",
    "packed_map",
    "panes",
    "profile",
    "propensity",
    "rare_fields",
    "render_plain",
    "rfm",
    "run",
    "schedule",
    "timers",
    "traits",
    "triggers",
    "turn",
    "values",
    "weariness",
    "window_map",
)
"""Of `app/core`, those of the hot path."""

STREAM = ("partition", "record_batch", "rows", "timers", "unreadable", "write_back")
"""Of `app/stream`, the loops over rows and records; all that waits stays interpreted."""

LEARNING = ("curves",)
"""Of `app/learning`, what is served: asked once a candidate."""

SOURCES = [
    *(f"app/core/{name}.py" for name in CORE),
    *(f"app/stream/{name}.py" for name in STREAM),
    *(f"app/learning/{name}.py" for name in LEARNING),
]


def extensions() -> list[Any]:
    """The C extensions to build: none unless asked for."""
    if os.environ.get("NUDGE_COMPILE") != "1":
        return []
    from mypyc.build import mypycify  # noqa: PLC0415 - part of mypy, which an ordinary installation has no use for

    options = ["--follow-imports=silent", "--ignore-missing-imports", "--no-warn-unused-ignores"]
    # What they share becomes app/core/compiled__mypyc: beside the modules, since only packages of ours can be imported.
    found = list(mypycify([*options, *SOURCES], opt_level="3", group_name="app.core.compiled"))
    if os.name == "posix":
        for extension in found:
            # Nobody else is to call what they have: so calls among themselves may be direct, and inlined.
            extension.extra_compile_args.append("-fvisibility=hidden")
    return found


setup(ext_modules=extensions())
