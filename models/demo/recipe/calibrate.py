"""Scale the confidences of a bundle to fit gold text: `python calibrate.py DATA BUNDLE`.

The scaling, which becomes part of the bundle's manifest, is fitted to every second document of each evaluation set. The
printed errors and tables, and the diagram (--plot FILE.svg), are about the other documents.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from documents import EvaluationSet, evaluation_sets
from matplotlib import pyplot as plt
from score import found_mentions, gold

import entitymill
from entitymill.recognition.tagger import bundle
from entitymill_models.confidence_fit import (
    ScoredMentions,
    build_reliability_table,
    compute_calibration_error,
    fit_scalings,
)

THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


def compare(tagger: entitymill.TextTagger, chosen: EvaluationSet) -> tuple[ScoredMentions, int]:
    """Return the mentions that a bundle finds in an evaluation set, each correct or not, and the number of gold mentions."""
    wanted = gold(chosen.documents)
    found = found_mentions(tagger, chosen.documents)
    if not chosen.with_misc:
        wanted = {place for place in wanted if place[3] != "MISC"}
        found = {place: mention for place, mention in found.items() if place[3] != "MISC"}
    confidences = np.array([mention.confidence for mention in found.values()], np.float64)
    correct = np.array([place in wanted for place in found], np.bool_)
    return ScoredMentions([place[3] for place in found], confidences, correct), len(wanted)


def concatenate(parts: list[ScoredMentions]) -> ScoredMentions:
    """Return the mentions of several evaluation sets as one object."""
    labels = [label for part in parts for label in part.labels]
    confidences, correct = (np.concatenate([getattr(part, name) for part in parts]) for name in ("confidences", "correct"))
    return ScoredMentions(labels, confidences, correct)


def print_tables(before: ScoredMentions, after: ScoredMentions, wanted: int) -> None:
    """Print the reliability table, precision and recall by threshold of confidence, and calibration errors, as Markdown."""
    print("\n| confidence | mentions | mean confidence | correct |\n|---|---|---|---|")
    for row in build_reliability_table(after):
        print(f"| {row.low:.1f} to {row.high:.1f} | {row.mentions} | {row.confidence:.3f} | {row.correct:.3f} |")
    print("\n| `min_confidence` | mentions kept | precision | recall |\n|---|---|---|---|")
    for least in THRESHOLDS:
        kept = after.correct[after.confidences >= least]
        print(f"| {least} | {len(kept) / len(after.correct):.3f} | {kept.mean():.3f} | {kept.sum() / wanted:.3f} |")
    print(f"\nall sets: error {compute_calibration_error(before):.4f} before, {compute_calibration_error(after):.4f} after")


def plot(before: ScoredMentions, after: ScoredMentions, path: Path) -> None:
    """Draw the reliability diagram: the share of correct mentions by confidence, before and after scaling."""
    mpl.rcParams["svg.hashsalt"] = "entitymill"
    figure, axes = plt.subplots(figsize=(4.6, 4.2), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.75", linewidth=1)
    for name, mentions, color in (("before", before, "tab:orange"), ("after scaling", after, "tab:blue")):
        rows = build_reliability_table(mentions)
        axes.plot(
            [row.confidence for row in rows], [row.correct for row in rows], "o-", color=color, label=name, markersize=4
        )
    axes.set(xlabel="mean confidence of mentions", ylabel="share that is correct", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False, loc="upper left")
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Fit the scaling to half of the documents, print its effect on the other half, and write it to the manifest."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--plot", type=Path, help="write the reliability diagram to this SVG file")
    options = parser.parse_args()
    bundle.update_manifest(options.bundle, confidence={})
    tagger = entitymill.load(options.bundle, threads=1)
    fitted, rest, wanted = [], {}, 0
    for name, chosen in evaluation_sets(options.data).items():
        fitted.append(compare(tagger, EvaluationSet(chosen.documents[::2], chosen.with_misc))[0])
        rest[name], count = compare(tagger, EvaluationSet(chosen.documents[1::2], chosen.with_misc))
        wanted += count
    scalings = fit_scalings(concatenate(fitted))
    for label, scaling in scalings.items():
        print(f"{label}: temperature {scaling.temperature}, offset {scaling.offset}")
    for name, mentions in rest.items():
        before, after = compute_calibration_error(mentions), compute_calibration_error(mentions.scale(scalings))
        print(f"{name}: {len(mentions.correct)} mentions, error {before:.4f} before, {after:.4f} after")
    before, after = concatenate(list(rest.values())), concatenate(list(rest.values())).scale(scalings)
    print_tables(before, after, wanted)
    if options.plot:
        plot(before, after, options.plot)
    bundle.update_manifest(options.bundle, confidence=scalings)


if __name__ == "__main__":
    main()
