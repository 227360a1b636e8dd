import io
import stat
import zipfile
from functools import partial
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from entitymill.errors import ModelError
from entitymill.models import zip_archive
from unit.damage import repacked

FILES = {"metadata/part-00000": b'{"class": "x"}\n' * 20, "network": bytes(range(256)) * 8, "empty": b""}


packed = partial(repacked, method=zipfile.ZIP_DEFLATED)


def unpack(content: bytes, directory: Path) -> Path:
    file, into = directory / "model.zip", directory / "into"
    file.write_bytes(content)
    into.mkdir()
    zip_archive.unpack(file, into, "model.zip")
    return into


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    into = unpack(packed(FILES), tmp_path)
    assert {name: (into / name).read_bytes() for name in FILES} == FILES


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "a/../../out", "..\\out", "C:/out"])  # noqa: S108
def test_nothing_is_written_outside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="outside"):
        unpack(packed({name: b"x"}), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["into", "model.zip"]
    assert not list((tmp_path / "into").iterdir())


def test_a_link_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(ModelError, match="link"):
        unpack(buffer.getvalue(), tmp_path)


def test_a_bomb_is_refused_before_it_fills_the_disk(tmp_path: Path) -> None:
    content = packed({"zeros": bytes(64 * 2**20)})
    with pytest.raises(ModelError, match="far more than its own size"):
        unpack(content, tmp_path)
    assert (tmp_path / "into" / "zeros").stat().st_size < 2**20 + zip_archive.MAX_RATIO * len(content)


def test_a_member_that_is_said_to_begin_at_the_end_is_refused(tmp_path: Path) -> None:
    content = bytearray(packed({"a": b"x"}))
    entry = content.index(b"PK\x01\x02")
    content[entry + 42 : entry + 46] = (len(content) - 10).to_bytes(4, "little")
    with pytest.raises(ModelError, match="not a zip archive that can be read"):
        unpack(bytes(content), tmp_path)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zip_archive, "MAX_MEMBERS", 2)
    with pytest.raises(ModelError, match="3 files"):
        unpack(packed(FILES), tmp_path)


@given(st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_archive_is_refused_or_read(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(repacked(FILES, data.draw(st.sampled_from([zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED]))))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert"])):
            case "flip":
                content[at] ^= data.draw(st.integers(1, 255))
            case "cut":
                del content[max(at, 1) :]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=12))
    directory = tmp_path_factory.mktemp("damaged")
    try:
        into = unpack(bytes(content), directory)
    except ModelError:
        return
    assert sum(path.stat().st_size for path in into.rglob("*") if path.is_file()) <= 2**20
