from pathlib import Path

import pytest

from entitymill.recognition.hardware import Processor, read_processor
from entitymill.recognition.tagger import Precision

AVX2 = "processor\t: 0\nmodel name\t: Old Chip 3\nflags\t\t: fpu sse avx avx2\n"


def test_the_processor_is_read_from_linux(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"{AVX2}\nprocessor\t: 1\nmodel name\t: other\nflags\t\t: none\n")
    assert read_processor(tmp_path / "cpuinfo").describe() == "Old Chip 3, avx2"
    assert read_processor(tmp_path / "absent").instructions == frozenset()
    assert read_processor().name


@pytest.mark.parametrize(
    ("instructions", "precision", "fault"),
    [
        ({"avx2"}, "int8", "without VNNI"),
        ({"avx2"}, "bf16", "without AVX512_BF16 or AMX"),
        ({"avx2"}, "f32", None),
        ({"avx2", "avx_vnni"}, "int8", None),
        ({"avx512_bf16"}, "bf16", None),
        (set(), "int8", None),  # nothing is known, as on ARM
    ],
)
def test_a_slow_precision_is_found(instructions: set[str], precision: Precision, fault: str | None) -> None:
    found = Processor("chip", frozenset(instructions)).find_drawback(precision)
    assert (found is None) if fault is None else (fault in str(found))
