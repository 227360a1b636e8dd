"""For analysts with pandas: add mentions to a DataFrame, one row per mention. `python examples/pandas_column.py`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import entitymill

ROOT = Path(__file__).parents[1]

articles = pd.DataFrame(
    {
        "day": ["2026-11-23", "2026-11-24"],
        "text": ["Angela Merkel flew to Paris.", "Paris's mayor met the head of Siemens, a German company."],
    }
)

tagger = entitymill.load(ROOT / "models" / "demo")
found = articles.assign(mention=tagger(articles["text"])).explode("mention").dropna(subset="mention")
found["entity"] = [mention.entity for mention in found["mention"]]
found["label"] = [mention.label for mention in found["mention"]]

print(found[["day", "entity", "label"]].to_string(index=False))
