"""Known vulnerabilities of the locked packages, asked of OSV: one request for all of them.

    python -m tests.support.audit [--service URL]

Fails when one is known that .ci/exceptions.toml does not tolerate. When the service cannot be reached, it says so and
passes: a change must not wait for somebody else's server.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.request
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tests.support.locked import exceptions, pins

SERVICE: Final = "https://api.osv.dev"
TIMEOUT_S: Final = 8
"""Of one request; there is one for the lock, and one for each vulnerability that is found."""
PAGES_MAX: Final = 10


@dataclass(frozen=True)
class Vulnerability:
    """One of OSV's records; `names` are its id and what others call it."""

    package: str
    names: frozenset[str]
    summary: str

    def __str__(self) -> str:
        return f"{self.package}: {', '.join(sorted(self.names))}: {self.summary or 'no summary'}"


class Osv:
    """The part of OSV's interface (v1) that is used here."""

    def __init__(self, service: str = SERVICE) -> None:
        self._service = service.rstrip("/")

    def _call(self, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._service + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
            return json.load(answer)

    def known(self, packages: Sequence[tuple[str, str]]) -> list[Vulnerability]:
        """Every vulnerability of these versions that was not withdrawn."""
        found: dict[tuple[str, str], None] = {}
        asked: list[tuple[tuple[str, str], str]] = [(package, "") for package in packages]
        for _ in range(PAGES_MAX):
            if not asked:
                break
            answers = self._call("/v1/querybatch", {"queries": [_query(*each) for each in asked]})["results"]
            assert len(answers) == len(asked), "one answer for each question"
            for (package, _token), answer in zip(asked, answers, strict=True):
                found |= {("==".join(package), each["id"]): None for each in answer.get("vulns", ())}
            asked = [
                (package, answer["next_page_token"])
                for (package, _token), answer in zip(asked, answers, strict=True)
                if answer.get("next_page_token")
            ]
        return [each for package, name in found if (each := self._details(package, name)) is not None]

    def _details(self, package: str, name: str) -> Vulnerability | None:
        record = self._call(f"/v1/vulns/{name}")
        if record.get("withdrawn"):
            return None
        return Vulnerability(package, frozenset({name, *record.get("aliases", ())}), record.get("summary", ""))


def _query(package: tuple[str, str], page_token: str) -> dict[str, Any]:
    name, version = package
    query: dict[str, Any] = {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
    return query | ({"page_token": page_token} if page_token else {})


def judge(service: str, packages: Sequence[tuple[str, str]], tolerated: Collection[str]) -> int:
    """Print what is known of the packages; 1 when something is that is not tolerated."""
    try:
        known = Osv(service).known(packages)
    except (OSError, ValueError, KeyError) as exc:  # urllib's errors are OSErrors
        print(f"NOT CHECKED: {service} does not answer as it should ({type(exc).__name__}); {len(packages)} packages")
        return 0
    bad = [each for each in known if each.names.isdisjoint(tolerated)]
    for each in known:
        print(f"{'KNOWN' if each in bad else 'tolerated'}: {each}")
    print(f"{len(packages)} packages, {len(known)} known vulnerabilities, {len(known) - len(bad)} of them tolerated")
    return 1 if bad else 0


def main(arguments: Sequence[str]) -> int:
    """Judge the lock."""
    parser = argparse.ArgumentParser(description="known vulnerabilities of the locked packages")
    parser.add_argument("--service", default=SERVICE)
    try:
        tolerated = exceptions("vulnerability", datetime.now(UTC).date())
    except ValueError as exc:
        print(exc, file=sys.stderr)
        return 1
    return judge(parser.parse_args(arguments).service, sorted(set(pins())), tolerated)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
