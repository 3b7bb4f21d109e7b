"""Triggers on the catalog, as a policy file writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, Field

from app.policy.fields import STRICT, Amount, DurationMs, Share, names

InterestKind = Literal["viewed", "carted", "favourited", "waited"]


class _Model(BaseModel):
    model_config = STRICT


class ItemModel(_Model):
    """Whom a change of the catalog concerns: those who did something with the item, or like its category."""

    interest: Annotated[list[InterestKind], BeforeValidator(names), Field(min_length=1, max_length=4)] = [
        "viewed",
        "carted",
        "favourited",
        "waited",
    ]
    within: Annotated[DurationMs, Field(ge=3_600_000, le=90 * 86_400_000)] = 30 * 86_400_000
    affinity: Annotated[float, Field(gt=0, le=1000)] | None = None


class PriceDropModel(ItemModel):
    """An item has become cheaper by the share `by`, and costs `price_from` at least."""

    by: Annotated[Share, Field(lt=1)] = 0.05
    price_from: Amount = 0.0
