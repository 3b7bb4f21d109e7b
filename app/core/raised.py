"""What may be said of an exception whose text may hold personal data."""

from __future__ import annotations


def where_raised(exc: Exception) -> str:
    """Type and place of an exception, without its text, which may hold personal data."""
    trace = exc.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return type(exc).__name__
    file = trace.tb_frame.f_code.co_filename.rpartition("/")[2]
    return f"{type(exc).__name__} at {file}:{trace.tb_lineno}"
