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
    """Refuse a destination that exists, unless it is a model that may be overwritten.

    Raises:
        SettingsError: the destination exists, and is not a model or `overwrite` is not set.
    """
    if not dest.exists() and not dest.is_symlink():
        return
    if not overwrite:
        raise SettingsError(f"DEST: {dest} exists: choose another, or pass --overwrite.")
    if dest.is_symlink() or not (_is_bundle(dest) or _is_saved(dest)):
        raise SettingsError(f"DEST: {dest} is not a model, and so is not overwritten: choose another.")


def _is_saved(directory: Path) -> bool:
    # A directory named metadata is not sufficient: other formats have one, too.
    return next((directory / sparknlp_saved.METADATA).glob("part-*"), None) is not None


def _is_bundle(directory: Path) -> bool:
    # Other tools also write a manifest.json. It is not parsed, because a damaged bundle may be overwritten.
    return all((directory / name).is_file() for name in (bundle.MANIFEST, bundle.NETWORK))


@contextmanager
def open_scratch_directory(dest: Path) -> Iterator[Path]:
    """Create a temporary directory next to a destination, so on the same file system; remove it after the `with` block.

    Raises:
        OutputError: the directory cannot be created.
    """
    parent = dest.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=f".{dest.name}.", dir=parent)
    except OSError as error:
        raise OutputError(f"DEST: {parent} cannot be written ({error.strerror}).") from error
    with made as scratch:
        yield Path(scratch)


def move_into_place(made: Path, dest: Path, scratch: Path) -> None:
    """Rename a directory to its destination, and replace an existing directory; if renaming fails, restore the existing one.

    Raises:
        OutputError: the directory cannot be renamed.
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
