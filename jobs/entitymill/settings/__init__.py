"""Load and validate all settings from layers of files, environment variables and command-line options.

This package imports neither PySpark nor OpenVINO, so that wrong settings are reported at once.
"""

from entitymill.settings.loading import Settings, list_keys, load

__all__ = ["Settings", "list_keys", "load"]
