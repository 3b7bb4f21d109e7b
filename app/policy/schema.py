"""The JSON Schema of policy files, for editors: ``python -m app.policy.schema > policy.schema.json``."""

from __future__ import annotations

import json
import sys
from typing import Any

from app.policy.model import PolicyModel


def policy_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a policy file."""
    schema = PolicyModel.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "nudge policy"}


if __name__ == "__main__":
    json.dump(policy_schema(), sys.stdout, indent=2)
    sys.stdout.write("\n")
