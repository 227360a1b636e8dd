"""Render the report page as one HTML file that loads no other file and needs no network. Does not use Spark."""

from __future__ import annotations

import base64
import hashlib
from datetime import date, datetime, timedelta, timezone
from importlib import resources

import jinja2
from markupsafe import Markup

from entitymill import __version__
from entitymill.run_row import STAGES
from entitymill_reports import plots
from entitymill_reports.drift import Drift
from entitymill_reports.page_data import SENTENCE_BIN, SENTENCE_BINS, MentionsByPeriod, PageContent, Run

SHOWN_RUNS = 20
"""Maximum number of runs in the table of runs, and in the plots that compare runs."""
MAX_BARS = 200
"""If the plot of mentions by time would have more bars than this, periods without a mention get no bar."""
SAMPLES = {"least": "least confident", "rarest": "rarest", "random": "random"}
"""How the page describes each sample of mentions; the keys are the names of the samples."""
MODES = {
    "first": "all documents, in the first run",
    "full": "all documents (--full)",
    "compare": "changed documents, by comparing hashes",
    "feed": "changed documents, by the change feed",
    "arrivals": "appended files",
    "": "unknown",
}
"""How the page describes each mode of a run; the mode says how the run found its documents."""


def render(content: PageContent, drift: Drift) -> str:
    """Return the HTML of the report page, which shows `content` and `drift`, and lists at most SHOWN_RUNS runs."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(number=_format_number, seconds=_format_seconds, time=_format_time)
    script, style = _read_resource("page.js"), _read_resource("page.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    colors = {label.name: min(number, plots.COLOR_COUNT - 1) for number, label in enumerate(content.labels)}
    return environment.from_string(_read_resource("page.html")).render(
        content=content,
        run=content.run,
        runs=content.runs[:SHOWN_RUNS],
        failed=_find_newer_failed_run(content),
        drift=drift,
        modes=MODES,
        samples=SAMPLES,
        plots={name: Markup(drawn) for name, drawn in _draw_plots(content).items()},  # noqa: S704  # escaped by matplotlib
        colors=colors,
        script=Markup(script),  # noqa: S704  # file of this package
        script_hash=digest,
        style=Markup(style),  # noqa: S704  # file of this package
        made=datetime.now(timezone.utc),
        version=__version__,
    )


def _draw_plots(content: PageContent) -> dict[str, str]:
    """Return a dict from the name of a plot to its SVG, for each plot that has data."""
    names = [label.name for label in content.labels]
    found = {}
    if content.labels:
        rows = [(label.name, label.mentions, number) for number, label in enumerate(content.labels)]
        found["labels"] = plots.draw_bars(rows, "Mentions by label")
        bins = len(content.labels[0].bins)
        found["confidence"] = plots.draw_stacked_bars(
            [f"{number / bins:.2g}" for number in range(bins)],
            {label.name: label.bins for label in content.labels},
            "Mentions by confidence",
            about="confidence, from",
        )
    days = content.days
    if days is not None and days.counts:
        form = {"day": "%-d %b", "week": "%-d %b", "month": "%b %Y", "year": "%Y"}[days.step]
        steps = _list_steps(days)
        series = {name: [days.counts.get(day, {}).get(name, 0) for day in steps] for name in names}
        found["days"] = plots.draw_stacked_bars([day.strftime(form) for day in steps], series, f"Mentions by {days.step}")
    if any(content.lengths.bins):
        labels = [str(at * SENTENCE_BIN) for at in range(SENTENCE_BINS)]
        found["sentences"] = plots.draw_stacked_bars(
            labels, {"sentences": content.lengths.bins}, "Sentences by length", about="characters, from"
        )
    sizes = content.documents.by_tokens
    if sizes:
        exponents = range(min(sizes), max(sizes) + 1)
        series = {"documents": [sizes.get(exponent, 0) for exponent in exponents]}
        labels = ["none" if exponent < 0 else f"{2**exponent:,}" for exponent in exponents]
        found["documents"] = plots.draw_stacked_bars(labels, series, "Documents by length", about="tokens, from")
    return found | _draw_runs(content)


def _list_steps(days: MentionsByPeriod) -> list[date]:
    """Return the first day of each step (day, week, month or year), from the first step with a mention to the last.

    Steps without a mention are included, unless there would be more than MAX_BARS steps.
    """
    at, last, found = min(days.counts), max(days.counts), []
    months = {"month": 1, "year": 12}.get(days.step)
    while at < last:  # never step past `last`: a date after 9999-12-31 would be an error
        found.append(at)
        if len(found) >= MAX_BARS:  # probably a date means "never", such as 9999-12-31
            return sorted(days.counts)
        if months is None:
            at += timedelta(days=7 if days.step == "week" else 1)
        else:
            month = at.month - 1 + months
            at = at.replace(year=at.year + month // 12, month=month % 12 + 1)
    return [*found, last]


def _draw_runs(content: PageContent) -> dict[str, str]:
    """Return a dict from the name of a plot to its SVG, for plots that compare runs, or units of the run that is shown.

    A unit consists of documents that are published together. The latest SHOWN_RUNS completed runs that tagged sentences are
    compared.
    """
    runs = [run for run in content.runs if run.status == "done" and run.sentences][:SHOWN_RUNS][::-1]
    found = {}
    if runs:
        days = [f"{run.started_at:%-d %b}" for run in runs]
        labels = days if len(set(days)) == len(days) else [f"{run.started_at:%-d %b %H:%M}" for run in runs]
        known = [stage for stage in STAGES if stage != "waiting" or any(stage in run.seconds for run in runs)]
        stages = {stage: [run.seconds.get(stage, 0.0) for run in runs] for stage in known}
        found["seconds"] = plots.draw_stacked_bars(labels, stages, "Seconds by stage and run", about="run of", seconds=True)
        speeds: dict[str, list[float | None]] = {
            "complete run": [run.sentences_per_second for run in runs],
            "recognition": [_compute_recognition_speed(run) for run in runs],
        }
        found["speed"] = plots.draw_lines(labels, speeds, "Sentences per second by run", about="run of")
        rates = {label.name: _compute_rates(runs, label.name) for label in content.labels}
        found["rates"] = plots.draw_lines(labels, rates, "Mentions per 1,000 sentences by run", about="run of")
    if len(content.units) > 1:
        units = [str(unit.number) for unit in content.units]
        values = {"documents": [unit.speed for unit in content.units]}
        found["units"] = plots.draw_stacked_bars(units, values, "Documents per second by unit", about="unit")
    return found


def _compute_rates(runs: list[Run], label: str) -> list[float]:
    """Return, for each run, the number of mentions of a label per 1,000 sentences; each run must have tagged a sentence."""
    return [1000 * run.entities_by_label.get(label, 0) / run.sentences for run in runs]


def _compute_recognition_speed(run: Run) -> float | None:
    """Return how many sentences a run tagged per second of recognition; None if the run recorded no such time.

    The time is `seconds["recognizing"]`, in which any documents were being recognized. If this key is missing, the time is
    `seconds["recognition"]`, which leaves out the time in which other documents were being published.
    """
    seconds = run.seconds.get("recognizing") or run.seconds.get("recognition")
    return run.sentences / seconds if seconds else None


def _find_newer_failed_run(content: PageContent) -> Run | None:
    """Return the newest run if its status is failed or died, and the page does not show this run; otherwise None.

    Also return None if an idle run started later, because an idle run is a success. (Idle runs are not in `content.runs`.)
    """
    newest = content.runs[0] if content.runs else None
    if newest is None or newest == content.run or newest.status not in ("failed", "died"):
        return None
    is_latest = content.last_idle is None or content.last_idle < newest.started_at
    return newest if is_latest else None


def _read_resource(name: str) -> str:
    """Return the text of a file in this package, such as page.css."""
    return resources.files(__package__).joinpath(name).read_text(encoding="utf8")


def _format_number(value: float, decimals: int = 0) -> str:
    """Return a number as text with `decimals` decimal places and commas between thousands."""
    return f"{value:,.{decimals}f}"


def _format_seconds(value: float) -> str:
    """Return a duration in seconds as text, rounded: `4.2 s`, `3 min 5 s` or, without the seconds, `2 h 10 min`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _format_time(value: datetime | None) -> str:
    """Return a time as text in UTC, to the minute, such as `2026-11-30 14:05 UTC`; an empty string for None."""
    return "" if value is None else value.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
