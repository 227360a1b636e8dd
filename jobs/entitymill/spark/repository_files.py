"""Find the jars and models of a clone of the repository from any working directory, such as that of cron or systemd."""

from __future__ import annotations

from pathlib import Path

_CODE = Path(__file__).parents[2]
REPOSITORY = _CODE.parent if _CODE.name == "jobs" else None
"""Root of the clone from which this package runs; None if the package was installed without the repository."""


def find_installed(path: str) -> str:
    """Return a path in the repository if a relative path exists there but not in the working directory.

    Any other path is returned unchanged: absolute paths, URIs, paths with `..`, and paths that exist in the
    working directory or nowhere.
    """
    relative = Path(path)
    if REPOSITORY is None or relative.is_absolute() or ".." in relative.parts or relative.exists():
        return path
    installed = REPOSITORY / relative
    return str(installed) if installed.exists() else path


def pin_path(path: str) -> str:
    """Return the absolute form of a path that exists in the working directory but not in the repository; else `path` itself.

    A setting with the returned path means the same in every working directory.
    """
    is_installed = REPOSITORY is not None and (REPOSITORY / path).exists()
    return str(Path(path).absolute()) if Path(path).exists() and not is_installed else path
