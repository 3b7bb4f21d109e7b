"""`top(10, number)` and `bottom(10, number)`: comparisons with thresholds that follow the users."""

from __future__ import annotations

import ast
from typing import Final

from app.core.expression_builder import Builder, Call
from app.core.expression_ir import Atom, Combined, Truth, quote
from app.core.percentiles import make_cut

CUT_GLOBAL: Final = "cut"
"""The name under which compiled code asks for a threshold: `Thresholds.get` of the policy."""


def _beyond(*, top: bool) -> Builder:
    def build(call: Call) -> Truth:
        percent = call.number(0, "a percentage first", 0)
        if not 0 < percent < 100:
            raise call.fail("a percentage is above 0 and below 100", 0)
        number, among, text = call.measured(1)
        cut = make_cut(text, percent, top=top)
        call.threshold(cut, text)
        asked = ast.Name(CUT_GLOBAL, ast.Load())
        code = quote("BEYOND(V, ASK(ID))", V=number.code, ASK=asked, ID=cut.id,
                     BEYOND=ast.Name("above" if top else "below", ast.Load()))  # fmt: skip
        beyond = Atom(code, number.step)
        return beyond if among is None else Combined("all", (among, beyond))

    return build


OF_PERCENTILES: Final[dict[str, tuple[int, int, bool, Builder]]] = {
    "top": (2, 2, True, _beyond(top=True)),
    "bottom": (2, 2, True, _beyond(top=False)),
}
KEYWORDS: Final = dict.fromkeys(OF_PERCENTILES, "among")
"""What the functions call their named argument, in place of `where`."""
