"""Load and validate all settings from layers of files, environment variables and options.

This package imports neither PySpark nor OpenVINO.
"""

from entitymill.settings.loading import Settings, list_keys, load

__all__ = ["Settings", "list_keys", "load"]
