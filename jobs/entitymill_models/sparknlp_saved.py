"""Read a token classifier that Spark NLP saved as a directory; the models hub offers such directories as zip archives.

metadata/part-* has one line of JSON. fields/vocabulary and fields/labels are SequenceFiles of serialized pairs of a string
and a number. In fields/vocabulary, the strings are pieces (subwords); in fields/labels, they are tags such as B-PER. The
network is in a zip archive, which is named after the model's class and engine.
(Sources: ParamsAndFeaturesWritable, MapFeature and OpenvinoWrapper of Spark NLP 5.5.)
"""

from __future__ import annotations

import os
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from entitymill.errors import ModelError
from entitymill.recognition import model_loading_limits
from entitymill.recognition.sentences_dl_saved import DAMAGE_ERRORS
from entitymill.recognition.tagger.network import count_positions
from entitymill.spark.files_on_this_machine import detect_full_disk
from entitymill_models import network_import, sparknlp_field_files
from entitymill_models.imported_classifier import Casing, Parts, parse_json, read_bytes, read_text, sort_by_number

PACKAGE = "com.johnsnowlabs.nlp.annotators.classifier.dl"
NETWORKS = {
    f"{PACKAGE}.DistilBertForTokenClassification": "distilbert_classification",
    f"{PACKAGE}.BertForTokenClassification": "bert_classification",
}
"""Dict from each supported class of Spark NLP models to PREFIX. The zip archive of the network is named PREFIX_ENGINE."""
METADATA, FIELDS = "metadata", "fields"
_BLOCK = 2**20


@dataclass
class Allowance:
    """How many more bytes and files may be unpacked from a model's archive and from archives inside it, in total."""

    bytes: int
    files: int

    @classmethod
    def for_archive(cls, archive: Path) -> Allowance:
        """Return how many bytes and files may be unpacked from an archive; the bytes grow with its size, up to a limit."""
        size = model_loading_limits.UNPACKED_BASE_BYTES + model_loading_limits.MAX_UNPACKED_RATIO * archive.stat().st_size
        return cls(min(model_loading_limits.MAX_UNPACKED_BYTES, size), model_loading_limits.MAX_UNPACKED_FILES)


@dataclass(frozen=True)
class SavedDescription:
    """The parameters, tags and vocabulary of a saved Spark NLP model: everything in the model except its network.

    network_prefix: how the name of the network's zip archive begins.
    engine: the engine that runs the network, openvino or onnx.
    labels: the tags, such as B-PER, in the order of the logits.
    vocabulary: the pieces (subwords), in the order of their ids.
    casing: whether Spark NLP distinguishes upper and lower case.
    max_length: maximum number of pieces in one sentence, including special pieces.
    """

    network_prefix: str
    engine: str
    labels: tuple[str, ...]
    vocabulary: tuple[str, ...]
    casing: Casing
    max_length: int


def is_saved_model(directory: Path) -> bool:
    """Return whether a directory contains a `metadata` directory, as saved Spark ML and Spark NLP models do."""
    return (directory / METADATA).is_dir()


def find_model(unpacked: Path, where: str) -> Path:
    """Return the directory of the model in an unpacked archive: the archive's root, or its only folder.

    Folders whose names begin with "__", such as __MACOSX, are ignored. Raise ModelError if neither the root nor the only
    folder is a saved model.
    """
    folders = [path for path in sorted(unpacked.iterdir()) if path.is_dir() and not path.name.startswith("__")]
    for candidate in (unpacked, *(folders if len(folders) == 1 else ())):
        if is_saved_model(candidate):
            return candidate
    raise ModelError(f"{where} contains no saved Spark NLP model, neither at its root nor in its only folder.")


def read_saved_model(
    directory: Path, scratch: Path, where: str, casing: Casing | None = None, allowance: Allowance | None = None
) -> Parts:
    """Read a saved Spark NLP model from its directory, and return its parts, with the network.

    Args:
        scratch: an empty directory for the unpacked network, which must exist as long as the result is used.
        where: path of the model, for error messages.
        casing: the casing to use instead of the casing in the metadata; None for the casing in the metadata.
        allowance: how many bytes and files may still be unpacked, if `directory` was itself unpacked from an archive;
            otherwise None.

    Raises:
        ModelError: the model is damaged or incomplete, or its class or engine is not supported.
    """
    description = read_description(directory, where)
    packed = directory / f"{description.network_prefix}_{description.engine}"
    if not packed.is_file():
        raise ModelError(f"{where} has no {packed.name}, the archive of its network: copy the model again.")
    unpack(packed, scratch, f"{where}/{packed.name}", allowance or Allowance.for_archive(packed))
    if description.engine == "onnx":
        network = network_import.read_network(_find_file(scratch, ".onnx", where), None, where)
    else:
        network = network_import.read_network(_find_file(scratch, ".xml", where), _find_file(scratch, ".bin", where), where)
    network = network_import.normalize_inputs_and_output(network, len(description.labels), where)
    return Parts(
        network=network,
        labels=description.labels,
        tokenizer=None,
        vocabulary=description.vocabulary,
        casing=casing or description.casing,
        max_length=description.max_length,
        source=f"a saved Spark NLP model, engine {description.engine}",
        limit=count_positions(network),
        sparknlp_max_length=description.max_length,
    )


def read_description(directory: Path, where: str) -> SavedDescription:
    """Read the parameters, tags and vocabulary of a saved Spark NLP model, but not its network.

    Raises:
        ModelError: metadata or fields are damaged or incomplete, or the model's class or engine is not supported.
    """
    metadata, parameters = _read_metadata(directory, where)
    kind = str(metadata.get("class"))
    if kind not in NETWORKS:
        raise ModelError(
            f"{where} is a saved {kind.rsplit('.', maxsplit=1)[-1]}; supported classes are {_list_supported_classes()}."
        )
    engine = parameters.get("engine", "tensorflow")
    if engine not in ("openvino", "onnx"):
        raise ModelError(
            f"{where} was saved with engine {engine}; supported engines are openvino and onnx: "
            "import the original model into Spark NLP as ONNX or OpenVINO, or prepare the original Hugging Face model."
        )
    length, sensitive = parameters.get("maxSentenceLength"), parameters.get("caseSensitive")
    if not isinstance(length, int) or isinstance(length, bool) or not isinstance(sensitive, bool):
        raise ModelError(f"The metadata of {where} lacks maxSentenceLength or caseSensitive: copy the model again.")
    return SavedDescription(
        network_prefix=NETWORKS[kind],
        engine=str(engine),
        labels=sort_by_number(_read_field(directory, "labels", where), "tags", where),
        vocabulary=sort_by_number(_read_field(directory, "vocabulary", where), "vocabulary", where),
        casing="cased" if sensitive else "uncased",
        max_length=length,
    )


def _read_metadata(directory: Path, where: str) -> tuple[dict[str, object], dict[str, object]]:
    """Return all metadata of a saved model, and its parameters: a dict of default values, overridden by chosen values.

    Metadata without parameters gives an empty dict. Raise ModelError if the metadata is missing, is not one line of JSON, or
    has parameters that are not a JSON object.
    """
    lines = [
        line
        for part in _list_part_files(directory / METADATA, where)
        for line in read_text(part).splitlines()
        if line.strip()
    ]
    if len(lines) != 1:
        raise ModelError(f"The metadata of {where} is not one line of JSON: copy the model again.")
    metadata = parse_json(lines[0], f"The metadata of {where}")
    defaults, chosen = metadata.get("defaultParamMap", {}), metadata.get("paramMap", {})
    if not isinstance(defaults, dict) or not isinstance(chosen, dict):
        raise ModelError(f"The metadata of {where} contains no parameters: copy the model again.")
    return metadata, {**defaults, **chosen}


def _read_field(directory: Path, name: str, where: str) -> dict[str, int]:
    """Return the pairs of all records in fields/NAME of a saved model, as a dict from string to integer.

    Raise ModelError if the field is missing or damaged, or contains a string twice.
    """
    pairs: dict[str, int] = {}
    for part in _list_part_files(directory / FIELDS / name, where):
        for record in sparknlp_field_files.read_records(read_bytes(part), str(part)):
            for key, value in sparknlp_field_files.read_pairs(record, str(part)):
                if key in pairs:
                    raise ModelError(f"{part} contains a string that occurs twice in field {name}: copy the model again.")
                pairs[key] = value
    return pairs


def _list_part_files(directory: Path, where: str) -> list[Path]:
    """Return the files part-* of a directory, sorted; raise ModelError if there is none."""
    found = sorted(directory.glob("part-*"))
    if not found:
        raise ModelError(f"{where} has no {directory.parent.name}/{directory.name}/part-*: copy the model again.")
    return found


def _find_file(directory: Path, suffix: str, where: str) -> Path:
    """Return the only file with a suffix in a directory and its folders; raise ModelError if there is not exactly one.

    The rest of the file's name differs between versions of Spark NLP.
    """
    found = [path for path in directory.rglob("*") if path.suffix == suffix]
    if len(found) != 1:
        raise ModelError(
            f"The network of {where} has {len(found)} files ending in {suffix}, instead of one: copy the model again."
        )
    return found[0]


def _list_supported_classes() -> str:
    """Return the supported classes of models, without their packages, for an error message."""
    return " and ".join(kind.rpartition(".")[2] for kind in NETWORKS)


def unpack(archive: Path, into: Path | None, where: str, allowance: Allowance) -> None:
    """Unpack all files of a zip archive or, if `into` is None, only check that they can be unpacked.

    Args:
        into: an empty directory; None to only check.
        where: path of the archive, for error messages.
        allowance: how many bytes and files may still be unpacked from the model; this function subtracts what it unpacks.

    Raises:
        ModelError: the archive is damaged or encrypted, contains a path that `_resolve_target` refuses, or exceeds
            `allowance`; or a file cannot be written.
        StorageError: the disk is full.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            allowance.files -= len(members)
            if allowance.files < 0:
                raise ModelError(
                    f"{where} unpacks to more than {model_loading_limits.MAX_UNPACKED_FILES:,} files, more than any model "
                    "has: copy the model again from a source that you trust."
                )
            for member in members:
                target = _resolve_target(member, into or Path(), where)
                _unpack_one(opened, member, target if into else Path(os.devnull), allowance, where)
    except DAMAGE_ERRORS as error:
        full_disk = detect_full_disk(error)
        if full_disk is not None:
            raise full_disk from error
        raise ModelError(f"{where} is not a readable zip archive: copy the model again.") from error


def _resolve_target(member: zipfile.ZipInfo, into: Path, where: str) -> Path:
    """Return the path to which a file of an archive is unpacked; raise ModelError for a link or a path outside `into`.

    A path with a backslash or a colon is refused, too.
    """
    path = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    outside = path.is_absolute() or not path.parts or ".." in path.parts or "\\" in member.filename or ":" in member.filename
    if outside or stat.S_ISLNK(mode):
        raise ModelError(
            f"{where} contains a link, or a file whose path leads out of the archive: copy the model again from a source "
            "that you trust."
        )
    return into / path


def _unpack_one(opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, allowance: Allowance, where: str) -> None:
    """Unpack one file of an archive to `target`, and reduce the bytes of `allowance` by its size.

    The actual bytes are counted, because the size in the file's header may be wrong. Raise ModelError if the file has more
    bytes than `allowance` leaves.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with opened.open(member) as source, target.open("wb") as copy:
        while block := source.read(_BLOCK):
            allowance.bytes -= len(block)
            if allowance.bytes < 0:
                raise ModelError(
                    f"{where} unpacks to far more than its own size, and so may be malicious: copy the model again "
                    "from a source that you trust."
                )
            copy.write(block)
