"""Of what a trial decides nothing has to be said again."""

from typing import Final

ACKNOWLEDGED: Final = 2**62
"""An offset below which everything has been acknowledged: beyond any."""
