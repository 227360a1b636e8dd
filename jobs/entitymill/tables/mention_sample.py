"""Draw a reproducible sample of mentions from `entities`, and read the sentences around them.

As far as possible, equally many mentions are drawn from each stratum (a group of mentions, for example all with one label).
A hash of seed and mention id decides which mentions are drawn, so the same tables and options always give the same sample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING, Any

from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from entitymill.errors import OutputError, SettingsError, SourceError
from entitymill.source.reader import open_source
from entitymill.spark.private_session import create_frame, open_private_session
from entitymill.spark.sql_text import quote_part
from entitymill.tables import table_setup
from entitymill.tables.output_tables import Tables

if TYPE_CHECKING:
    from entitymill.settings import Settings

RANDOM, LEAST_CONFIDENT, RARE = "random", "least-confident", "rare"
STRATEGIES = (RANDOM, LEAST_CONFIDENT, RARE)
LABEL = "label"
MAX_STRATA = 100
"""Maximum number of strata. There is a limit, because the whole table may be read once for each stratum."""
CONTEXT_CHARS = 1000
"""Maximum number of code points of a sentence that are shown before and after a drawn mention."""
MENTION_COLUMNS = ("mention_id", "doc_id", "begin", "end", "label", "confidence", "run_id")
_SENTENCE_SPAN = ("sentence_begin", "sentence_end")
_STRATUM, _RANK, _HASH, _SPELLING = "_stratum", "_rank", "_hash", "_spelling"
_MIN_LONG = -(1 << 63)


@dataclass(frozen=True)
class SampleRequest:
    """Which mentions to draw.

    count: number of mentions to draw from all strata together, as evenly as the sizes of the strata allow.
    strategy: how mentions of a stratum are drawn. RANDOM: at random. LEAST_CONFIDENT: lowest confidence first. RARE:
        one mention of each spelling (`entity_normalized`), beginning with the spellings that have the fewest mentions; if
        a stratum has too few spellings, fewer than `count` mentions are drawn.
    by: column whose values are the strata: LABEL, or a passthrough column.
    seed: any number; another seed gives another sample.
    """

    count: int
    strategy: str = RANDOM
    by: str = LABEL
    seed: int = 0


@dataclass(frozen=True)
class MentionSample:
    """A sample of mentions, sorted by stratum, and within a stratum in the order in which the strategy draws them.

    mentions: list of the drawn mentions, as dicts with the keys MENTION_COLUMNS.
    sentences: list of dicts with the keys doc_id, begin, text, drawn and mentions; None if the sample was drawn without
        text. `begin` is the offset of `text` in the document. `drawn` has the ids of the drawn mentions, and `mentions` all
        mentions in `text`, as dicts with the keys MENTION_COLUMNS.
    population: number of all mentions in the table `entities`.
    strata: number of strata in the table.
    left_out: number of drawn mentions that are in neither list, because the source no longer has the text in which a run
        found them.
    """

    mentions: list[dict[str, Any]]
    sentences: list[dict[str, Any]] | None
    population: int
    strata: int
    left_out: int = 0


def draw_sample(spark: SparkSession, settings: Settings, request: SampleRequest, *, show_text: bool) -> MentionSample:
    """Draw a sample of mentions; with `show_text`, add the sentences around them, which are read from the source.

    With `show_text`, a mention is left out if the source no longer has the text in which the mention was found.

    Raises:
        OutputError: the tables do not exist, are not of this version of the program, or have no mention.
        SettingsError: `request.by` is neither LABEL nor a passthrough column, or this column has too many values
            (more than MAX_STRATA).
        SourceError: the source cannot be read, or no longer has the text of any drawn mention.
    """
    with open_private_session(spark, settings.source.time_zone, {}) as own:
        tables = Tables(own, settings.output)
        if not tables.is_complete():
            raise OutputError(f"output: no entity tables at {tables.output}: run the job first.")
        if not tables.is_current("entities"):  # a check of one table is faster
            table_setup.check_tables(tables)
        entities = tables.read_latest("entities")
        _check_stratum_column(entities, settings, request.by)
        sizes = _count_strata(entities, request.by)
        if not sizes:
            raise OutputError(f"output: the table entities at {tables.output} contains no mentions to draw a sample from.")
        drawn = _draw_mentions(entities, sizes, request)
        sample = MentionSample([_to_mention(row) for row in drawn], None, sum(sizes.values()), len(sizes))
        return _add_sentences(own, settings, tables, entities, drawn, sample) if show_text else sample


def _check_stratum_column(entities: DataFrame, settings: Settings, by: str) -> None:
    """Raise SettingsError if `by` is neither LABEL nor a passthrough column that `entities` has."""
    allowed = [LABEL, *(name for name in settings.source.passthrough if name in entities.columns)]
    if by not in allowed:
        raise SettingsError(f"--by: {by} is neither label nor a passthrough column; choose one of {', '.join(allowed)}.")


def _count_strata(entities: DataFrame, by: str) -> dict[str | None, int]:
    """Return a dict from stratum to number of mentions; raise SettingsError if there are more than MAX_STRATA strata.

    The stratum None contains the mentions whose column `by` is null.
    """
    counts = entities.groupBy(_build_stratum(by)).agg(F.count("*").alias("mentions")).limit(MAX_STRATA + 1).collect()
    if len(counts) > MAX_STRATA:
        raise SettingsError(
            f"--by: the column {by} has more than {MAX_STRATA} different values; choose a column with fewer values."
        )
    return {row[_STRATUM]: row["mentions"] for row in counts}


def allocate_sample(sizes: dict[str | None, int], count: int) -> dict[str | None, int]:
    """Return a dict from stratum to number of mentions to draw from it, as even as the sizes of the strata allow.

    For example, a sample of 10 from strata of 2, 100 and 100 mentions has 2, 4 and 4 of them.
    """
    shares: dict[str | None, int] = {}
    remaining = count
    ascending = sorted(sizes.items(), key=lambda item: (item[1], str(item[0])))
    for position, (stratum, size) in enumerate(ascending):
        shares[stratum] = min(size, remaining // (len(sizes) - position))
        remaining -= shares[stratum]
    return shares


def _draw_mentions(entities: DataFrame, sizes: dict[str | None, int], request: SampleRequest) -> list[Row]:
    """Draw the rows of lowest rank from each stratum of `entities`, and return them sorted by stratum, rank and hash.

    The rank is the confidence (LEAST_CONFIDENT), the number of mentions with the same spelling (RARE), or 0 (RANDOM). Among
    rows of the same rank, those with the smallest hashes are drawn. With RARE, only one mention of each spelling can be
    drawn: the one with the smallest hash. `sizes` is the result of `_count_strata`.

    The returned rows have the columns MENTION_COLUMNS, _SENTENCE_SPAN, _STRATUM, _RANK and _HASH.
    """
    own_hash = F.xxhash64(F.lit(str(request.seed)), F.col("mention_id")).alias(_HASH)
    spelling = F.xxhash64("entity_normalized").alias(_SPELLING)
    hashed = entities.select(*MENTION_COLUMNS, *_SENTENCE_SPAN, _build_stratum(request.by), own_hash, spelling)
    if request.strategy == RARE:
        # One mention of each spelling: the one with the smallest hash.
        candidates = hashed.groupBy(_STRATUM, _SPELLING).agg(F.count("*").alias(_RANK), F.min(_HASH).alias(_HASH))
        candidates = candidates.select(_STRATUM, _RANK, _HASH)
    else:
        rank = F.col("confidence") if request.strategy == LEAST_CONFIDENT else F.lit(0)
        candidates = hashed.drop(_SPELLING).withColumn(_RANK, rank)
    firsts = []  # `orderBy` with `limit` keeps Spark from sorting all rows
    for stratum, number in allocate_sample(sizes, request.count).items():
        if number:
            own = candidates.where(F.col(_STRATUM).eqNullSafe(F.lit(stratum)))
            if request.strategy == RANDOM:
                own = own.where(F.col(_HASH) <= choose_hash_limit(number, sizes[stratum]))
            firsts.append(own.orderBy(_RANK, _HASH).limit(number))
    chosen = reduce(DataFrame.unionAll, firsts)
    if request.strategy == RARE:
        chosen = chosen.withColumnsRenamed({_STRATUM: "_chosen_stratum", _HASH: "_chosen_hash"})
        same = (F.col(_HASH) == F.col("_chosen_hash")) & F.col(_STRATUM).eqNullSafe(F.col("_chosen_stratum"))
        chosen = hashed.join(F.broadcast(chosen), same)
    rows = chosen.select(*MENTION_COLUMNS, *_SENTENCE_SPAN, _STRATUM, _RANK, _HASH).collect()
    return sorted(rows, key=lambda row: (row[_STRATUM] is None, row[_STRATUM] or "", row[_RANK], row[_HASH]))


def choose_hash_limit(number: int, size: int) -> int:
    """Return the hash limit for drawing `number` rows: about 4 * number + 100 rows have a hash up to this limit.

    The caller filters out rows with larger hashes before Spark sorts the rest, because sorting copies each row. The number
    of rows that remain varies only by about its square root, so in practice it is at least `number`.

    Args:
        number: number of rows to draw.
        size: number of all rows; if `size` is less than 4 * number + 100, no row is filtered out.
    """
    eligible = min(size, 4 * number + 100)
    return _MIN_LONG + (eligible << 64) // size - 1


def _build_stratum(by: str) -> Any:
    """Return an expression for the stratum of a row of `entities`: the column `by` as a string."""
    return F.col(quote_part(by)).cast("string").alias(_STRATUM)


def _to_mention(row: Row) -> dict[str, Any]:
    """Return the columns MENTION_COLUMNS of a row as a dict."""
    return {name: row[name] for name in MENTION_COLUMNS}


def _add_sentences(
    spark: SparkSession,
    settings: Settings,
    tables: Tables,
    entities: DataFrame,
    drawn: Sequence[Row],
    sample: MentionSample,
) -> MentionSample:
    """Return the sample with the sentences around its mentions, which are read from the source.

    At most CONTEXT_CHARS code points of a sentence are shown before and after a drawn mention. Leave out mentions of
    documents whose text the source no longer has, and mentions whose run_id is not that of their document in `documents`;
    raise SourceError if no mention remains.

    Args:
        entities: the table `entities`, from which all mentions in the sentences are read.
        drawn: the rows of the sample's mentions, as `_draw_mentions` returns them.
    """
    current = _find_text_hashes(spark, tables, drawn)
    keys: dict[tuple[str, int, int], list[str]] = {}
    for row in drawn:
        if (row["doc_id"], row["run_id"]) in current:
            begin = max(row["sentence_begin"], row["begin"] - CONTEXT_CHARS)
            end = min(row["sentence_end"], row["end"] + CONTEXT_CHARS)
            keys.setdefault((row["doc_id"], begin, end), []).append(row["mention_id"])
    hashes = {doc_id: text_hash for (doc_id, _), text_hash in current.items()}
    rows = [(*key, hashes[key[0]]) for key in keys]
    frame = create_frame(spark, rows, "doc_id string, first int, after int, known_hash string")
    texts = _read_texts(open_source(spark, settings.source).rows, frame)
    inside = (F.col("begin") >= F.col("first")) & (F.col("end") <= F.col("after"))
    around = entities.select(*MENTION_COLUMNS).join(F.broadcast(frame.drop("known_hash")), "doc_id").where(inside)
    mentions: dict[tuple[str, int, int], list[dict[str, Any]]] = {}
    for row in around.collect():
        mentions.setdefault((row["doc_id"], row["first"], row["after"]), []).append(_to_mention(row))
    sentences = [
        {
            "doc_id": key[0],
            "begin": key[1],
            "text": texts[key],
            "drawn": ids,
            "mentions": sorted(mentions[key], key=lambda mention: (mention["begin"], mention["end"])),
        }
        for key, ids in keys.items()
        if key in texts
    ]
    shown = {mention_id for key, ids in keys.items() if key in texts for mention_id in ids}
    if not shown:
        raise SourceError(
            f"source.path: {settings.source.path} no longer has the texts of the drawn mentions. Run the job to update the "
            "tables, then draw the sample again."
        )
    kept = [mention for mention in sample.mentions if mention["mention_id"] in shown]
    return MentionSample(kept, sentences, sample.population, sample.strata, len(drawn) - len(kept))


def _find_text_hashes(spark: SparkSession, tables: Tables, drawn: Sequence[Row]) -> dict[tuple[str, str], str]:
    """Read the text hashes of the drawn mentions' documents; return a dict from (doc_id, run_id) to text_hash.

    All three values come from `documents`. text_hash is the SHA-256 of the text in which the run with this run_id found the
    document's mentions.
    """
    # A mention whose run_id differs from its document's run_id in `documents` is outdated.
    ids = create_frame(spark, sorted({(row["doc_id"],) for row in drawn}), "doc_id string")
    documents = tables.read_latest("documents").select("doc_id", "run_id", "text_hash").join(F.broadcast(ids), "doc_id")
    return {(row["doc_id"], row["run_id"]): row["text_hash"] for row in documents.collect()}


def _read_texts(source: DataFrame, keys: DataFrame) -> dict[tuple[str, int, int], str]:
    """Return parts of the source's texts: a dict from (doc_id, first, after) to the text between these two offsets.

    `keys` has the columns doc_id, first, after and known_hash (the SHA-256 of the text that a run read). If the source now
    has another text for the doc_id, or none, the key is left out.
    """
    same = (
        source.select("doc_id", "text").join(F.broadcast(keys), "doc_id").where(F.sha2("text", 256) == F.col("known_hash"))
    )
    # Spark counts code points, and only the sentences leave the executors.
    text = F.col("text").substr(F.col("first") + 1, F.col("after") - F.col("first")).alias("text")
    rows = same.select("doc_id", "first", "after", text).collect()
    return {(row["doc_id"], row["first"], row["after"]): row["text"] for row in rows}
