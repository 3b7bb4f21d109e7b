"""The fake push services in a process of their own, on granian: the tests' hypercorn would be the bottleneck.

FAKE_KEYS=DIRECTORY FAKE_DELAY_S=5 granian --interface asgi … benchmarks.push_fake:app
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.children import Child
from app.embedded import free_port
from benchmarks.common import ROOT, BenchmarkFailed
from tests.support.push.fake import Behaviour, FakePush
from tests.support.push.keys import Keys

_START_S = 20.0


class _Forgetful(dict):  # type: ignore[type-arg]
    """Counts nothing: the fake must not grow with what it has accepted."""

    def __missing__(self, key: str) -> int:
        return 0

    def __setitem__(self, key: str, value: int) -> None:
        pass


def _fake() -> FakePush:
    keys = Keys(Path(os.environ["FAKE_KEYS"]))
    fake = FakePush(keys, record=False, otherwise=Behaviour(delay_s=float(os.environ.get("FAKE_DELAY_S", "0"))))
    fake.accepted = _Forgetful()  # type: ignore[assignment]
    return fake


if "FAKE_KEYS" in os.environ:
    app = _fake()


@contextmanager
def serving(keys: Keys, *, delay_s: float = 0.0) -> Iterator[str]:
    """Run the fakes; gives their URL."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "granian", "--interface", "asgi", "--no-ws", "--workers", "1"),
        *("--host", "127.0.0.1", "--port", str(port), "--http2-max-concurrent-streams", "1000"),
        *("--ssl-certificate", str(keys.certificate), "--ssl-keyfile", str(keys.certificate_key)),
        *("--log-level", "error", "benchmarks.push_fake:app"),
    ]
    env = os.environ | {"FAKE_KEYS": str(keys.directory), "FAKE_DELAY_S": str(delay_s), "PYTHONPATH": str(ROOT)}
    child = Child("fake push services", command, env=env)
    try:
        _await_port(child, port)
        yield f"https://localhost:{port}"
    finally:
        child.kill()


def _await_port(child: Child, port: int) -> None:
    deadline = time.monotonic() + _START_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if child.returncode is not None or time.monotonic() > deadline:
            raise BenchmarkFailed(f"the fake does not listen:\n{child.log_tail()}")
        time.sleep(0.05)
