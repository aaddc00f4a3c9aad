"""Explicit specification files of conda: read strictly, and written as other readers take them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rattler.explicit_environment import ExplicitEnvironmentSpec

from haversack.errors import DeclarationError
from haversack.formats import explicit
from haversack.formats.explicit import ExplicitEntry

EXAMPLES = Path(__file__).parent.parent / "docs" / "spec" / "examples"
URL = "https://conda.example.org/conda-forge/linux-64/tool-1.0-h0_0.conda"
MD5, SHA256 = "cd" * 16, "ab" * 32
RECORD = {"fn": "tool-1.0-h0_0.conda", "url": URL, "md5": MD5, "sha256": SHA256}


def read(*lines: str) -> tuple[ExplicitEntry, ...]:
    """The entries of a file of some lines after its mark."""
    return explicit.read("\n".join(["# a comment", "@EXPLICIT", *lines]).encode(), "spec.txt")


@pytest.mark.parametrize(
    ("fragment", "expected"),
    [
        ("", ExplicitEntry(URL)),
        (f"#{MD5}", ExplicitEntry(URL, md5=MD5)),
        (f"#{MD5.upper()}", ExplicitEntry(URL, md5=MD5)),
        (f"#{SHA256}", ExplicitEntry(URL, sha256=f"sha256:{SHA256}")),
        (f"#sha256:{SHA256}", ExplicitEntry(URL, sha256=f"sha256:{SHA256}")),
    ],
)
def test_every_way_to_write_a_hash_is_read(fragment: str, expected: ExplicitEntry) -> None:
    """No hash, an md5, a sha256 with and without its name."""
    assert read(URL + fragment) == (expected,)


def test_comments_empty_lines_and_windows_are_no_trouble() -> None:
    """A mark of Windows editors in front, carriage returns and a trailing blank change nothing."""
    data = f"\ufeff# platform: linux-64\r\n@EXPLICIT\r\n\r\n{URL}#{MD5} \r\n".encode()
    assert explicit.read(data, "spec.txt") == (ExplicitEntry(URL, md5=MD5),)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("https://me:hunter2@conda.example.org/c/linux-64/tool-1.0-0.conda", "holds a user name"),
        ("https://conda.example.org/t/hunter2/c/linux-64/tool-1.0-0.conda", "a token"),
        ("https://conda.example.org/c/linux-64/tool-1.0-0.conda?key=hunter2", "a query"),
        ("numpy=hunter2", "is not the URL of a package"),
        ("/home/hunter2/tool-1.0-0.conda", "is not the URL of a package"),
        ("https://conda.example.org/c/linux-64/hunter2.zip", "is not the URL of a conda package"),
        (f"{URL}#hunter2", "neither an md5 nor a sha256"),
        (f"{URL}#sha256:{MD5}", "neither an md5 nor a sha256"),
        ("https://conda.example.org/a hunter2/tool-1.0-0.conda", "is not a URL"),
    ],
)
def test_a_wrong_line_is_named_and_not_repeated(line: str, said: str) -> None:
    """The error gives file, line and a remedy; what stands there may be a password."""
    with pytest.raises(DeclarationError, match=said) as caught:
        read(URL, line)
    assert caught.value.where == "spec.txt: line 4"
    assert caught.value.remedy
    assert "hunter2" not in f"{caught.value} {caught.value.remedy}"


def test_a_file_without_its_mark_and_a_package_named_twice_are_refused() -> None:
    """Without @EXPLICIT conda would solve; two lines for one file cannot both be meant."""
    with pytest.raises(DeclarationError, match="has no line @EXPLICIT"):
        explicit.read(URL.encode(), "spec.txt")
    with pytest.raises(DeclarationError, match="stands twice"):
        read(URL, f"{URL}#{MD5}")
    with pytest.raises(DeclarationError, match="not UTF-8"):
        explicit.read(b"@EXPLICIT\n\xff", "spec.txt")


@pytest.mark.parametrize("hashed", ["sha256", "md5"])
def test_what_is_written_rattler_reads_and_we_read_back(hashed: str) -> None:
    """Platform, address and hash are what the record says."""
    data = explicit.write("linux-64", [RECORD], hashed)  # type: ignore[arg-type]
    spec = ExplicitEnvironmentSpec.from_str(data.decode())
    assert str(spec.platform) == "linux-64"
    assert [package.url.partition("#")[0] for package in spec.packages] == [URL]
    (entry,) = explicit.read(data, "spec.txt")
    assert (entry.md5, entry.sha256) == ((MD5, None) if hashed == "md5" else (None, f"sha256:{SHA256}"))


def test_the_example_of_the_specification_is_what_is_written() -> None:
    """docs/spec/doors.md shows real output, for the package of docs/spec/examples/repodata.json."""
    table = json.loads((EXAMPLES / "repodata.json").read_bytes())["packages.conda"]
    channel = "https://conda.example.org/conda-forge/linux-64"
    records = [{**record, "fn": name, "url": f"{channel}/{name}"} for name, record in table.items()]
    assert explicit.write("linux-64", records, "sha256") == (EXAMPLES / "explicit.txt").read_bytes()


def test_an_md5_that_nobody_names_is_told() -> None:
    """It is not left out silently."""
    with pytest.raises(ValueError, match=r"the md5 of tool-1\.0-h0_0\.conda"):
        explicit.write("linux-64", [{**RECORD, "md5": None}], "md5")
