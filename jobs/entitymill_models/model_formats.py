"""Detect the format of a model by its files, and read the model; refuse links that lead out of the model's directory."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from entitymill.errors import ModelError, SettingsError
from entitymill.recognition.model_loading_limits import convert_loading_errors
from entitymill.recognition.tagger import bundle, network
from entitymill.recognition.tagger.inference import read_tokenizer
from entitymill_models import huggingface, network_import, sparknlp_saved
from entitymill_models.imported_classifier import Casing, Parts, read_vocabulary

FORMATS = (
    "a bundle, a saved Spark NLP model (directory or zip), a Hugging Face directory, or a directory with one ONNX or "
    "OpenVINO network"
)
"""Phrase that lists the supported formats of a model, for error messages and the --help text."""
_SNAPSHOTS, _BLOBS = "snapshots", "blobs"
"""Directories of the Hugging Face cache, in which `snapshots/REVISION/config.json` is a link to `../../blobs/DIGEST`."""


def read_model(source: Path, scratch: Path, casing: Casing | None = None) -> tuple[Parts, bundle.Manifest | None]:
    """Read a model of any supported format; return its parts and, if it is a bundle, its manifest.

    Args:
        source: the model's directory, or the zip archive of a saved Spark NLP model.
        scratch: an empty directory for unpacked files, which must exist as long as the result is used.
        casing: the casing that the user specified, or None to read it from the model. The user's casing overrides the
            metadata of a saved Spark NLP model or a tokenizer_config.json. It must be the same as in a bundle's manifest or
            a tokenizer.json.

    Raises:
        ModelError: the model is damaged, incomplete, in an unsupported format, or contains a symbolic link that leads out of
            the model's directory.
        SettingsError: the model does not exist, or `casing` contradicts the model, or is None and no file states the casing.
    """
    if not source.exists():
        raise SettingsError(f"SOURCE: {source} does not exist; check the path.")
    check_links(source)
    with convert_loading_errors(str(source)):
        return _detect_and_read(source, str(source), scratch, casing)


def _detect_and_read(source: Path, where: str, scratch: Path, casing: Casing | None) -> tuple[Parts, bundle.Manifest | None]:
    """Read a model, after the caller has checked its symbolic links; return its parts and, if it is a bundle, its manifest.

    If `source` is a file, it must be the zip archive of a saved Spark NLP model. A directory is tried as a bundle, a saved
    Spark NLP model, a Hugging Face directory, and a directory with a network, in this order. `where` is the path of the
    model, for error messages. The other arguments and the errors are the same as in `read_model`.
    """
    network_scratch, unpacked = scratch / "network", scratch / "model"
    network_scratch.mkdir()
    if source.is_file():
        if source.suffix in (".onnx", ".xml", ".bin", ".safetensors"):
            raise ModelError(
                f"{where} is only one file of a model: SOURCE must be the directory with this file, labels and vocabulary."
            )
        unpacked.mkdir()
        allowance = sparknlp_saved.Allowance.for_archive(source)
        sparknlp_saved.unpack(source, unpacked, where, allowance)
        return sparknlp_saved.read_saved_model(
            sparknlp_saved.find_model(unpacked, where), network_scratch, where, casing, allowance
        ), None
    if (source / bundle.MANIFEST).is_file():
        return _read_bundle(source, casing)
    if sparknlp_saved.is_saved_model(source):
        return sparknlp_saved.read_saved_model(source, network_scratch, where, casing), None
    if huggingface.is_model_directory(source):
        return huggingface.read_directory(source, where, casing), None
    if list(source.glob("*.onnx")) or list(source.glob("*.xml")):
        return network_import.read_directory(source, where, casing), None
    raise ModelError(f"{where} is not a model in a supported format. SOURCE must be {FORMATS}.")


def _read_bundle(directory: Path, casing: Casing | None) -> tuple[Parts, bundle.Manifest]:
    """Read a bundle, after checking its files against the manifest; return its parts and its manifest.

    Raise ModelError if the bundle is damaged or incomplete, and SettingsError if `casing` is set but differs from the
    casing in the manifest.
    """
    where = str(directory)
    manifest, files = bundle.read_directory(directory)
    if casing not in (None, manifest.casing):
        raise SettingsError(f"--casing says {casing}, but the bundle {where} is {manifest.casing}: leave the option out.")
    bundle.check_files(files, manifest, where)
    read_tokenizer(files, manifest, where)
    has_json = bundle.TOKENIZER in manifest.files
    model = network.read_network(files[bundle.NETWORK], files[bundle.WEIGHTS], where)
    positions = network.count_positions(model)
    parts = Parts(
        network=model,
        labels=bundle.read_tags(files[bundle.LABELS]),
        tokenizer=files[bundle.TOKENIZER].read_text(encoding="utf8") if has_json else None,
        vocabulary=None if has_json else read_vocabulary(files[bundle.VOCABULARY]),
        casing=manifest.casing,
        max_length=manifest.max_length,
        source=manifest.source,
        # RoBERTa's position table has rows that are never used, so `positions` may be larger than the real limit. The real
        # limit is at least the manifest's max_length, because a bundle is tried with this length when it is prepared.
        limit=None if positions is None else max(positions, manifest.max_length),
        sparknlp_max_length=manifest.sparknlp_max_length,
    )
    return parts, manifest


def check_links(source: Path) -> None:
    """Raise ModelError if a symbolic link in the directory `source` leads out of this directory.

    A target outside is refused even if it does not exist; a missing target inside is accepted. A link to itself is refused.
    In a Hugging Face cache, links from a snapshot to the blobs of the same model are allowed. `source` may itself be a link
    to the directory. If `source` is a file, nothing is checked.
    """
    top = source.resolve()
    roots = [top, *_list_blob_directories(top)]
    for directory, folders, files in os.walk(top):
        for path in (Path(directory, name) for name in (*folders, *files)):
            if path.is_symlink() and not any(_resolve_link(path, source).is_relative_to(root) for root in roots):
                raise ModelError(
                    f"{source / path.relative_to(top)} is a symbolic link to {path.readlink()}, outside of {source}: if "
                    f"you trust where it leads, make a copy without links (cp -RL {source} COPY), and prepare the copy."
                )


def _list_blob_directories(root: Path) -> list[Path]:
    """Return each `blobs` directory that is next to a `snapshots` directory above `root`, as in a Hugging Face cache."""
    snapshots = (path.parent for path in (root, *root.parents) if path.parent.name == _SNAPSHOTS)
    # `blobs` is not resolved: if it is itself a link, its files are elsewhere, and links to those files must be refused.
    return [path.parent / _BLOBS for path in snapshots if (path.parent / _BLOBS).is_dir()]


def _resolve_link(link: Path, source: Path) -> Path:
    """Return the final target of a symbolic link in the model `source`; the target need not exist.

    Raise ModelError if the link leads to itself, or the target cannot be accessed.
    """
    try:
        target = link.resolve()
        with suppress(FileNotFoundError):
            link.stat()  # Python 3.13's `resolve` accepts a link to itself
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{link} of {source} is a symbolic link to itself: copy the model again.") from error
    return target
