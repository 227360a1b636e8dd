"""Test hostile texts on the report page, in metrics and on the terminal."""

from __future__ import annotations

import dataclasses
import io
import json
import random
import re
from datetime import date
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from entitymill.settings.report_sections import ReportSettings
from entitymill.terminal import console_text
from entitymill_reports import drift, page, prometheus_metrics
from entitymill_reports.page_data import Label, MentionsByPeriod, Part, Reject, Sentence, TextSamples
from entitymill_reports.prometheus_metrics import Totals
from fuzzing import attempt, report, tries
from sample_figures import START, figures, run, shown
from unit.test_console_text import _CONTROLS
from unit.test_page import LINKS, Elements
from unit.test_prometheus_metrics import summary

PLACES = (
    *("output", "settings", "currency", "run_id", "mode", "model", "fingerprint", "source", "source_version"),
    *("label", "stage", "code", "example", "detail", "entity", "problem", "doc_id", "mention", "plain"),
)
"""Places on a page that show text from data or settings."""
MARK = "zq"
OPENINGS = (
    *("", '"', "'", '">', "'>", "-->", "]]>", "`", "\\", "\\'", "</script>", "</style>", "</title>", "</svg>", "</text>"),
    *("</code>", "</bdi>", "</pre>", "</p>", "{{", "{%", "%}", "#}", "\0", "\u2028", "\ufeff", "\x1b", "&quot;", "&#39;"),
)
HARM = (
    *("<script>alert(1)</script>", "<ScRiPt src=//x>", "<scr\0ipt>", "<script\t>", "<img src=x onerror=alert(1)>"),
    *("<svg onload=alert(1)>", "<svg/onload=alert`1`>", "<iframe src=javascript:alert(1)>", "<a href='javascript:x'>y</a>"),
    *("javascript:alert(1)", " onmouseover=alert(1) x=", " style=background:url(//x) ", "<style>@import '//x'</style>"),
    *("<meta http-equiv=refresh content=0;//x>", "<base href=//x>", "<form action=//x><input>", "<object data=//x>"),
    *("<!--", "<!-- -->", "<![CDATA[", "<?xml", "<plaintext>", "<textarea>", "<math><mtext>", "<template>", "<noscript>"),
    *("{{ 7 * 7 }}", "{% include 'x' %}", "{{ content.__class__ }}", "${7*7}", "<%= 7 %>", "{# x #}"),
    *("&lt;script&gt;", "&#60;script&#62;", "&#x3c;", "&amp", "\uff1cscript\uff1e", "$\\frac{1}{2}$", "$_$", "%s", "<"),
)
ODD = (*'"\\\n\r{}=, #\0é😀\u2028\x85', "# TYPE x gauge", "\\n", 'a"} 1')


def payload(draw: random.Random) -> str:
    return draw.choice(OPENINGS) + draw.choice(HARM) + draw.choice(OPENINGS) + f"{MARK}{draw.randrange(10**6):06}"


def page_of(texts: dict[str, str]) -> str:
    """Return a page that shows a text in each of PLACES."""
    of_run = {field.name: texts[field.name] for field in dataclasses.fields(run(2)) if field.name in texts}
    of_run["settings"] = json.dumps({"cost": {"per_core_hour": 0.04, "currency": texts["currency"]}})
    label = texts["label"]
    latest = run(2, entities_by_label={label: 950, "LOC": 50}, **of_run)
    parts = (Part(texts["plain"]), Part(texts["mention"], label, 0.3, sampled=True), *shown().sentences[1].parts)
    made = figures(
        output=texts["output"],
        settings=texts["settings"],
        run=latest,
        runs=(latest, run(1), run(0)),
        labels=(Label(label, 1800, 0.91, figures().labels[0].bins), *figures().labels[1:2]),
        days=MentionsByPeriod("published", "day", {date(2026, 11, 1): {label: 5}, date(2026, 11, 4): {"LOC": 2}}, 4),
        rejects=(Reject(texts["stage"], texts["code"], 9, (texts["example"], "c"), texts["detail"]),),
        shown=TextSamples(
            {label: ((texts["entity"], 12),)}, (Sentence(texts["doc_id"], parts, ("least",)),), 1, texts["problem"]
        ),
    )
    return page.render(made, drift.compare_runs(made.run, made.before, ReportSettings()))


def shape(elements: Elements) -> list[tuple[str, list[str]]]:
    return [(tag, sorted(attributes)) for tag, attributes in elements.found]


@pytest.mark.filterwarnings("ignore:Glyph")  # the plots' sizes are estimated with another font than the reader's
def test_no_payload_adds_an_element_or_an_attribute_to_the_page() -> None:
    pages = tries(5, 320)  # of 19 payloads each
    usual = shape(Elements(page_of(dict.fromkeys(PLACES, "word"))))
    for number in range(pages):
        with attempt("page", number) as draw:
            texts = {place: payload(draw) for place in PLACES}
            written = page_of(texts)
            elements = Elements(written)
            assert shape(elements) == usual
            assert [place for place, text in texts.items() if text not in elements.text] == []
            assert [place for place, text in texts.items() if "<" in text and text in written] == []
            values = [(name, value or "") for _, attributes in elements.found for name, value in attributes.items()]
            assert not [value for name, value in values if name in (*LINKS, "style", "class") and MARK in value]
    report("page", payloads=pages * len(PLACES))


def test_odd_names_stay_names_in_metrics(tmp_path: Path) -> None:
    count, file = tries(50, 1000), tmp_path / "x.prom"
    for number in range(count):
        with attempt("metrics", number) as draw:
            names = {"".join(draw.choices(ODD, k=draw.randrange(1, 6))) + str(place): place for place in range(4)}
            place = "".join(draw.choices(ODD, k=3))
            known = prometheus_metrics.RunOutcome(place, START, totals=Totals(names, 1, 2, 3, names, None))
            known.summary = dataclasses.replace(summary(), by_label=names, rejects=names)
            prometheus_metrics.write_textfile(prometheus_metrics.build_metrics(known), str(file), known)
            found = list(text_string_to_metric_families(file.read_bytes().decode()))
            samples = [sample for family in found for sample in family.samples]
            assert {sample.labels["output"] for sample in samples} == {place}
            for name, label in (("run_mentions", "label"), ("run_rejects", "code"), ("runs_total", "status")):
                values = {one.labels[label]: one.value for one in samples if one.name == f"entitymill_{name}"}
                assert values == names, name
            assert all(family.name.startswith("entitymill_") for family in found)
            assert len(samples) == 20 + 4 * len(names)
    report("metrics", expositions=count)


def test_no_text_steers_the_terminal() -> None:
    count = tries(300, 20_000)
    for number in range(count):
        with attempt("console", number) as draw:
            codes = (*range(0xA0), *range(0xD800, 0xD810), *b"]52;c[31m", 0x2028, 0x202E, 0x1F600)
            text = "".join(map(chr, draw.choices(codes, k=draw.randrange(1, 40))))
            file = io.StringIO()
            console = console_text.open_console(file=file, force_terminal=draw.random() < 0.5, width=80)
            console.print(text, markup=False, highlight=False, soft_wrap=draw.random() < 0.5)
            for written in (re.sub(r"\x1b\[[\d;]*m", "", file.getvalue()), console_text.visible(text)):
                assert not _CONTROLS.search(written)
                written.encode()
            assert not re.search(r"[\t\n]", console_text.visible(text, lines=False))
    report("console", texts=count)
