from collections.abc import Callable
from pathlib import Path

import pytest

from entitymill.recognition.tagger import Encoding, Execution, Precision, bundle
from entitymill.recognition.tagger.inference import Tagger, read_tokenizer
from entitymill.recognition.tagger.tokens_to_model_input import Encoder

DEMO = Path(__file__).parents[2] / "models" / "demo"


@pytest.fixture(scope="session")
def demo_manifest() -> bundle.Manifest:
    return bundle.read_manifest((DEMO / bundle.MANIFEST).read_text(), str(DEMO))


@pytest.fixture(scope="session")
def demo_files(demo_manifest: bundle.Manifest) -> dict[str, Path]:
    return {name: DEMO / name for name in demo_manifest.files}


@pytest.fixture(scope="session")
def load_tagger(demo_files: dict[str, Path], demo_manifest: bundle.Manifest) -> Callable[..., Tagger]:
    def load(precision: Precision = "f32", max_length: int = 0, encoding: Encoding = "complete") -> Tagger:
        changed = demo_manifest.model_copy(update={"max_length": max_length or demo_manifest.max_length})
        return Tagger.load(demo_files, changed, Execution(precision, encoding))

    return load


@pytest.fixture(scope="session")
def tagger(load_tagger: Callable[..., Tagger]) -> Tagger:
    return load_tagger()


@pytest.fixture(scope="session")
def encoder(demo_files: dict[str, Path], demo_manifest: bundle.Manifest) -> Encoder:
    return Encoder(read_tokenizer(demo_files, demo_manifest), 510)
