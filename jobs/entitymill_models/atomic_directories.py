"""A directory written whole or not at all: made beside its place, then renamed into it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from entitymill.errors import OutputError, SettingsError
from entitymill.recognition.tagger import bundle
from entitymill_models import sparknlp_saved


def check(dest: Path, *, overwrite: bool) -> None:
    """Refuse a place that is taken.

    Raises:
        SettingsError: something is there, and is not to be overwritten or is no model.
    """
    if not dest.exists() and not dest.is_symlink():
        return
    if not overwrite:
        raise SettingsError(f"DEST: {dest} exists: choose another, or pass --overwrite.")
    if dest.is_symlink() or not (_is_bundle(dest) or _is_saved(dest)):
        raise SettingsError(f"DEST: {dest} is not a model, and so is not overwritten: choose another.")


def _is_saved(directory: Path) -> bool:
    # Other tables and models keep a directory of that name, too.
    return next((directory / sparknlp_saved.METADATA).glob("part-*"), None) is not None


def _is_bundle(directory: Path) -> bool:
    # Others' files are called manifest.json, too; one that is damaged may be made again.
    return all((directory / name).is_file() for name in (bundle.MANIFEST, bundle.NETWORK))


@contextmanager
def beside(dest: Path) -> Iterator[Path]:
    """A temporary directory on the same file system as a place that is to be filled.

    Raises:
        OutputError: it cannot be made.
    """
    parent = dest.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=parent)
    except OSError as error:
        raise OutputError(f"DEST: {parent} cannot be written ({error.strerror}).") from error
    with made as scratch:
        yield Path(scratch)


def put(made: Path, dest: Path, scratch: Path) -> None:
    """Rename a directory into its place; what was there goes, and comes back if that fails.

    Raises:
        OutputError: it fails.
    """
    old = scratch / "replaced"
    try:
        if dest.exists():
            dest.rename(old)
        try:
            made.rename(dest)
        except OSError:
            if old.exists():
                old.rename(dest)
            raise
    except OSError as error:
        raise OutputError(f"DEST: {dest} cannot be written ({error.strerror}).") from error
