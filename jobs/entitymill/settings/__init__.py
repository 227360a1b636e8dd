"""Everything that can be set: layers of files, variables and options, checked section by section. No Spark, no OpenVINO."""

from entitymill.settings.loading import Settings, known_keys, load

__all__ = ["Settings", "known_keys", "load"]
