"""Write a directory completely or not at all: create it next to its destination, then rename it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entitymill.errors import OutputError, SettingsError
from entitymill.recognition.tagger import bundle
from entitymill_models import sparknlp_saved


def check_destination(dest: Path, *, overwrite: bool) -> None:
    """Raise SettingsError if `dest` exists, unless `overwrite` is true and `dest` is a directory that contains a model.

    A model is a bundle or a saved Spark NLP model. A symbolic link is always refused, even if it leads to a model.
    """
    if not dest.exists() and not dest.is_symlink():
        return
    if not overwrite:
        raise SettingsError(f"DEST: {dest} already exists. Choose another directory, or pass --overwrite to replace it.")
    if dest.is_symlink() or not (_is_bundle(dest) or _is_saved_model(dest)):
        raise SettingsError(
            f"DEST: {dest} is not a model, or is a symbolic link, so --overwrite does not replace it. "
            "Choose another directory."
        )


def _is_saved_model(directory: Path) -> bool:
    """Return whether a directory contains metadata/part-*, as a saved Spark NLP model does."""
    # A directory named metadata does not prove that this is a saved model: other formats also use this name.
    return next((directory / sparknlp_saved.METADATA).glob("part-*"), None) is not None


def _is_bundle(directory: Path) -> bool:
    """Return whether a directory contains a manifest and a network, as a bundle does."""
    # Other tools also write a manifest.json, so the network must exist, too. The manifest is not parsed, so that --overwrite
    # can also replace a damaged bundle.
    return all((directory / name).is_file() for name in (bundle.MANIFEST, bundle.NETWORK))


@contextmanager
def open_scratch_directory(dest: Path) -> Iterator[Path]:
    """Yield a new temporary directory next to `dest`, on the same file system; delete it after the `with` block.

    Missing parent directories of `dest` are created, and not deleted. Raise OutputError if a directory cannot be created.
    """
    parent = dest.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=parent)
    except OSError as error:
        raise OutputError(
            f"DEST: {parent} cannot be written ({error.strerror}). Choose a directory to which you can write."
        ) from error
    with temporary as scratch:
        yield Path(scratch)


def move_into_place(new: Path, dest: Path, scratch: Path) -> None:
    """Rename the directory `new` to `dest`; if renaming fails, restore the directory that was at `dest` before.

    Args:
        new: the directory to rename.
        dest: the new path of `new`; a directory that is already at this path is replaced.
        scratch: an existing directory on the same file system, into which the replaced directory is moved.

    Raises:
        OutputError: the directory cannot be renamed.
    """
    old = scratch / "replaced"
    try:
        if dest.exists():
            dest.rename(old)
        try:
            new.rename(dest)
        except OSError:
            if old.exists():
                old.rename(dest)
            raise
    except OSError as error:
        raise OutputError(
            f"DEST: {dest} cannot be written ({error.strerror}). Choose a directory to which you can write."
        ) from error
