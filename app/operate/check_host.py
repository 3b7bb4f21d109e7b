"""What the doctor looks at on this machine: versions, interpreter, secrets, addresses, disk, limits, policy file."""

from __future__ import annotations

import ipaddress
import math
import os
import shutil
import socket
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

from app.compiled import stale
from app.operate.findings import Finding, Findings, Status
from app.policy.errors import PolicyErrors
from app.policy.load import load_policy
from app.runtime import BUILDS, COMPILE, Runtime
from app.settings import DEV_SECRET, Settings

PINNED: Final = {"faust-streaming": "0.15.3", "aiokafka": "0.14."}
"""Versions whose private attributes are used: any other is a risk (docs/adr/0002)."""
SECRET_CHARS_MIN: Final = 32
SECRET_BITS_MIN: Final = 96
DISK_BYTES_MIN: Final = 1 << 30
DISK_SHARE_LOW: Final = 0.15
FILES_MIN: Final = 4096


def check_versions() -> Findings:
    """Ours, and those of libraries whose inner workings are relied upon."""
    found = [Finding("versions", "ok", f"nudge {version('nudge-engine')}")]
    for package, wanted in PINNED.items():
        actual = version(package)
        if not actual.startswith(wanted):
            mend = f"pip install '{package}=={wanted}{'*' if wanted.endswith('.') else ''}'"
            found.append(Finding("versions", "fail", f"{package} {actual}; tested with {wanted}", mend))
    return found


def check_runtime(settings: Settings, here: Runtime, tested: Sequence[str]) -> Findings:
    """The interpreter, the core and the event loop: what works, and what costs processor time.

    Parameters
    ----------
    tested
        Versions of Python that nudge is tested with, such as `3.11`; empty where that is not known.
    """
    return [_interpreter(here, tested), _core(here, production=settings.profile == "prod"), _loop(here)]


def _interpreter(here: Runtime, tested: Sequence[str]) -> Finding:
    says = here.interpreter()
    mend = f"take an ordinary build of Python {' or '.join(tested[-1:]) or '3'}, as the image has"
    if here.build in BUILDS.values():
        return Finding("runtime", "warn", f"{says}: not a build for production", mend)
    if tested and here.python.split()[-1].rpartition(".")[0] not in tested:
        return Finding("runtime", "warn", f"{says}; tested with {', '.join(tested)}", mend)
    return Finding("runtime", "ok", says)


def _core(here: Runtime, *, production: bool) -> Finding:
    if old := stale():
        says = f"the compiled core is older than its source: {', '.join(old)}"
        return Finding("runtime", "fail", says, "make compile, or make clean")
    if here.core == "interpreted" and production:
        return Finding("runtime", "warn", "the core is interpreted: an event costs more processor time", COMPILE)
    return Finding("runtime", "ok", f"the core is {here.core}")


def _loop(here: Runtime) -> Finding:
    if here.loop == "asyncio":
        return Finding("runtime", "warn", "Python's own event loop: an event costs more", "pip install uvloop")
    return Finding("runtime", "ok", f"event loop: {here.loop}")


def check_secrets(settings: Settings) -> Findings:
    """Long and random enough that nobody finds them by trying."""
    found = []
    mend = "set it to the output of `openssl rand -hex 32`, the same for all processes"
    secret = settings.secret.get_secret_value()
    if secret == DEV_SECRET:
        found.append(Finding("secrets", "warn", "NUDGE_SECRET is the one for development, which everybody knows", mend))
    else:
        found.append(_secret("NUDGE_SECRET", secret, mend))
    privacy = settings.privacy_secret.get_secret_value()
    if privacy:
        found.append(
            _secret("NUDGE_PRIVACY_SECRET", privacy, "it must not change once users were erased; choose it well")
        )
    else:
        says = "NUDGE_PRIVACY_SECRET is not set: NUDGE_SECRET recognises erased users and can never be changed"
        found.append(
            Finding("secrets", "warn", says, "set it before the first erasure, to NUDGE_SECRET if there was one")
        )
    for name in ("admin_token", "console_token"):
        token = getattr(settings, name).get_secret_value()
        if token:
            found.append(_secret(f"NUDGE_{name.upper()}", token, mend))
    return found


def _secret(name: str, value: str, mend: str) -> Finding:
    bits = entropy_bits(value)
    if len(value) >= SECRET_CHARS_MIN and bits >= SECRET_BITS_MIN:
        return Finding("secrets", "ok", f"{name} is long enough")
    return Finding("secrets", "fail", f"{name} is weak: {len(value)} characters, at most {bits:.0f} bits", mend)


def entropy_bits(text: str) -> float:
    """Shannon entropy of the text's own characters, times its length: an upper bound for what it may hide.

    Examples
    --------
    >>> entropy_bits("aaaa")
    0.0
    """
    counts = Counter(text)
    bits = -sum(count * math.log2(count / len(text)) for count in counts.values())
    return abs(bits)


def check_addresses(settings: Settings) -> Findings:
    """What is listened on, and whether it can be."""
    found = [_address("NUDGE_HTTP_HOST", settings.http_host), _address("NUDGE_CONSOLE_HOST", settings.console_host)]
    if settings.http_port:
        found.append(_port(settings.http_host, settings.http_port))
    plain = settings.security_protocol in ("PLAINTEXT", "SASL_PLAINTEXT")
    if plain and not all(_is_local(server) for server in settings.broker.split(",")):
        says = f"NUDGE_SECURITY_PROTOCOL={settings.security_protocol}: events and decisions travel in clear"
        found.append(Finding("addresses", "warn", says, "use SSL or SASL_SSL, unless the network itself is encrypted"))
    return found


def _address(variable: str, host: str) -> Finding:
    if ipaddress.ip_address(host).is_loopback:
        return Finding("addresses", "ok", f"{variable}={host}")
    mend = "let nobody but the monitoring reach it (firewall, network policy): it has no password"
    return Finding("addresses", "warn", f"{variable}={host} can be reached from other machines", mend)


def _port(host: str, port: int) -> Finding:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as exc:
            says = f"port {port} on {host} cannot be taken: {exc.strerror}"
            return Finding("addresses", "warn", says, "fine if a nudge process has it; else set NUDGE_HTTP_PORT")
    return Finding("addresses", "ok", f"port {port} is free")


def _is_local(server: str) -> bool:
    host = server.strip().rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_disk(directory: Path) -> Findings:
    """Room for the row stores, and permission to write them."""
    place = directory.absolute()
    while not place.exists():
        place = place.parent
    usage = shutil.disk_usage(place)
    says = f"{usage.free / (1 << 30):.1f} GB of {usage.total / (1 << 30):.1f} GB free at {place}"
    mend = "make room, or set NUDGE_DATA_DIR to a larger disk: a worker that cannot write ends"
    if usage.free < DISK_BYTES_MIN:
        status: Status = "fail"
    else:
        status = "warn" if usage.free < DISK_SHARE_LOW * usage.total else "ok"
    found = [Finding("disk", status, says, "" if status == "ok" else mend)]
    if not _writable(place):
        found.append(
            Finding("disk", "fail", f"{place} cannot be written to", "give this user the right, or another folder")
        )
    return found


def _writable(place: Path) -> bool:
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)


def check_files() -> Findings:
    """RocksDB keeps its files open, a few dozen for each partition."""
    import resource  # noqa: PLC0415 - absent on Windows

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES_MIN:
        return [Finding("files", "ok", f"{soft} open files are allowed")]
    mend = f"ulimit -n {FILES_MIN} (at most {hard} here), or LimitNOFILE= in the unit file"
    return [Finding("files", "warn", f"only {soft} open files are allowed; many partitions need more", mend)]


def check_policy_file(settings: Settings) -> Findings:
    """The file that is in force until the topic has a version."""
    if settings.policy is None:
        return []
    try:
        plan = load_policy(settings.policy)
    except PolicyErrors as exc:
        return [Finding("policy", "fail", str(exc), f"mend {settings.policy}; `nudge policy validate` says more")]
    return [Finding("policy", "ok", f"{settings.policy} is valid, version {plan.version}")]
