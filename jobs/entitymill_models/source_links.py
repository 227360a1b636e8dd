"""Check that the symbolic links in the directory of a model, which may be hostile, do not lead out of it."""

from __future__ import annotations

import os
from pathlib import Path

from entitymill.errors import ModelError

_SNAPSHOTS, _BLOBS = "snapshots", "blobs"
"""Directories of the Hugging Face cache: `snapshots/REVISION/config.json` is a link to `../../blobs/DIGEST`."""


def check_links(source: Path) -> None:
    """Refuse a directory with a symbolic link that leads out of it; in a Hugging Face cache, links to its blobs are fine.

    Args:
        source: may itself be a link; a file needs no check.

    Raises:
        ModelError: a link leads to another place, whether anything is there or not.
    """
    root = source.resolve()
    allowed = [root, *_blobs(root)]
    for directory, folders, files in os.walk(root):
        for path in (Path(directory, name) for name in (*folders, *files)):
            if path.is_symlink() and not any(_target(path, source).is_relative_to(place) for place in allowed):
                raise ModelError(
                    f"{source / path.relative_to(root)} is a symbolic link to {path.readlink()}, outside of {source}: if "
                    f"you trust where it leads, make a copy without links (cp -RL {source} COPY), and prepare the copy."
                )


def _blobs(root: Path) -> list[Path]:
    """Return the directory of blobs that belongs to a snapshot in a Hugging Face cache, or to a folder in one."""
    snapshots = (place.parent for place in (root, *root.parents) if place.parent.name == _SNAPSHOTS)
    # `blobs` is not resolved: if it is itself a link, its files are elsewhere and must not be allowed.
    return [place.parent / _BLOBS for place in snapshots if (place.parent / _BLOBS).is_dir()]


def _target(link: Path, source: Path) -> Path:
    """Return the final target of a link."""
    try:
        return link.resolve()
    except (OSError, RuntimeError) as error:
        raise ModelError(f"{link} of {source} is a symbolic link to itself: copy the model again.") from error
