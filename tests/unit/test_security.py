"""What docs/security.md promises and no other test shows: what listens, what is refused, what is never called."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry

from app.faust_settings import faust_settings
from app.health import HealthServer
from app.settings import ConfigurationError, Settings, load_settings

ROOT = Path(__file__).parents[2]
SECRET = "f3a9c1d27b604e85a1c2d3e4f5061728394a5b6c7d8e9f00112233445566778b"
PROD: dict[str, Any] = {"secret": SECRET, "profile": "prod"}
SASL: dict[str, Any] = {"sasl_username": "nudge", "sasl_password": "a-password"}

NEVER_IMPORTED = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "jinja2", "xmlrpc", "telnetlib"}
NEVER_CALLED = {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system", "subprocess.getoutput"}


def test_a_password_without_tls_is_refused_in_production_and_the_variable_named() -> None:
    with pytest.raises(ConfigurationError, match="NUDGE_SECURITY_PROTOCOL"):
        load_settings(**PROD, **SASL, security_protocol="SASL_PLAINTEXT")
    assert load_settings(profile="dev", **SASL, security_protocol="SASL_PLAINTEXT").ssl_context() is None


def test_a_password_travels_with_a_tls_context_in_faust_and_in_our_clients(tmp_path: Path) -> None:
    settings = load_settings(**PROD, **SASL, security_protocol="SASL_SSL", data_dir=tmp_path)
    credentials = faust_settings(settings, "group")["broker_credentials"]
    assert credentials.ssl_context is not None
    assert credentials.ssl_context.check_hostname
    assert settings.client_settings()["ssl_context"].check_hostname


def test_sasl_without_a_user_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="NUDGE_SASL_USERNAME"):
        load_settings(**PROD, security_protocol="SASL_SSL")


def test_production_without_a_secret_of_its_own_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="NUDGE_SECRET"):
        load_settings(profile="prod")


def test_no_secret_is_printed() -> None:
    shown = Settings(**PROD, **SASL, security_protocol="SASL_SSL", privacy_secret="another-secret").shown()
    printed = "\n".join(f"{name}={value}" for name, value in shown.items())
    assert not {text for text in (SECRET, "a-password", "another-secret") if text in printed}


def test_everything_listens_on_loopback_unless_told(tmp_path: Path) -> None:
    defaults = Settings(**PROD, data_dir=tmp_path)
    assert (defaults.http_host, defaults.console_host) == ("127.0.0.1", "127.0.0.1")
    assert faust_settings(defaults, "group")["web_enabled"] is False, "Faust's /table and /router have no password"


@pytest.mark.parametrize("path", ["/table", "/table/", "/router", "/router/", "/", "/admin/user", "/admin"])
async def test_the_port_of_a_process_serves_health_and_metrics_and_nothing_else(path: str) -> None:
    server = HealthServer("127.0.0.1", 0, CollectorRegistry(), dict)
    await server.start()
    try:
        async with aiohttp.ClientSession() as client:
            async with client.get(f"http://127.0.0.1:{server.port}/livez") as answer:
                assert answer.status == 200
            async with client.get(f"http://127.0.0.1:{server.port}{path}") as answer:
                assert answer.status == 404
    finally:
        await server.stop()


def shipped() -> Iterator[tuple[str, ast.AST]]:
    for top in ("schemas", "app", "agents", "tables"):
        for path in sorted((ROOT / top).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def dangers(tree: ast.AST) -> list[str]:
    """What could run somebody else's code."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [name.name for name in node.names if name.name.partition(".")[0] in NEVER_IMPORTED]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in NEVER_IMPORTED:
            found.append(node.module or "")
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in NEVER_CALLED:
            found.append(ast.unparse(node.func))
        elif isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) != "False":
            found.append("shell=")
    return found


def test_nothing_untrusted_is_unpickled_loaded_or_given_to_a_shell() -> None:
    assert {name: found for name, tree in shipped() if (found := dangers(tree))} == {}


@pytest.mark.parametrize(
    "source", ["import pickle", "from dill import loads", "yaml.load(text)", "subprocess.run(x, shell=True)"]
)
def test_a_danger_is_found(source: str) -> None:
    assert dangers(ast.parse(source))


def test_code_is_generated_in_one_place_only() -> None:
    """Segments are compiled from a checked tree; their text never reaches exec."""
    callers = {
        name
        for name, tree in shipped()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("exec", "eval", "compile")
    }
    assert callers == {"app/core/expression_codegen.py"}
