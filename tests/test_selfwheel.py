"""haversack as a wheel of itself: one digest everywhere, and a wheel like any other."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import io
import os
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from installer.sources import WheelFile
from uv import find_uv_bin

from haversack.formats import selfwheel, wheel

METADATA = (
    "Metadata-Version: 2.4\nName: Demo.Tool\nVersion: 1.0.0+local.1\nLicense-File: LICENSE\n\nText: ü\n"
)
ENTRY_POINTS = "[console_scripts]\ndemo-tool = demo_tool:main\n"
FILES = {
    "demo_tool/__init__.py": b"def main():\n    print('it runs')\n",
    "demo_tool/data/names, and more.txt": "ü".encode(),
    "demo_tool/empty": b"",
}
FILENAME = "demo_tool-1.0.0+local.1-py3-none-any.whl"


def package(root: Path, files: Mapping[str, bytes] = FILES) -> Path:
    """A package folder on disk."""
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root / "demo_tool"


def judged(filename: str, data: bytes, folder: Path) -> dict[str, object]:
    """The facts of a wheel in which neither our reader nor the installer library finds fault."""
    (folder / filename).write_bytes(data)
    with WheelFile.open(folder / filename) as source:
        source.validate_record()
    facts, findings = wheel.inspect(io.BytesIO(data), filename)
    assert findings == []
    return dict(facts)


def installed(path: Path, target: Path) -> Path:
    """Install a wheel, and nothing it requires, with uv and no network."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("UV_", "PIP_"))}
    options = [
        "--no-config",
        "--offline",
        "--no-index",
        "--no-deps",
        "--no-cache",
        "--python",
        sys.executable,
    ]
    command: list[str | Path] = [
        find_uv_bin(),
        "pip",
        "install",
        "--quiet",
        *options,
        "--target",
        target,
        path,
    ]
    subprocess.run(command, check=True, env=environment)
    return target


def test_what_is_built_is_a_sound_wheel(tmp_path: Path) -> None:
    """Name, version and texts are those of the metadata, normalised as a file name must be."""
    filename, data = selfwheel.build(METADATA, ENTRY_POINTS, FILES, {"LICENSE": b"yours"})
    assert filename == FILENAME
    facts = judged(filename, data, tmp_path)
    assert facts["modules"] == ["demo_tool"]
    assert facts["entry_points"] == ["demo-tool"]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        info = "demo_tool-1.0.0+local.1.dist-info"
        assert {path: archive.read(path) for path in FILES} == FILES
        assert archive.read(f"{info}/METADATA").decode() == METADATA
        assert archive.read(f"{info}/licenses/LICENSE") == b"yours"
        assert archive.namelist()[-1] == f"{info}/RECORD"


def test_the_bytes_depend_on_nothing_but_the_contents(tmp_path: Path) -> None:
    """Order, times, permissions, and the zlib of the machine leave no trace: two sites agree on the digest."""
    first = selfwheel.build(METADATA, ENTRY_POINTS, FILES)
    again = selfwheel.build(METADATA, ENTRY_POINTS, dict(reversed(FILES.items())))
    folder = package(tmp_path)
    for path in folder.rglob("*"):
        os.utime(path, (0, 0))
        path.chmod(0o700)
    assert first == again == selfwheel.own_wheel(folder, METADATA, ENTRY_POINTS)
    with zipfile.ZipFile(io.BytesIO(first[1])) as archive:
        for member in archive.infolist():
            assert member.compress_type == zipfile.ZIP_STORED
            assert member.date_time == (1980, 1, 1, 0, 0, 0)
            assert member.external_attr >> 16 == stat.S_IFREG | 0o644


def test_what_is_not_of_the_package_stays_behind(tmp_path: Path) -> None:
    """Bytecode and hidden files differ from machine to machine and belong to nobody's release."""
    stray = {
        "demo_tool/__pycache__/__init__.cpython-311.pyc": b"x",
        "demo_tool/old.pyc": b"x",
        "demo_tool/.swp": b"x",
    }
    folder = package(tmp_path, {**FILES, **stray})
    assert selfwheel.own_wheel(folder, METADATA, ENTRY_POINTS) == selfwheel.build(
        METADATA, ENTRY_POINTS, FILES
    )


def test_a_package_in_an_archive_gives_the_same_wheel(tmp_path: Path) -> None:
    """haversack run from a zip file carries itself as well."""
    with zipfile.ZipFile(tmp_path / "app.pyz", "w") as archive:
        for path, data in FILES.items():
            archive.writestr(path, data)
    folder = zipfile.Path(tmp_path / "app.pyz", "demo_tool/")
    assert selfwheel.own_wheel(folder, METADATA, ENTRY_POINTS) == selfwheel.build(
        METADATA, ENTRY_POINTS, FILES
    )


def test_a_compiled_package_is_refused(tmp_path: Path) -> None:
    """A wheel for any machine holds no code for one."""
    folder = package(tmp_path, {**FILES, "demo_tool/fast.cpython-311-x86_64-linux-gnu.so": b"\x7fELF"})
    with pytest.raises(ValueError, match=r"demo_tool/fast\S+ is compiled"):
        selfwheel.own_wheel(folder, METADATA, ENTRY_POINTS)


@pytest.mark.parametrize(
    "metadata", ["", "Name: demo\n", "Version: 1\n", "Name: ../x\nVersion: 1\n", "Name: x\nVersion: y\n"]
)
def test_metadata_without_a_name_or_version_is_refused(metadata: str) -> None:
    """A wheel cannot be named after what nobody said."""
    with pytest.raises(ValueError):
        selfwheel.build(metadata, "", FILES)


def test_what_is_built_installs_and_runs(tmp_path: Path) -> None:
    """uv takes the wheel, and its command runs."""
    filename, data = selfwheel.build(METADATA, ENTRY_POINTS, FILES)
    (tmp_path / filename).write_bytes(data)
    target = installed(tmp_path / filename, tmp_path / "target")
    code = f"import sys; sys.path.insert(0, {str(target)!r}); import demo_tool; demo_tool.main()"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "it runs\n"
    assert (target / "bin" / "demo-tool").is_file()


def test_haversack_carries_itself(tmp_path: Path) -> None:
    """The distribution that is installed here, editable or not, becomes a wheel that installs and imports."""
    distribution = importlib.metadata.distribution("haversack")
    metadata, entry_points = (distribution.read_text(name) or "" for name in ("METADATA", "entry_points.txt"))
    package_folder = importlib.resources.files("haversack")
    filename, data = selfwheel.own_wheel(package_folder, metadata, entry_points)
    facts = judged(filename, data, tmp_path)
    assert facts["requires_dist"] == [" ".join(line.split()) for line in distribution.requires or ()]
    assert facts["entry_points"] == ["haversack"]
    target = installed(tmp_path / filename, tmp_path / "target")
    code = f"import sys; sys.path.insert(0, {str(target)!r}); import haversack.errors as e; print(e.__file__)"
    done = subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True)
    assert Path(done.stdout.strip()) == target / "haversack" / "errors.py"
