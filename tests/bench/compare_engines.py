"""Run the demo with the engines sparknlp and openvino, and compare the entities.

The model of models/demo is saved in Spark NLP's format. Each engine runs in a separate process on the speeches, in f32 and
with Spark NLP's encoding. The script prints one sentence, and exits with code 1 if an entity differs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder

ROOT = Path(__file__).parents[2]
PLACE = ROOT / "build" / "compare_engines"
KEY = ("doc_id", "begin", "end", "label", "entity")
CONFIDENCE = 1e-4
Entities = dict[tuple[object, ...], float]


def run(script: str, *arguments: str) -> None:
    command = [sys.executable, str(ROOT / "jobs" / script), *arguments]
    if subprocess.run(command, cwd=ROOT, check=False).returncode:
        sys.exit(f"{script} failed: see above.")


def extract(engine: str, overrides: list[str]) -> Entities:
    """Run the job into an empty output, and return the entities that it wrote."""
    output = PLACE / engine
    shutil.rmtree(output, ignore_errors=True)
    chosen = [f"output.path={output}", "recognition.precision=f32", "recognition.encoding=sparknlp", *overrides]
    run("extract_entities.py", "--config", "conf/demo.yaml", *(word for one in chosen for word in ("--set", one)))
    table = QueryBuilder().register("entities", DeltaTable(output / "entities"))
    rows = pa.table(
        table.execute('SELECT doc_id, "begin", "end", label, entity, confidence FROM entities').read_all()
    ).to_pylist()
    return {tuple(row[name] for name in KEY): row["confidence"] for row in rows}


def describe_difference(theirs: Entities, ours: Entities) -> str | None:
    """Return one sentence about the differences, or None if the entities are the same."""
    unmatched = theirs.keys() ^ ours.keys()
    other = [key for key in theirs.keys() & ours.keys() if abs(theirs[key] - ours[key]) > CONFIDENCE]
    if not unmatched and not other:
        return None
    missed, added = len(theirs.keys() - ours.keys()), len(ours.keys() - theirs.keys())
    where = dict(zip(KEY, min(unmatched or other, key=str), strict=True))
    return (
        f"Engine sparknlp finds {len(theirs):,} entities, engine openvino {len(ours):,}: only the first finds {missed:,}, "
        f"only the second {added:,}; {len(other):,} differ in confidence by more than {CONFIDENCE:g}; one is "
        f"{where['label']} {where['begin']}-{where['end']} of {where['doc_id']}."
    )


def main() -> None:
    """Run both engines and compare their entities."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--set", dest="overrides", metavar="KEY=VALUE", action="append", default=[], help="setting for both engines"
    )
    overrides = parser.parse_args().overrides
    saved = PLACE / "model"
    # Saved without calibration, because Spark NLP cannot remove it for f32.
    run("prepare_model.py", "models/demo", str(saved), "--to", "sparknlp", "--overwrite")
    jars = f"spark.jars={ROOT}/build/jars,{ROOT}/build/jars-sparknlp"
    theirs = extract("sparknlp", ["recognition.engine=sparknlp", f"recognition.sparknlp_model={saved}", jars, *overrides])
    ours = extract("openvino", ["recognition.engine=openvino", *overrides])
    if not theirs:
        sys.exit("Engine sparknlp finds no entity: nothing was compared.")
    found = describe_difference(theirs, ours)
    if found:
        sys.exit(found)
    print(f"{len(theirs):,} entities, the same in both engines.")


if __name__ == "__main__":
    main()
