"""What a process does not use, it does not load: each second of imports is a second in which a worker folds less."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import importlib, sys
importlib.import_module(sys.argv[1])
print(" ".join(sorted(name for name in sys.argv[2].split() if name in sys.modules)))
"""


def loaded(module: str, watched: str) -> str:
    """Which of the modules named in `watched` importing `module` brings."""
    command = [sys.executable, "-c", SCRIPT, module, watched]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


CERTIFICATES = """
import os
from app.light import aiohttp_without_certificates
os.environ["SSL_CERT_FILE"] = "kept"
os.environ.pop("SSL_CERT_DIR", None)
with aiohttp_without_certificates():
    import aiohttp.connector
import ssl
context = aiohttp.connector._SSL_CONTEXT_VERIFIED
print(context.cert_store_stats()["x509"], context.verify_mode == ssl.CERT_REQUIRED, os.environ["SSL_CERT_FILE"])
print(os.environ.get("SSL_CERT_DIR"))
"""


def test_aiohttp_reads_no_certificates_and_would_trust_nobody() -> None:
    found = subprocess.run([sys.executable, "-c", CERTIFICATES], check=True, capture_output=True, text=True, timeout=60)
    assert found.stdout.split() == ["0", "True", "kept", "None"]


@pytest.mark.parametrize("module", ["app.factory", "app.sender.worker", "app.learning.serving"])
def test_serving_does_not_load_river(module: str) -> None:
    assert loaded(module, "river scipy app.learning.learner") == ""


def test_the_sender_does_not_load_the_parts_of_the_worker() -> None:
    assert loaded("app.sender.worker", "app.factory app.core.processor app.policy.load agents.learner") == ""


def test_a_worker_loads_no_client_of_push_services() -> None:
    assert loaded("app.factory", "httpx app.sender.providers.base") == ""


def test_the_learner_does_not_load_all_of_rivers_statistics() -> None:
    assert loaded("app.learning.learner", "numpy scipy pandas river.stats river.drift river.linear_model") == "numpy"
