"""The console's page in a browser: live figures, both themes, a phone's width, and nothing that the policy forbids."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.browser import browser, chromium
from tests.support.console import console, decided, matured, moved, published

pytestmark = pytest.mark.skipif(chromium() is None, reason="no Chromium here: install it (Debian: chromium)")

DRAWN = "document.documentElement?.dataset.drawn > 0"


async def test_the_page_shows_live_figures(tmp_path: Path) -> None:
    pictures = Path(os.environ.get("NUDGE_PICTURES", tmp_path))
    async with console() as (server, metrics), browser() as page:
        server.tally.decision(decided(1, variant="warm"), time.time_ns() // 1_000_000)
        server.tally.decision(decided(2, "suppress", "quiet_hours"), 0)
        server.tally.membership(moved("families", "enter"))
        for number in range(40):
            server.tally.outcome(matured(number, int(number % 3 == 0), score=number / 50, variant="warm"))
        server.tally.snapshot(published(1, auc=0.6, log_loss=0.6, log_loss_constant=0.69, examples=40))
        server.tally.snapshot(published(2, auc=0.7, log_loss=0.5, log_loss_constant=0.69, examples=50))
        metrics.events.labels("events", "applied").inc(5)
        metrics.segment_members.labels("families").set(12)
        metrics.event_to_decision.observe(0.02)

        await page.look(width=1280, height=900)
        await page.open(server.url)
        await page.until(DRAWN)
        await page.until("document.querySelector('#c-events svg polyline') !== null")
        text = await page.ask("document.body.innerText")
        assert "families" in text
        assert "quiet hours" in text
        assert "shop+1" in text
        await page.until("document.querySelectorAll('#served circle').length === 10")
        assert await page.ask("document.querySelectorAll('#experiment-table svg').length") == 1
        await page.picture(pictures / "console-light.png")
        # A wide figure makes its tile wide, and does not stand out of it.
        wide = "document.querySelectorAll('.tile b')[1].textContent = '12,345 · 67,890'"
        inside = "[...document.querySelectorAll('.tile b')].every(b => b.scrollWidth <= b.clientWidth)"
        assert await page.ask(f"({wide}, {inside})")

        # Live: what changes in the process appears without asking for the page again.
        metrics.segment_members.labels("families").set(4321)
        await page.until("document.querySelector('#segment-table').innerText.includes('4,321')")

        # Keyboard: the first stop leads past the navigation.
        assert await page.ask("document.querySelector('a').className") == "skip"

        await page.ask("document.getElementById('theme').click()")
        assert await page.ask("document.documentElement.dataset.theme") == "dark"
        await page.picture(pictures / "console-dark.png")

        await page.look(width=390, height=844)
        await page.until("document.documentElement.scrollWidth <= 390")
        await page.picture(pictures / "console-phone.png")

        await page.ask(
            "document.getElementById('user-id').value = 'nobody'; document.getElementById('search').requestSubmit()"
        )
        await page.until("document.getElementById('user-result').innerText.includes('No such user')")
        assert page.console == []


async def test_contrast_is_sufficient_in_both_themes() -> None:
    script = (Path(__file__).parents[1] / "support" / "contrast.js").read_text()
    async with console() as (server, metrics), browser() as page:
        server.tally.decision(decided(1, variant="warm"), 0)
        server.tally.decision(decided(2, "suppress", "quiet_hours"), 0)
        server.tally.outcome(matured(1, 1, variant="warm"))
        metrics.segment_members.labels("families").set(12)
        await page.look(width=1280, height=900)
        await page.open(server.url)
        await page.until(DRAWN)
        assert await page.ask(script) == []
        await page.ask("document.getElementById('theme').click()")
        assert await page.ask(script) == []
