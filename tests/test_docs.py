"""The documentation: its examples are read by the real readers, its tables and commands held against the code."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from haversack.cli import cli
from haversack.clients import clients
from haversack.errors import every_error
from haversack.formats import bundle as layout
from haversack.formats import handout, ledgerline, lockfile, oci, schema
from haversack.formats import receipt as receipts
from haversack.formats.canonical import canonical, parse
from haversack.formats.declaration import parse as parse_declaration
from haversack.kinds import keys as kind_keys
from haversack.model.artifact import digest_of, hex_of
from haversack.model.finding import CODES
from haversack.model.ledger import check_chain
from haversack.model.snapshot import Snapshot
from haversack.ports.disk import DiskStore
from haversack.relocation import manifest
from haversack.verbs import holdings
from haversack.verbs.install import read_marker
from haversack.verbs.needs import completed

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "spec" / "examples"
REFERENCE = DOCS / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
_FENCE = re.compile(r"^```(\S*) ?(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def example(name: str) -> bytes:
    """The bytes of an example."""
    return (EXAMPLES / name).read_bytes()


def blocks(page: Path) -> Iterator[tuple[str, str, str]]:
    """Language, second word and text of every fenced block."""
    for match in _FENCE.finditer(page.read_text(encoding="utf-8")):
        yield match[1], match[2], match[3]


def rows(page: Path, heading: str = "") -> dict[str, list[str]]:
    """Cells of every table row below a heading (or anywhere), by the text of the first cell."""
    text = "\n" + page.read_text(encoding="utf-8")
    if heading:
        _, _, text = text.partition(f"\n{heading}\n")
        text = re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = {}
    for line in text.splitlines():
        cells = [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if cells and set(cells[0]) - set("-"):
            found[cells[0]] = cells[1:]
    return found


# The examples of the formats


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    """The snapshot of the examples, read from its blobs as a store would give them."""
    blobs = {digest_of(path.read_bytes()): path.read_bytes() for path in EXAMPLES.iterdir()}
    blobs[digest_of(b"{}")] = b"{}"
    return oci.read(digest_of(example("snapshot.json")), lambda digest: blobs[digest])


def test_every_example_is_shown_or_named_by_a_page() -> None:
    """No example lies about unread, and none is missing that a page shows."""
    text = "".join(page.read_text(encoding="utf-8") for page in (DOCS / "spec").glob("*.md"))
    by_test_only = {"tool-config.json", "tool-manifest.json"}
    assert {path.name for path in EXAMPLES.iterdir() if f"examples/{path.name}" not in text} == by_test_only


@pytest.mark.parametrize("page", sorted((DOCS / "spec").glob("*.md")), ids=lambda page: page.name)
def test_blocks_of_the_specification_are_the_examples(page: Path) -> None:
    """A block that names an example is that file; JSON may be broken into lines for reading."""
    named = [(name, text) for _, name, text in blocks(page) if name]
    assert named
    for name, text in named:
        data = (page.parent / name).read_text(encoding="utf-8")
        if text.rstrip("\n") != data.rstrip("\n"):
            assert json.loads(text) == json.loads(data), name


def test_the_manifest_of_a_packed_folder_survives_reading_and_writing() -> None:
    """The example is read by the real reader and written again byte for byte."""
    data = example("haversack-prefix.json")
    assert manifest.write(manifest.read(data)) == data


def test_the_canonical_example_is_canonical() -> None:
    """What the page on canonical JSON shows is what the writer writes, and its digest is right."""
    data = example("canonical.json")
    assert canonical(parse(data, "example")) == data
    digits, name = example("canonical.json.sha256").decode().split()
    assert (hashlib.sha256(data).hexdigest(), "canonical.json") == (digits, name)


def test_the_lock_example_survives_reading_and_writing() -> None:
    """The example of a lock is read without a warning and written again byte for byte."""
    lock, warning = lockfile.read(example("haversack.lock"))
    assert warning is None
    assert lockfile.write(lock) == example("haversack.lock")


def test_the_snapshot_examples_follow_from_the_lock(snapshot: Snapshot) -> None:
    """From the lock and what its files say of themselves come the example's index, manifests and configs."""
    lock, _ = lockfile.read(example("haversack.lock"))
    facts = {a.digest: (a.size or 0, a.facts) for e in snapshot.environments for a in e.artifacts}
    built, metadata = oci.build(lock, facts)
    assert built.id == snapshot.id == digest_of(example("snapshot.json"))
    assert built.lock == digest_of(example("haversack.lock"))
    names = ("lock-manifest.json", "environment-manifest.json", "environment-config.json", "snapshot.json")
    for name in names:
        assert metadata[digest_of(example(name))] == example(name)


@pytest.mark.parametrize("name", ["bundle.json", "increment.json"])
def test_manifest_examples_survive_reading_and_writing(name: str) -> None:
    """The examples of manifests are read without a warning and written again byte for byte."""
    bundle, warning = layout.read(example(name))
    assert warning is None
    assert layout.write(bundle) == example(name)
    assert (bundle.base is None) == (name == "bundle.json") == (not bundle.requires)


def test_the_files_of_the_volume_example_follow_from_its_manifest(snapshot: Snapshot) -> None:
    """``VOLUME``, ``SHA256SUMS``, ``index.json`` and the lists are those that the manifest and snapshot give."""
    bundle, _ = layout.read(example("bundle.json"))
    first = bundle.volumes[0]
    files = layout.expected(bundle, first, example("bundle.json"))
    assert layout.label(bundle, first) == example("VOLUME")
    assert layout.sums((path, digest) for path, (digest, _) in files.items()) == example("SHA256SUMS")
    for path, data in handout.tables(snapshot).items():
        assert bundle.files[path] == (digest_of(data), len(data))
        if path.startswith("environments/scoring."):
            assert data == example(Path(path).name)
    assert bundle.files["index.json"][0] == digest_of(example("bundle-index.json"))
    assert bundle.files["oci-layout"][0] == digest_of(example("oci-layout"))
    assert any(not piece.whole for volume in bundle.volumes for piece in volume.pieces)
    assert bundle.sizes().keys() == snapshot.blobs.keys()


def test_the_resend_example_names_files_of_the_bundle() -> None:
    """The example of a resend list is read, written again, and names what the manifest has."""
    bundle_id, paths = layout.read_resend(example("list.resend"), "example")
    assert bundle_id == digest_of(example("bundle.json"))
    assert layout.write_resend(bundle_id, paths) == example("list.resend")
    bundle, _ = layout.read(example("bundle.json"))
    known = {f"{v.name}/{path}" for v in bundle.volumes for path in layout.expected(bundle, v, b"")}
    assert set(paths) <= known


def test_the_receipt_example_survives_reading_and_is_the_base_of_the_increment() -> None:
    """The example of a receipt is written again byte for byte, and the increment lacks just what it names."""
    receipt = receipts.read(example("site.receipt"), "example")
    assert receipts.write(receipt) == example("site.receipt")
    full, _ = layout.read(example("bundle.json"))
    increment, _ = layout.read(example("increment.json"))
    assert (full.snapshot, full.sequence) == (receipt.snapshot, receipt.sequence)
    assert (increment.base, increment.sequence) == (receipt.snapshot, receipt.sequence + 1)
    assert set(increment.requires) <= set(receipt.blobs)
    assert not increment.sizes().keys() & set(receipt.blobs)


def test_the_ledger_example_is_an_unbroken_chain() -> None:
    """Every line of the example is what its digest says, follows from the one before, and the head fits."""
    data = example("ledger.jsonl").splitlines(keepends=True)
    lines = [ledgerline.read(line, place) for place, line in enumerate(data, 1)]
    entries = [line.entry for line in lines if line.entry]
    assert [ledgerline.write(entry) for entry in entries] == data
    head = parse(example("ledger.jsonl.head"), "example")
    assert check_chain(lines, (head["number"], head["digest"])) == []
    assert canonical(head) == example("ledger.jsonl.head")
    assert [entry.digest for entry in entries].index(receipts.read(example("site.receipt"), "").ledger) == 1


def test_the_store_index_example_survives_reading_and_writing(tmp_path: Path) -> None:
    """The example of a store's ``index.json`` is read by a real store and written again byte for byte."""
    store = DiskStore(tmp_path / "store", create=True)
    assert (store.root / "oci-layout").read_bytes() == example("oci-layout")
    (store.root / "index.json").write_bytes(example("store-index.json"))
    held = holdings.read(store)
    assert held.current is not None
    store.publish(holdings.write(held, held.current.snapshot))
    assert (store.root / "index.json").read_bytes() == example("store-index.json")
    assert held.bundle == digest_of(example("increment.json"))
    assert hex_of(held.held[0].snapshot) == hashlib.sha256(example("snapshot.json")).hexdigest()


def test_the_marker_example_is_read_as_a_prefix_of_ours(tmp_path: Path) -> None:
    """The example of a prefix's marker names the environment of the other examples."""
    (tmp_path / "haversack-environment.json").write_bytes(example("haversack-environment.json"))
    marker = read_marker(tmp_path)
    assert marker is not None
    assert marker.manifest == digest_of(example("environment-manifest.json"))
    assert marker.snapshot == digest_of(example("snapshot.json"))


# The reference


def test_every_error_stands_in_the_reference_with_its_exit_code() -> None:
    """The table of errors has a row for each class, with its code, title and meaning, and for no other."""
    table = rows(REFERENCE / "errors.md", "# Errors and exit codes")
    expected = {
        f"`{kind.__name__}`": [str(kind.exit_code), kind.title, (kind.__doc__ or "").replace("``", "`")]
        for kind in every_error()
    }
    found = {
        cells[0]: [code, *cells[1:]] for code, cells in table.items() if code.isdigit() and len(cells) == 3
    }
    assert found == expected
    advice = rows(REFERENCE / "errors.md", "## What to do")
    assert [code for code in advice if code.isdigit()] == [str(k.exit_code) for k in every_error()[1:]]


def test_every_finding_stands_in_the_reference_with_its_sentence() -> None:
    """The table of findings has every code with its exit code and sentence, in order of severity."""
    table = rows(REFERENCE / "findings.md")
    table.pop("Code")
    expected = {
        f"`{code}`": [f"{kind.exit_code} ({kind.title})", says] for code, (kind, says) in CODES.items()
    }
    assert list(table.items()) == list(expected.items())


def commands(group: click.Group, words: tuple[str, ...] = ("haversack",)) -> dict[str, click.Command]:
    """Every command of the program by its words."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, (*words, name))
        else:
            found[" ".join((*words, name))] = command
    return found


COMMANDS = commands(cli)
EVERYWHERE = {"--store", "--json", "--quiet", "-q", "--help", "-h"}


def options(command: click.Command) -> set[str]:
    """Every spelling of every option of a command."""
    return {
        opt for p in command.params if isinstance(p, click.Option) for opt in (*p.opts, *p.secondary_opts)
    }


def section(page: Path, heading: str) -> str:
    """What stands below a heading, up to the next one."""
    _, found, text = page.read_text(encoding="utf-8").partition(f"\n{heading}\n")
    assert found, heading
    return re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]


def test_the_reference_has_every_command_and_no_other() -> None:
    """Every command of the program has a heading, and every heading is a command of the program."""
    text = (REFERENCE / "verbs.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^### (haversack .*)$", text, re.MULTILINE)) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_every_option_and_argument_of_a_command(name: str) -> None:
    """The table below a command lists its options, neither fewer nor more, and its synopsis its arguments."""
    command = COMMANDS[name]
    text = section(REFERENCE / "verbs.md", f"### {name}")
    # Commands that take the very same options share a table.
    same = re.search(r"^The options are those of `(.*)`\.$", text, re.MULTILINE)
    listed = {
        word
        for row in rows(REFERENCE / "verbs.md", f"### {same[1] if same else name}")
        for word in re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", row)
    }
    assert listed == options(command) - EVERYWHERE
    synopsis = next(line for line in text.splitlines() if line.startswith(f"`{name}"))
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            assert (parameter.name or "").upper() in synopsis
    assert ("[OPTIONS]" in synopsis) == bool(options(command) - EVERYWHERE)


def test_the_reference_has_the_options_before_the_command() -> None:
    """The table of options that stand before a command is complete."""
    table = rows(REFERENCE / "verbs.md", "## Before every command")
    listed = {word for row in table for word in re.findall(r"(?<![\w-])--?[A-Za-z][a-z-]*", row)}
    assert listed == options(cli) | {"-h", "--help"}


def test_the_reference_has_every_key_of_the_declaration() -> None:
    """Each table of keys is that of the schema: no key is missing, none is made up, and required ones say so."""
    page = REFERENCE / "declaration.md"
    published = schema.schema(kind_keys())
    tables: dict[str, Any] = {
        "## `[site]`": published["properties"]["site"],
        "## `[index.NAME]`": published["properties"]["index"]["additionalProperties"],
        "## `[target.NAME]`": published["properties"]["target"]["additionalProperties"],
    }
    interpreter = tables["## `[target.NAME]`"]["properties"]["interpreter"]
    tables["### `[target.NAME.interpreter]`"] = interpreter
    common = {"kind", "targets", "check"}
    assert set(rows(page, "## `[env.NAME]`")) - {"Key"} == {f"`{key}`" for key in common}
    for name in ("channel", "registry"):
        tables[f"## `[{name}.NAME]`"] = published["properties"][name]["additionalProperties"]
    for kind, keys in kind_keys().items():
        if keys.stands == "named":
            tables[f"## `[{kind}.NAME]`"] = published["properties"][kind]["additionalProperties"]
            continue
        if keys.stands == "listed":
            tables[f"## `[[{kind}]]`"] = published["properties"][kind]["items"]
            continue
        if keys.stands == "chosen":
            chosen = published["properties"][kind]["properties"]
            tables |= {f"## `[{kind}.{name}]`": table for name, table in chosen.items()}
            continue
        own = set(published["$defs"][f"env-{kind}"]["properties"]) - common
        assert set(rows(page, f'### `kind = "{kind}"`')) - {"Key"} == {f"`{key}`" for key in own}
    for heading, table in tables.items():
        listed = rows(page, heading)
        listed.pop("Key")
        assert set(listed) == {f"`{key}`" for key in table["properties"]}
        required = {key for key, cells in listed.items() if "required" in cells[0]}
        assert required == {f"`{key}`" for key in table.get("required", [])}


def test_the_declaration_of_the_reference_is_accepted(tmp_path: Path) -> None:
    """The example of a declaration is read by the strict parser."""
    text = next(text for lang, _, text in blocks(REFERENCE / "declaration.md") if lang == "toml")
    (tmp_path / "haversack.toml").write_text(text, encoding="utf-8")
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "scoring.txt").write_text("numpy\n")
    site = parse_declaration(tmp_path / "haversack.toml", kind_keys())
    assert [environment.name for environment in site.environments] == ["scoring"]


# All pages


def anchors(page: Path) -> set[str]:
    """The fragments that headings of a page can be linked by."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and a heading in it."""
    for link in _LINK.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), link
        assert not fragment or fragment in anchors(place), link


def words_of(page: Path) -> Iterator[list[str]]:
    """Every command line of a page's console blocks that starts haversack."""
    for language, _, text in blocks(page):
        if language != "console":
            continue
        for line in text.splitlines():
            if not line.startswith("$ "):
                continue
            for part in re.split(r"\s(?:&&|\||;)\s|\$\(", line[2:]):
                words = shlex.split(part.rstrip(')"'), comments=True)
                if words and words[0] == "haversack":
                    yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_console_blocks_exist(page: Path) -> None:
    """Every ``$ haversack …`` names a command there is, options it has, and as many arguments as it takes."""
    for words in words_of(page):
        if words[1] == "COMMAND" or words[1:] == ["--help"]:
            continue
        redirect = next((n for n, word in enumerate(words) if word.startswith((">", "2>"))), len(words))
        args = words[1:redirect]
        name = next(known for known in COMMANDS if f"{' '.join(words)} ".startswith(f"{known} "))
        rest = args[name.count(" ") :]
        command = COMMANDS[name]
        # Only the words are parsed: the files of a tutorial are not here.
        parser = command.make_parser(click.Context(command, info_name=name))
        _, left, _ = parser.parse_args(list(rest))
        assert not left, words


def test_the_tutorial_goes_through_the_whole_journey() -> None:
    """Every command but a few for special occasions is used in the tutorial or the page of a platform."""
    used = {
        name
        for page in (DOCS / "tutorial.md", *(DOCS / "platforms").glob("*.md"))
        for words in words_of(page)
        for name in COMMANDS
        if " ".join(words).startswith(name)
    }
    # Each does a part of what `render clients` does, which is used.
    alone = {f"haversack render {name}" for name in clients()}
    assert set(COMMANDS) - used - alone == {"haversack demo", "haversack completion", "haversack audit clock"}


def test_pages_show_all_that_a_platform_adds(tmp_path: Path) -> None:
    """Where a page shows what `lock` says that a platform adds, it is what its own declaration adds, and all of it."""
    shown = 0
    for page in sorted((DOCS / "platforms").glob("*.md")):
        lines = re.findall(r"^platform\..* adds .*$", page.read_text(encoding="utf-8"), re.MULTILINE)
        if not lines:
            continue
        shown += 1
        (tmp_path / "haversack.toml").write_text(
            next(text for lang, _, text in blocks(page) if lang == "toml")
        )
        site = parse_declaration(tmp_path / "haversack.toml", kind_keys())
        assert lines == list(completed(site)[1]), page
    assert shown


def test_the_threat_model_names_tests_that_exist() -> None:
    """Every test file that the threat model names is there."""
    named = re.findall(r"tests/[\w/]+\.py", (DOCS / "threat-model.md").read_text(encoding="utf-8"))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_decisions_are_numbered_and_have_their_parts() -> None:
    """The decisions are numbered without a gap, and each says its context, the decision and what follows."""
    pages = sorted((DOCS / "adr").glob("[0-9]*.md"))
    assert [page.name[:4] for page in pages] == [f"{n:04d}" for n in range(1, len(pages) + 1)]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {page.name[:4]} ")
        for part in ("## Context", "## Decision", "## Consequences"):
            assert f"\n{part}\n" in text, (page.name, part)
