"""What the doctor reads from the compacted topics: the policies and the models in force."""

from __future__ import annotations

from typing import Final

import msgspec

from app.learning.contract import BadModel
from app.learning.serving import read_scorer
from app.operate.findings import Finding, Findings
from app.policy_topic import read_log
from app.settings import Settings
from app.stream.broadcast import read_to_end
from schemas.models import BadSignature, ModelSnapshot, decode_snapshot
from schemas.topics import DAY_MS, MODELS

MODEL_AGE_MS_MAX: Final = DAY_MS


async def check_policy(settings: Settings) -> Findings:
    """The policies on the topic: signed with our key, and one of them the one we would serve."""
    log = await read_log(settings.client_settings(), settings.secret_bytes())
    names = log.names()
    if not names:
        if settings.policy is None:
            mend = "`nudge policy apply FILE`, or set NUDGE_POLICY"
            return [Finding("policy", "fail", "no policy on the topic that is signed with our key, and no file", mend)]
        return [Finding("policy", "ok", "no policy on the topic: the file is in force")]
    if settings.policy_name and settings.policy_name not in names:
        says = f"NUDGE_POLICY_NAME={settings.policy_name}, but the topic has {', '.join(names)}"
        return [Finding("policy", "fail", says, "mend the name, or apply that policy")]
    return [Finding("policy", "ok", f"on the topic: {', '.join(names)}")]


async def check_models(settings: Settings) -> Findings:
    """The newest snapshot of each model: ours, readable and fresh."""
    newest: dict[bytes, bytes] = {}

    def keep(key: bytes | None, value: bytes | None, _offset: int) -> None:
        if value is not None:
            newest[key or b""] = value

    await read_to_end(settings.client_settings(), MODELS, keep, 60.0)
    if not newest:
        return [Finding("models", "ok", "no snapshot yet: the prior is served until the learner publishes one")]
    now_ms = settings.make_clock().now_ms()
    return [judge_snapshot(value, settings.secret_bytes(), now_ms) for value in newest.values()]


def judge_snapshot(raw: bytes, secret: bytes, now_ms: int) -> Finding:
    """Whether a worker would serve this snapshot, and how old it is."""
    try:
        snapshot: ModelSnapshot = decode_snapshot(raw, secret)
        read_scorer(snapshot)
    except BadSignature as exc:
        mend = "give all processes the same NUDGE_SECRET; delete the key from `models` to start anew"
        return Finding("models", "fail", str(exc), mend)
    except (BadModel, msgspec.MsgspecError) as exc:
        return Finding("models", "fail", str(exc), "another version of nudge wrote it: run one version everywhere")
    age_ms = now_ms - snapshot.created_ms
    says = f"{snapshot.model}: version {snapshot.version}, {age_ms / 3_600_000:.1f} h old"
    if age_ms > MODEL_AGE_MS_MAX:
        mend = "is a worker running, and are there outcomes? See the runbook learner-stale"
        return Finding("models", "warn", says, mend)
    return Finding("models", "ok", says)
