"""Check that no symbolic link in a model's directory leads out of the directory, because a model may be malicious."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from entitymill.errors import ModelError

_SNAPSHOTS, _BLOBS = "snapshots", "blobs"
"""Directories of the Hugging Face cache: `snapshots/REVISION/config.json` is a link to `../../blobs/DIGEST`."""


def check_links(source: Path) -> None:
    """Refuse a model's directory if a symbolic link in it leads out of it.

    In a Hugging Face cache, links from a snapshot to the blobs of the same model are allowed.

    Args:
        source: the model's directory, or a link to it. A file is not checked.

    Raises:
        ModelError: a link leads out of the directory, even if the target of the link does not exist.
    """
    root = source.resolve()
    allowed = [root, *_list_blob_directories(root)]
    for directory, folders, files in os.walk(root):
        for path in (Path(directory, name) for name in (*folders, *files)):
            if path.is_symlink() and not any(_resolve_link(path, source).is_relative_to(place) for place in allowed):
                raise ModelError(
                    f"{source / path.relative_to(root)} is a symbolic link to {path.readlink()}, outside of {source}: if "
                    f"you trust where it leads, make a copy without links (cp -RL {source} COPY), and prepare the copy."
                )


def _list_blob_directories(root: Path) -> list[Path]:
    """Return each `blobs` directory that is next to a `snapshots` directory above `root`, as in a Hugging Face cache."""
    snapshots = (place.parent for place in (root, *root.parents) if place.parent.name == _SNAPSHOTS)
    # `blobs` is not resolved: if it is itself a link, its files are elsewhere, and links to these must be refused.
    return [place.parent / _BLOBS for place in snapshots if (place.parent / _BLOBS).is_dir()]


def _resolve_link(link: Path, source: Path) -> Path:
    """Return the final target of a symbolic link; raise ModelError if the link leads to itself."""
    try:
        target = link.resolve()
        with suppress(FileNotFoundError):
            link.stat()  # Python 3.13's `resolve` accepts a link to itself
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{link} of {source} is a symbolic link to itself: copy the model again.") from error
    return target
