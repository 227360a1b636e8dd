from unit.conftest import demo_files, demo_manifest, load_tagger, tagger

__all__ = ["demo_files", "demo_manifest", "load_tagger", "tagger"]
