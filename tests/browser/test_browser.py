"""Test a run's page in headless Chromium, which can reach nothing but the file of the page."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from entitymill.settings.report_sections import ReportSettings
from entitymill_reports import drift, page
from entitymill_reports.page_data import Documents, MentionsByPeriod, PageContent, UnitSpeed
from sample_figures import SCRIPT, START, figures, run, shown

CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
# The tests run as root, so Chromium needs --no-sandbox. The other flags turn off requests to Chromium's vendor.
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
    latest = run(2, entities_by_label={"PER": 950, "LOC": 50})
    made = figures(run=latest, runs=(latest, run(1), run(0)), shown=shown())
    written = tmp_path_factory.mktemp("page") / "page.html"
    written.write_text(page.render(made, drift.compare_runs(made.run, made.before, ReportSettings())), encoding="utf8")
    return written


def make_busy_content() -> PageContent:
    """Return content whose plots have many bars with long labels: runs of one day, months, large documents, many units."""
    latest = [
        replace(run(0), run_id=f"run{number}", started_at=START + timedelta(minutes=number)) for number in range(20, 0, -1)
    ]
    months = {date(2020 + number // 12, 1 + number % 12, 1): {"PER": number + 1} for number in range(60)}
    return figures(
        run=latest[0],
        runs=tuple(latest),
        days=MentionsByPeriod("published", "month", months),
        documents=Documents(300, 2, 6000, 150_000, 5, dict.fromkeys(range(-1, 21), 9)),
        units=tuple(UnitSpeed(number, 30.0, 50) for number in range(990, 1090)),
    )


class Opened:
    """An open page, and the messages and requests of the browser.

    complaints: console messages, uncaught errors and dialogs.
    requests: URLs that the page requested.
    """

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
def test_it_opens_without_a_complaint(
    browser: Browser, file: Path, width: int, scheme: str, capsys: pytest.CaptureFixture[str]
) -> None:
    opened = Opened(browser, file, width, scheme)
    loaded = opened.page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
    with capsys.disabled():
        print(f"\nthe page's content was loaded after {loaded:.0f} ms ({width} pixels, {scheme})")  # noqa: T201  # a measurement
    assert opened.complaints == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [file.as_uri()]
    # Nothing is wider than the screen, and the background fits the color scheme.
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
    # Text in plots is at least 9 pixels high on the screen.
    heights = opened.page.locator("figure svg text").evaluate_all(
        "all => all.map(one => one.getBoundingClientRect().height)"
    )
    assert min(heights) >= 9


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("content", [figures(), make_busy_content()], ids=["few", "many"])
def test_labels_in_a_row_of_a_plot_do_not_overlap(
    browser: Browser, tmp_path: Path, content: PageContent, width: int
) -> None:
    """The browser's font may be wider than the font for which the labels, mainly below the horizontal axis, were spaced."""
    file = tmp_path / "page.html"
    file.write_text(page.render(content, drift.compare_runs(content.run, content.before, ReportSettings())), encoding="utf8")
    opened = Opened(browser, file, width, "light")
    drawn = opened.page.locator("figure svg").evaluate_all(
        """all => all.map(svg => [svg.getAttribute("aria-label"), [...svg.querySelectorAll("text")].map(text => {
            const box = text.getBoundingClientRect();
            return [text.textContent.trim(), box.left, box.right, (box.top + box.bottom) / 2];
        })])"""
    )
    assert len(drawn) == 9
    first = {}
    for title, texts in drawn:
        rows: list[list[tuple[str, float, float]]] = []
        height = float("-inf")
        for text, left, right, middle in sorted(texts, key=lambda one: one[3]):
            if middle > height + 2:  # not in the row of the text before
                rows.append([])
            height = middle
            rows[-1].append((text, left, right))
        for row in rows:
            row.sort(key=lambda one: one[1])
            for (text, _, right), (following, left, _) in itertools.pairwise(row):
                assert right < left, f"{title}: {text!r} reaches {right:.1f}, and {following!r} begins at {left:.1f}"
        first[title] = [row[0][0] for row in rows]
    # The labels below the horizontal axes were among those compared.
    assert "0" in first["Mentions by confidence"]
    if content.days is not None and content.days.step == "month":
        assert "20 Nov 03:01" in first["Seconds by stage and run"]
        assert "Jan 2020" in first["Mentions by month"]
        assert "990" in first["Documents per second by unit"]


def test_text_from_data_does_nothing(browser: Browser, file: Path) -> None:
    opened = Opened(browser, file, 1280, "light")
    assert SCRIPT in (opened.page.text_content("h1") or "")
    assert opened.page.locator("script").count() == 1
    # A script that is added to the page would not run either.
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
