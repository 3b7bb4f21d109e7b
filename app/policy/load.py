"""Reading a policy file: YAML → shape → plan, with every mistake at its place.

`load_policy` is for files, `load_policy_text` for policies that arrive otherwise.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

from app.core.plan import Plan
from app.policy.compile import Compiler
from app.policy.errors import PolicyError, PolicyErrors
from app.policy.shape import check_shape
from app.policy.source import Document

_HASH_CHARS: Final = 8


def load_policy(path: Path | str) -> Plan:
    """Read, check and compile a policy file.

    Returns
    -------
    Plan
        Its version is the declared one and the beginning of the content's SHA-256: ``2025-03+1a2b3c4d``.

    Raises
    ------
    PolicyErrors
        With every mistake found: file, line, column, field, and the name that was perhaps meant.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else "it is not UTF-8 text"
        raise PolicyErrors([PolicyError(str(path), 1, 1, "", f"the file cannot be read: {reason}")]) from None
    return load_policy_text(text, str(path))


def load_policy_text(text: str, file: str = "policy") -> Plan:
    """As `load_policy`, from a text; `file` is what errors name."""
    document = Document(text, file)
    shaped = check_shape(document)
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH_CHARS]
    return Compiler(document, shaped).compile(f"{shaped.head.version}+{digest}")
