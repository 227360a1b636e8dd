"""A run's page in a real browser: headless Chromium, in which nothing but the page's own file can be reached."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from entitymill.settings.report_sections import ReportSettings
from entitymill_reports import drift, page
from sample_figures import SCRIPT, figures, run, shown

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# Root and a closed network: no sandbox, and none of what a browser asks its maker for.
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)  # a new, empty profile
        yield started
        started.close()


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    latest = run(2, by_label={"PER": 950, "LOC": 50})
    made = figures(run=latest, runs=(latest, run(1), run(0)), shown=shown())
    written = tmp_path_factory.mktemp("page") / "page.html"
    written.write_text(page.render(made, drift.compare_runs(made.run, made.before, ReportSettings())), encoding="utf8")
    return written


class Opened:
    """The page as it is shown, and all that the browser complained of or asked for."""

    def __init__(self, browser: Browser, file: Path, width: int, scheme: str) -> None:
        self.complaints: list[str] = []
        self.requests: list[str] = []
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type]
        self.page: Page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: self.complaints.append(f"dialog {dialog.message}"))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_complaint(browser: Browser, file: Path, width: int, scheme: str) -> None:
    opened = Opened(browser, file, width, scheme)
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    # Nothing is wider than the screen, and dark is dark.
    assert opened.page.evaluate("document.documentElement.scrollWidth") == width
    paper = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in re.findall(r"\d+", paper)[:3]) / 3
    assert (lightness > 128) == (scheme == "light")
    drawn = opened.page.locator("figure svg")
    assert drawn.count() == 9
    # Bars take the page's own colors.
    bars = opened.page.locator("figure svg path").evaluate_all("paths => paths.map(path => getComputedStyle(path).fill)")
    blue = {"light": "rgb(47, 111, 181)", "dark": "rgb(106, 165, 232)"}[scheme]
    assert blue in bars
    # What a letter of a plot measures on the screen.
    heights = opened.page.locator("figure svg text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 9


def test_text_from_data_does_nothing(browser: Browser, file: Path) -> None:
    opened = Opened(browser, file, 1280, "light")
    assert SCRIPT in (opened.page.text_content("h1") or "")
    assert opened.page.locator("script").count() == 1
    # Nor would it if it came in.
    opened.page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.in = 1'}))"
    )
    assert opened.page.evaluate("window.in") is None
    assert "Content Security Policy" in " ".join(opened.complaints)
    assert opened.page.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"


def visible(opened: Opened) -> list[str]:
    return [text.split()[0] for text in opened.page.locator(".sentence:visible .note").all_inner_texts()]


def test_the_filter_filters(browser: Browser, file: Path) -> None:
    opened = Opened(browser, file, 1280, "light")
    form, count = opened.page.locator("#filter"), opened.page.locator("#count")
    assert len(visible(opened)) == 3

    form.locator("input[name=label][value=LOC]").uncheck()
    assert [name[:3] for name in visible(opened)] == ["two", "thr"]
    expect(count).to_have_text("2 of 3 sentences")
    expect(opened.page.locator("mark.off", has_text="Rome")).to_have_count(1)

    form.locator("input[name=from]").fill("0.7")
    assert visible(opened) == ["three"]
    form.locator("input[name=to]").fill("0.8")
    assert visible(opened) == []
    form.locator("input[name=from]").fill("")
    form.locator("input[name=to]").fill("1")
    form.locator("input[name=label][value=LOC]").check()
    assert len(visible(opened)) == 3

    form.locator("input[name=sample][value=least]").check()
    assert visible(opened) == ["one"]
    form.locator("input[name=sample][value=random]").check()
    assert [name[:3] for name in visible(opened)] == ["two", "thr"]
    # In a sample only the sampled mention counts: Rome is 0.95, but Jones is the sampled one.
    form.locator("input[name=from]").fill("0.92")
    assert visible(opened) == []
    assert opened.complaints == []


def test_a_page_without_text_has_no_filter(browser: Browser, tmp_path: Path) -> None:
    made = figures()
    file = tmp_path / "page.html"
    file.write_text(page.render(made, drift.compare_runs(made.run, made.before, ReportSettings())), encoding="utf8")
    opened = Opened(browser, file, 400, "light")
    assert opened.page.locator("#filter, mark").count() == 0
    assert opened.complaints == []
