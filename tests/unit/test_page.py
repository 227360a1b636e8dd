import base64
import dataclasses
import functools
import hashlib
import re
from datetime import date
from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from entitymill.settings.report_sections import ReportSettings
from entitymill_reports import drift, page, plots
from entitymill_reports.page_data import MentionsByPeriod
from sample_figures import QUOTE, SCRIPT, figures, run, shown

LINKS = ("src", "href", "srcset", "action", "data", "xlink:href")


@functools.cache
def usual(*, with_text: bool = False) -> str:
    return rendered(shown=shown() if with_text else None)


def rendered(**other: object) -> str:
    made = figures(**other)
    return page.render(made, drift.compare_runs(made.run, made.before, ReportSettings()))


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_comes_from_data_stays_text() -> None:
    elements = Elements(usual(with_text=True))
    scripts = [attributes for tag, attributes in elements.found if tag == "script"]
    assert scripts == [{}]  # only the page's inline script
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    # in output, source, model, settings, a label of two plots, a reject's id and detail, an entity and a sentence
    assert elements.text.count(SCRIPT) >= 9
    assert QUOTE in elements.text


def test_the_page_shows_core_hours_and_money() -> None:
    """The run has 0.5 core-hours at 0.04 EUR, and 100 documents."""
    text = Elements(usual()).text
    assert "core-hours0.505,000.0 per million documents" in text
    assert "0.02200.00 per million documents" in text


def test_the_page_asks_for_nothing_and_its_policy_forbids_it() -> None:
    text = usual(with_text=True)
    elements = Elements(text)
    places = [value or "" for _, attributes in elements.found for name, value in attributes.items() if name in LINKS]
    assert [place for place in places if not place.startswith(("#", "data:"))] == []
    assert not re.search(r"@import|url\((?!#)", text)
    assert "http://" not in text
    assert "https://" not in text
    [policy] = [
        a["content"] for tag, a in elements.found if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    script = re.search(r"<script>(.*?)</script>\n</body>", text, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def test_text_is_shown_only_where_that_is_allowed() -> None:
    without, with_text = Elements(usual()).text, Elements(usual(with_text=True)).text
    for text in ("Smith", "Paris", "it rained"):
        assert text not in without
        assert text in with_text
    assert "entities are text too" in without
    assert "1 whose document has changed since" in with_text


def test_a_change_beyond_its_bound_is_marked() -> None:
    assert "beyond its bound" not in usual()
    latest = run(2, entities_by_label={"PER": 950, "LOC": 50})
    text = rendered(run=latest, runs=(latest, run(1), run(0)))
    assert text.count("beyond its bound") == 2  # the shares of both labels, not the rate or the confidence
    assert "differs from the 2 previous runs. Measures beyond their bounds: share of LOC, share of PER." in text


def test_a_run_that_failed_since_is_said() -> None:
    said = "The latest run, run9 of 2026-11-29 03:00 UTC, failed."
    assert "The latest run" not in usual()
    text = rendered(runs=(run(9, status="failed"), run(2), run(1)), last_idle=run(8).started_at)
    assert said in Elements(text).text


def test_a_run_that_failed_is_not_said_after_a_run_with_nothing_to_do() -> None:
    text = Elements(rendered(runs=(run(9, status="failed"), run(2), run(1)), last_idle=run(10).started_at)).text
    assert "The latest run" not in text
    assert "Runs that had nothing to do are not listed. The latest of them started at 2026-11-30 03:00 UTC." in text
    assert "nothing to do" not in usual()


def test_an_output_without_anything() -> None:
    text = rendered(run=None, runs=(), labels=(), days=None, rejects=(), units=(), settings="")
    assert "No run has completed yet" in text
    assert "None." in text


def test_plots_are_svg_in_the_colors_of_the_page() -> None:
    drawn = plots.draw_stacked_bars(["a", "b"], {"PER": [1, 2], SCRIPT: [3, 4], "$x$": [1, 1]}, "Some bars")
    assert ET.fromstring(drawn).attrib["aria-label"] == "Some bars"  # noqa: S314  # our own
    assert "var(--s0)" in drawn
    assert "var(--s2)" in drawn
    assert not re.search(r"#0101|#0102|<script|<style", drawn)
    assert "$x$" in drawn  # not read as a formula
    assert drawn == plots.draw_stacked_bars(["a", "b"], {"PER": [1, 2], SCRIPT: [3, 4], "$x$": [1, 1]}, "Some bars")


@pytest.mark.parametrize(
    ("step", "ends", "steps"),
    [
        ("day", (date(2026, 2, 27), date(2026, 3, 2)), 4),
        ("week", (date(2026, 11, 2), date(2026, 11, 23)), 4),
        ("month", (date(2025, 11, 1), date(2026, 2, 1)), 4),
        ("year", (date(2023, 1, 1), date(2026, 1, 1)), 4),
    ],
)
def test_days_without_a_mention_have_their_place(step: str, ends: tuple[date, date], steps: int) -> None:
    every = page._list_steps(MentionsByPeriod("published", step, {day: {"PER": 1} for day in ends}))
    assert (len(every), every[0], every[-1]) == (steps, *ends)


@pytest.mark.parametrize("step", ["day", "week", "month", "year"])
def test_a_date_that_stands_for_never_costs_no_page(step: str) -> None:
    ends = date(2020, 2, 1), date(9999, 12, 31)
    days = MentionsByPeriod("day", step, {day: {"PER": 1} for day in ends})
    found = dataclasses.replace(figures(), days=days)
    assert tuple(page._list_steps(days)) == ends
    assert "Mentions by" in page.render(found, drift.compare_runs(None, [], ReportSettings()))
