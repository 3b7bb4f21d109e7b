"""The checks of the locked packages: known vulnerabilities, asked of a service of our own on loopback, and licences."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support import audit, licences
from tests.support.audit import Osv
from tests.support.locked import exceptions, pins

RECORDS = {
    "GHSA-1": {"id": "GHSA-1", "aliases": ["CVE-1"], "summary": "a hole"},
    "GHSA-2": {"id": "GHSA-2", "summary": "not one after all", "withdrawn": "2026-01-01T00:00:00Z"},
    "GHSA-3": {"id": "GHSA-3", "summary": "on the second page"},
}
FIRST = {"bad": {"vulns": [{"id": "GHSA-1"}, {"id": "GHSA-2"}], "next_page_token": "more"}}
SECOND = {"bad": {"vulns": [{"id": "GHSA-3"}]}}


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(RECORDS[self.path.rpartition("/")[2]])

    def do_POST(self) -> None:
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        pages = [SECOND if query.get("page_token") == "more" else FIRST for query in queries]
        self._answer(
            {"results": [page.get(query["package"]["name"], {}) for page, query in zip(pages, queries, strict=True)]}
        )

    def _answer(self, body: Any) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_args: Any) -> None:
        pass


@pytest.fixture
def service() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_what_is_known_is_found_on_every_page_and_what_was_withdrawn_is_not(service: str) -> None:
    found = Osv(service).known([("good", "1"), ("bad", "2")])
    assert [(each.package, sorted(each.names)) for each in found] == [
        ("bad==2", ["CVE-1", "GHSA-1"]),
        ("bad==2", ["GHSA-3"]),
    ]


def test_the_lock_as_it_is_has_none_that_this_service_knows(service: str) -> None:
    assert audit.main(["--service", service]) == 0


@pytest.mark.parametrize(("tolerated", "code"), [([], 1), (["CVE-1"], 1), (["CVE-1", "GHSA-3"], 0)])
def test_a_known_one_fails_until_it_is_tolerated(service: str, tolerated: list[str], code: int) -> None:
    assert audit.judge(service, [("good", "1"), ("bad", "2")], tolerated) == code


def test_a_service_that_does_not_answer_is_told_and_fails_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["--service", "http://127.0.0.1:1"]) == 0
    assert capsys.readouterr().out.startswith("NOT CHECKED")


def test_every_line_of_the_lock_is_asked_for() -> None:
    assert dict(pins())["aiokafka"].startswith("0.14.")
    assert len(set(pins())) > 100


@pytest.mark.parametrize(
    "entry", ['reason = ""\nuntil = 2026-12-31', 'reason = "x"', 'reason = "x"\nuntil = 2026-01-01']
)
def test_an_exception_needs_a_reason_and_a_day_that_has_not_passed(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "exceptions.toml"
    file.write_text(f'[[licence]]\nid = "x"\n{entry}\n')
    with pytest.raises(ValueError, match=r"exceptions\.toml: licence x"):
        exceptions("licence", date(2026, 6, 1), file)


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"License-Expression": "MIT OR GPL-3.0-only"}, "MIT OR GPL-3.0-only"),
        ({"License": "Apache License, Version 2.0\n\nmore"}, "Apache-2.0"),
        ({"License": "Copyright (c) 2015, somebody"}, ""),
        ({}, ""),
    ],
)
def test_a_licence_is_read_however_it_is_stated(stated: dict[str, str], expected: str) -> None:
    assert licences.licence(stated) == expected


@pytest.mark.parametrize(
    ("expression", "bad"),
    [
        ("MIT", []),
        ("MIT OR GPL-3.0-only", []),
        ("MPL-2.0 AND (Apache-2.0 OR MIT)", []),
        ("MIT AND GPL-3.0-only", ["GPL-3.0-only"]),
        ("AGPL-3.0-or-later", ["AGPL-3.0-or-later"]),
    ],
)
def test_a_licence_that_would_bind_us_is_refused(expression: str, bad: list[str]) -> None:
    assert licences.refused(expression) == bad
