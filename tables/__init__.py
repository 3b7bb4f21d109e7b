"""Which state exists, and what a restart restores."""
