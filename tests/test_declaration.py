"""The declaration: what parses, what is refused and where, what its digest covers, what its schema says."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from datetime import date, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from packaging.pylock import Pylock

from haversack import kinds
from haversack.errors import DeclarationError
from haversack.formats.declaration import Key, KindKeys, parse
from haversack.formats.schema import schema
from haversack.model.site import Environment, Index, Interpreter, Site
from haversack.model.target import Target

KINDS: Mapping[str, KindKeys] = kinds.keys()
PIP = KINDS["pip"]
EXAMPLES = Path(__file__).parent.parent / "examples"
SHA = "0" * 64
GOOD = """\
[site]
name = "lab"

[target.gpu]
platform = "linux-x86_64"
python = "3.11"

[env.main]
kind = "pip"
requirements = ["requirements.txt"]
targets = ["gpu"]
"""

Declare = Callable[..., Path]


@pytest.fixture
def declare(tmp_path: Path) -> Declare:
    """Write a declaration beside a requirements file, and more files by their path."""

    def write(text: str | bytes, **files: str | bytes) -> Path:
        for name, content in {"requirements.txt": "numpy\n", **files, "haversack.toml": text}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "haversack.toml"

    return write


def refused(path: Path) -> DeclarationError:
    """The error of a declaration that must not parse."""
    with pytest.raises(DeclarationError) as caught:
        parse(path, KINDS)
    assert caught.value.remedy
    return caught.value


def as_json(path: Path | str) -> Any:
    """A TOML file as an editor shows it to a schema: dates are texts."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list):
            return [plain(item) for item in value]
        return value.isoformat() if isinstance(value, date | datetime) else value

    return plain(tomllib.loads(path if isinstance(path, str) else path.read_text()))


def conforms(data: Any) -> bool:
    """Whether the published schema takes a declaration."""
    return jsonschema.Draft202012Validator(schema(KINDS)).is_valid(data)


def test_parses_everything_a_site_can_say(declare: Declare, tmp_path: Path) -> None:
    """Each table and key arrives in the model as it was meant."""
    text = f"""
[site]
name = "fraud-lab"
exclude-newer = 2026-11-01

[index.internal]
url = "https://nexus.example:8443/simple"
default = true
auth = "netrc"
[index.local]
url = "file:///srv/simple"

[target.by-hand]
platform = "linux-x86_64"
glibc = "2.31"
python = "3.11.7"
cuda = "12.4"
interpreter = {{ url = "https://files.example/py.tar.gz", sha256 = "{SHA}" }}
[target.by-name]
name = "linux-aarch64-glibc2.34-py312"
interpreter = {{ url = "./archives/py.tar.gz", sha256 = "{SHA}" }}
[target.by-profile]
profile = "node.target.toml"

[env.analysis]
kind = "pip"
requirements = ["requirements.txt", "more/extra.txt"]
targets = ["by-hand", "macos-arm64-py312"]
check = "python -c 'import numpy'"
build = true
exclude-newer = "2026-10-01T12:00:00+00:00"
[env."v1.2"]
kind = "pip"
project = "app"
extras = ["gpu"]
groups = ["dev"]
targets = ["by-profile"]
"""
    profile = 'platform = "linux-x86_64"\npython = "3.9"\nglibc = "2.17"\n'
    files = {
        "archives/py.tar.gz": "x",
        "node.target.toml": profile,
        "more/extra.txt": "",
        "app/pyproject.toml": "",
    }
    site = parse(declare(text, **files), KINDS)
    assert site == Site(
        name="fraud-lab",
        root=tmp_path,
        digest=site.digest,
        targets=(
            Target("by-hand", "linux-x86_64", "3.11.7", glibc="2.31", cuda="12.4"),
            Target("by-name", "linux-aarch64", "3.12", glibc="2.34"),
            Target("by-profile", "linux-x86_64", "3.9", glibc="2.17"),
            Target("macos-arm64-py312", "macos-arm64", "3.12"),
        ),
        environments=(
            Environment(
                "analysis",
                "pip",
                ("by-hand", "macos-arm64-py312"),
                "python -c 'import numpy'",
                {
                    "requirements": ("requirements.txt", "more/extra.txt"),
                    "build": True,
                    "exclude_newer": "2026-10-01T12:00:00Z",
                },
            ),
            Environment(
                "v1.2",
                "pip",
                ("by-profile",),
                None,
                {"project": "app", "extras": ("gpu",), "groups": ("dev",), "build": False},
            ),
        ),
        indexes=(
            Index("internal", "https://nexus.example:8443/simple", default=True, auth="netrc"),
            Index("local", "file:///srv/simple"),
        ),
        interpreters={
            "by-hand": Interpreter("https://files.example/py.tar.gz", f"sha256:{SHA}"),
            "by-name": Interpreter("path:archives/py.tar.gz", f"sha256:{SHA}"),
        },
        exclude_newer="2026-11-01",
    )


def test_a_new_kind_brings_its_keys_without_touching_the_parser(declare: Declare) -> None:
    """Keys of a kind that nobody knew are read, and another kind's are refused in it."""
    conda = KindKeys("A conda environment.", {"channels": Key("strings", "Channels.", required=True)})
    kinds = {**KINDS, "conda": conda}
    base = '[site]\nname = "lab"\n[env.c]\nkind = "conda"\ntargets = ["linux-x86_64-py311"]\n'
    path = declare(base + 'channels = ["main"]\n')
    assert parse(path, kinds).environments[0].settings == {"channels": ("main",)}
    assert jsonschema.Draft202012Validator(schema(kinds)).is_valid(as_json(path))
    path = declare(base + 'channels = ["main"]\nbuild = true\n')
    with pytest.raises(DeclarationError, match="unknown key"):
        parse(path, kinds)
    assert not jsonschema.Draft202012Validator(schema(kinds)).is_valid(as_json(path))


def test_a_relative_path_to_the_declaration_is_enough(
    declare: Declare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root is absolute, so that a later change of folder moves nothing."""
    path = declare(GOOD)
    monkeypatch.chdir(path.parent)
    assert parse(Path("haversack.toml"), KINDS) == parse(path, KINDS)


def env(line: str) -> str:
    """The good declaration with a line added to its environment."""
    return f"{GOOD}{line}\n"


def target(lines: str) -> str:
    """The good declaration with another target."""
    return f"{GOOD}[target.new]\n{lines}\n"


def index(lines: str) -> str:
    """The good declaration with an index."""
    return f"{GOOD}[index.new]\n{lines}\n"


BY_HAND = 'platform = "linux-x86_64"\npython = "3.11"\n'
URL = 'url = "https://i.example/simple"\n'

# What is wrong by itself: declaration, place, a word of the remedy.  The schema must refuse each as well.
BROKEN: dict[str, tuple[str, str, str]] = {
    "no site": ('[target.gpu]\nname = "linux-x86_64-py311"\n', "", "[site]"),
    "no name": ("[site]\n", "site", "add it"),
    "site is no table": ('site = "lab"\n', "site", "[site]"),
    "site name": ('[site]\nname = "a b"\n', "site.name", "Name"),
    "site name empty": ('[site]\nname = ""\n', "site.name", "remove"),
    "unknown table": (f"{GOOD}[evn.x]\n", "evn", "did you mean env?"),
    "far table": (f"{GOOD}[zzzzz]\n", "zzzzz", "site, index, channel, registry, target, env"),
    "unknown site key": ('[site]\nname = "lab"\nexclude_newer = "2026-11-01"\n', "site.exclude_newer", "exclude-newer?"),
    "site date": ('[site]\nname = "lab"\nexclude-newer = "30 days"\n', "site.exclude-newer", "2026-11-01"),
    "site date is a number": ('[site]\nname = "lab"\nexclude-newer = 2026\n', "site.exclude-newer", "2026-11-01"),
    "date without offset": ('[site]\nname = "l"\nexclude-newer = 2026-11-01T10:00:00\n', "site.exclude-newer", "Z"),
    "date with bad month": ('[site]\nname = "l"\nexclude-newer = "2026-13-01"\n', "site.exclude-newer", "2026"),
    "unknown env key": (env('requirement = ["a.txt"]'), "env.main.requirement", "did you mean requirements?"),
    "kind": (GOOD.replace('"pip"', '"pipp"'), "env.main.kind", "did you mean pip?"),
    "kind missing": (GOOD.replace('kind = "pip"\n', ""), "env.main", "add it"),
    "kind is no string": (GOOD.replace('"pip"', "1"), "env.main.kind", "quotes"),
    "env is no table": ('env = ["x"]\n[site]\nname = "lab"\n', "env", "[env]"),
    "one env is no table": ('[site]\nname = "lab"\n[env]\nmain = 1\n', "env.main", "[env.main]"),
    "env name": (GOOD.replace("env.main", 'env."ma in"'), 'env."ma in"', "letters"),
    "env name ends in a dot": (GOOD.replace("env.main", 'env."main."'), 'env."main."', "letters"),
    "reserved env": (GOOD.replace("env.main", "env.haversack"), "env.haversack", "another name"),
    "targets missing": (GOOD.replace('targets = ["gpu"]\n', ""), "env.main", "targets"),
    "targets empty": (GOOD.replace('["gpu"]', "[]"), "env.main.targets", "put something"),
    "targets is a string": (GOOD.replace('["gpu"]', '"gpu"'), "env.main.targets", "brackets"),
    "target twice": (GOOD.replace('["gpu"]', '["gpu", "gpu"]'), "env.main.targets[1]", "remove"),
    "target is a number": (GOOD.replace('["gpu"]', '["gpu", 1]'), "env.main.targets[1]", "quotes"),
    "no source": (GOOD.replace('requirements = ["requirements.txt"]\n', ""), "env.main", "one of"),
    "two sources": (env('project = "."'), "env.main.project", "only one"),
    "extras of requirements": (env('extras = ["a"]'), "env.main.extras", "remove"),
    "build is a string": (env('build = "yes"'), "env.main.build", "without quotes"),
    "check is empty": (env('check = ""'), "env.main.check", "remove"),
    "env date": (env('exclude-newer = "2026-11-01T25:00:00Z"'), "env.main.exclude-newer", "2026-11-01"),
    "absolute file": (GOOD.replace('"requirements.txt"', '"/tmp/r.txt"'), "env.main.requirements[0]", "Requirements"),
    "drive": (GOOD.replace('"requirements.txt"', '"C:r.txt"'), "env.main.requirements[0]", "Requirements"),
    "backslash": (GOOD.replace('"requirements.txt"', "'a\\r.txt'"), "env.main.requirements[0]", "Requirements"),
    "foreign lock": (GOOD.replace('requirements = ["requirements.txt"]', 'lock = "poetry.lock"'), "env.main.lock", "uv.lock"),
    "unknown target key": (target(BY_HAND + 'glib = "2.28"'), "target.new.glib", "did you mean glibc?"),
    "platform": (target('platform = "linux-x86-64"\npython = "3.11"'), "target.new.platform", "linux-x86_64?"),
    "python missing": (target('platform = "linux-x86_64"'), "target.new", "add it"),
    "python is a float": (target('platform = "linux-x86_64"\npython = 3.10'), "target.new.python", "3.1"),
    "python two": (target('platform = "linux-x86_64"\npython = "2.7"'), "target.new.python", "Python"),
    "glibc": (target(BY_HAND + 'glibc = "2"'), "target.new.glibc", "GNU"),
    "target says nothing": (target(""), "target.new", "one of"),
    "target in two ways": (target(BY_HAND + 'name = "linux-x86_64-py311"'), "target.new.name", "only one"),
    "glibc beside a name": (target('name = "linux-x86_64-py311"\nglibc = "2.28"'), "target.new.glibc", "remove"),
    "dotted name without quotes": (f"{GOOD}[target.glibc2.28]\n{BY_HAND}", "target.glibc2.28", '[target."glibc2.28"]'),
    "interpreter sha256": (target(BY_HAND + 'interpreter = {url = "https://a.example/p", sha256 = "12"}'), "target.new.interpreter.sha256", "SHA-256"),
    "interpreter without sha256": (target(BY_HAND + 'interpreter = {url = "https://a.example/p"}'), "target.new.interpreter", "SHA-256"),
    "interpreter url": (target(BY_HAND + f'interpreter = {{url = "s3://a/p", sha256 = "{SHA}"}}'), "target.new.interpreter.url", "https"),
    "index without url": (index("default = true"), "index.new", "add it"),
    "index ftp": (index('url = "ftp://i.example/"'), "index.new.url", "https"),
    "index query": (index('url = "https://i.example/simple?sig=hunter2"'), "index.new.url", "no query"),
    "index user": (index('url = "https://bob:hunter2@i.example/simple"'), "index.new.url", "auth"),
    "index odd user": (index('url = "https://bob:hunter2/x@i.example/simple"'), "index.new.url", "auth"),
    "index auth": (index(URL + 'auth = "env-var"'), "index.new.auth", "env"),
    "index password": (index(URL + 'password = "hunter2"'), "index.new.password", "url, default, auth"),
    "index default": (index(URL + "default = 1"), "index.new.default", "true or false"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "keys", "remedy"), BROKEN.values(), ids=BROKEN)
def test_parser_and_schema_refuse_the_same(declare: Declare, text: str, keys: str, remedy: str) -> None:
    """A broken declaration is refused by both, and the parser names place and remedy and no secret."""
    problem = refused(declare(text))
    assert problem.where == f"haversack.toml: {keys}".removesuffix(": ")
    assert remedy in f"{problem.remedy} {problem.message}"
    assert "hunter2" not in f"{problem} {problem.remedy} {problem.__cause__}"
    assert not conforms(as_json(text))


def test_parser_and_schema_take_the_good_one(declare: Declare) -> None:
    """The declaration that the broken ones are made from is good, so that each fails for its own reason."""
    path = declare(GOOD)
    assert parse(path, KINDS).name == "lab"
    assert conforms(as_json(path))
    assert conforms(as_json(target(BY_HAND)))
    assert conforms(as_json(index(URL)))


# What only a look beyond the one value can tell.
BEYOND: dict[str, tuple[str, str, str]] = {
    "file": (GOOD.replace('"requirements.txt"', '"requirements.txt", "requirement.txt"'), "env.main.requirements[1]", "did you mean requirements.txt?"),
    "file far": (GOOD.replace('"requirements.txt"', '"no/where.txt"'), "env.main.requirements[0]", "write it"),
    "file is a folder": (GOOD.replace('"requirements.txt"', '"."'), "env.main.requirements[0]", "name a file"),
    "file name too long": (GOOD.replace('"requirements.txt"', f'"{"x" * 300}"'), "env.main.requirements[0]", ""),
    "project": (GOOD.replace('requirements = ["requirements.txt"]', 'project = "."'), "env.main.project", "pyproject.toml"),
    "undeclared target": (GOOD.replace('["gpu"]', '["gpu", "gpus"]'), "env.main.targets[1]", "did you mean gpu?"),
    "undeclared target far": (GOOD.replace('["gpu"]', '["n1.x"]'), "env.main.targets[0]", 'declare [target."n1.x"]'),
    "undeclared platform": (GOOD.replace('["gpu"]', '["linux-riscv-py311"]'), "env.main.targets[0]", "unknown platform"),
    "name": (target('name = "linux-py311"'), "target.new", "not a target name"),
    "glibc on a Mac": (target('platform = "macos-arm64"\npython = "3.11"\nglibc = "2.28"'), "target.new", "belongs to linux"),
    "profile": (target('profile = "new.target.toml"'), "target.new.profile", "there is no file"),
    "interpreter file": (target(BY_HAND + f'interpreter = {{url = "py.tar.gz", sha256 = "{SHA}"}}'), "target.new.interpreter.url", "there is no file"),
    "second default": (f"{GOOD}[index.a]\n{URL}default = true\n[index.b]\n{URL}default = true\n", "index.b.default", "one index"),
    "day": ('[site]\nname = "lab"\nexclude-newer = "2026-02-30"\n', "site.exclude-newer", "calendar"),
    "targets of one name": (f"{GOOD}[target.GPU]\n{BY_HAND}", "target.GPU", "another name"),
    "envs of one name": (GOOD + GOOD.partition("\n\n")[2].partition("\n\n")[2].replace("env.main", "env.Main"), "env.Main", "another name"),
    "indexes of one variable": (f"{GOOD}[index.a-b]\n{URL}[index.a_b]\n{URL}", "index.a_b", "another name"),
    "device": (GOOD.replace("env.main", "env.aux"), "env.aux", "Windows"),
    "reserved env in capitals": (GOOD.replace("env.main", "env.HaverSack"), "env.HaverSack", "another name"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "keys", "word"), BEYOND.values(), ids=BEYOND)
def test_refuses_what_only_the_whole_can_tell(declare: Declare, text: str, keys: str, word: str) -> None:
    """Missing files, names that clash and targets that nobody declared are refused by their place."""
    problem = refused(declare(text))
    assert problem.where == f"haversack.toml: {keys}"
    assert word in f"{problem.message} {problem.remedy}"


def test_a_missing_declaration_points_to_init(tmp_path: Path) -> None:
    """Whoever starts in an empty folder is told the first command."""
    problem = refused(tmp_path / "haversack.toml")
    assert "haversack init" in problem.remedy
    assert problem.where == str(tmp_path / "haversack.toml")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b'[site]\nname = "lab"\nexclude-newer = soon\n', "line 3, column 17"),
        (b'[site]\nname = "lab"\nname = "lab"\n', "line 3, column 13"),
        (b'[site]\nname = """lab', "line 2, column 14"),
        (b'[site]\nname = "\xff"\n', "line 2"),
    ],
    ids=["value", "twice", "end", "encoding"],
)
def test_what_is_not_toml_is_named_by_line(declare: Declare, text: bytes, place: str) -> None:
    """The error names line and column, also where the text just ends."""
    assert refused(declare(text)).where == f"haversack.toml: {place}"


def test_a_byte_order_mark_does_no_harm(declare: Declare) -> None:
    """A declaration saved by a Windows editor parses."""
    assert parse(declare(b"\xef\xbb\xbf" + GOOD.encode()), KINDS).name == "lab"


@pytest.mark.parametrize(
    ("profile", "place", "word"),
    [
        (BY_HAND + 'glib = "2.28"\n', "n.toml: glib", "did you mean glibc?"),
        ('python = "3.11"\n', "n.toml", "platform"),
        (BY_HAND + "glibc = 2.28\n", "n.toml: glibc", "quotes"),
        (BY_HAND + 'macos = "14.0"\n', "n.toml", "belongs to macos"),
        ("platform = \n", "n.toml: line 1, column 12", "TOML"),
    ],
)
def test_a_profile_is_read_as_strictly(declare: Declare, profile: str, place: str, word: str) -> None:
    """What is wrong in a profile is named by its place in the profile."""
    problem = refused(declare(target('profile = "n.toml"'), **{"n.toml": profile}))
    assert problem.where == place
    assert word in f"{problem.message} {problem.remedy}"


def test_a_profile_holds_what_a_target_writes(declare: Declare) -> None:
    """Every target that can be written down can be read back."""
    for made in (
        Target("new", "linux-aarch64", "3.12.1", glibc="2.39", cuda="12.4"),
        Target("new", "macos-arm64", "3.13"),
        Target("new", "windows-amd64", "3.11"),
    ):
        text = "".join(f"{key} = {json.dumps(value)}\n" for key, value in made.to_json().items())
        assert parse(declare(target('profile = "n.toml"'), **{"n.toml": text}), KINDS).target("new") == made


NESTED = {
    "requirements.txt": "-r base/a.txt\n--constraint='base/c c.txt'  # why\nnumpy  # -r no.txt\n",
    "base/a.txt": "--requirement=b.txt -cd.txt\n    --hash=sha256:00 \\\n# -r no.txt\n-r ../requirements.txt\n",
    "base/b.txt": "\ufeffsix\n",
    "base/c c.txt": "six<2\n",
    "base/d.txt": "-r=b.txt \\\n",
}


def test_digest_covers_every_file_reached(declare: Declare) -> None:
    """A change in the declaration or in any file it reaches is seen; a change elsewhere is not."""
    profile = {"n.toml": BY_HAND, "app/pyproject.toml": "", "lock/uv.lock": "", "lock/pyproject.toml": ""}
    text = (
        target('profile = "n.toml"')
        + '[env.p]\nkind = "pip"\nproject = "app"\ntargets = ["gpu"]\n'
        + '[env.l]\nkind = "pip"\nlock = "lock/uv.lock"\ntargets = ["gpu"]\n'
    )
    files = {**NESTED, **profile}
    seen = {parse(declare(text, **files), KINDS).digest}
    for name in files:
        seen.add(parse(declare(text, **{**files, name: files[name] + "\n# more\n"}), KINDS).digest)
    seen.add(parse(declare(text + "# more\n", **files), KINDS).digest)
    assert len(seen) == len(files) + 2
    assert parse(declare(text, **files, **{"other.txt": "", "app/setup.py": ""}), KINDS).digest in seen


def test_digest_does_not_know_its_folder(declare: Declare, tmp_path: Path) -> None:
    """The same declaration has the same digest wherever it lies and whenever its files were written."""
    one = parse(declare(GOOD, **NESTED), KINDS).digest
    other = tmp_path / "elsewhere"
    for name, content in reversed(NESTED.items()):
        (other / name).parent.mkdir(parents=True, exist_ok=True)
        (other / name).write_text(content)
    (other / "haversack.toml").write_text(GOOD)
    assert parse(other / "haversack.toml", KINDS).digest == one


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({"requirements.txt": "numpy\n-r gone.txt\n"}, "requirements.txt: line 2"),
        ({"requirements.txt": "-r a/b.txt", "a/b.txt": "\n\n-c gone.txt"}, "a/b.txt: line 3"),
        ({"requirements.txt": "-r https://bob:hunter2@files.example/r.txt\n"}, "requirements.txt: line 1"),
        ({"requirements.txt": "-c /etc/constraints.txt\n"}, "requirements.txt: line 1"),
        ({"requirements.txt": "-r \\\n"}, "requirements.txt: line 1"),
        ({"requirements.txt": "-r 'open.txt\n"}, "requirements.txt: line 1"),
        ({"requirements.txt": "numpy\n".encode("utf-16")}, "requirements.txt: line 1"),
    ],
    ids=["missing", "deep", "url", "absolute", "nothing", "quote", "utf-16"],
)
def test_an_included_file_must_be_there(declare: Declare, files: dict[str, Any], where: str) -> None:
    """An include that cannot be followed is named by file and line, without its secrets."""
    problem = refused(declare(GOOD, **files))
    assert problem.where == where
    assert "hunter2" not in f"{problem} {problem.remedy}"


def test_a_uv_lock_needs_its_project(declare: Declare) -> None:
    """uv cannot read its lock without the pyproject.toml beside it, so that is asked for at once."""
    text = GOOD.replace('requirements = ["requirements.txt"]', 'lock = "uv.lock"')
    problem = refused(declare(text, **{"uv.lock": "version = 1\n"}))
    assert problem.where == "haversack.toml: env.main.lock"
    assert "pyproject.toml" in problem.message
    assert parse(declare(text, **{"pyproject.toml": ""}), KINDS).environments[0].settings["lock"] == "uv.lock"


def test_published_schema_is_the_generated_one() -> None:
    """The file that editors use says what the parser does.

    To write it anew: ``json.dumps(schema(keys), indent=2, ensure_ascii=False)`` and a line end.
    """
    published = (resources.files("haversack") / "haversack.schema.json").read_text()
    assert published == json.dumps(schema(KINDS), indent=2, ensure_ascii=False) + "\n"
    jsonschema.Draft202012Validator.check_schema(schema(KINDS))


@pytest.mark.parametrize("folder", sorted(EXAMPLES.iterdir()), ids=lambda folder: folder.name)
def test_examples_are_good_until_broken(folder: Path) -> None:
    """Every example parses and fits the schema; a wrong key, a missing or a misspelt one is refused."""
    path = folder / "haversack.toml"
    site = parse(path, KINDS)
    assert site.environments
    data = as_json(path)
    assert conforms(data)
    name = site.environments[0].name
    del data["env"][name]["targets"]
    assert not conforms(data)
    data = as_json(path)
    data["env"][name]["Check"] = "true"
    assert not conforms(data)
    data = as_json(path)
    data["site"]["name"] = 7
    assert not conforms(data)


def test_the_lock_in_the_examples_is_one() -> None:
    """The pylock file that an example takes over is valid."""
    lock = Pylock.from_dict(tomllib.loads((EXAMPLES / "hospital" / "pylock.toml").read_text()))
    assert [package.name for package in lock.packages] == ["colorama", "tqdm"]


@pytest.mark.parametrize("path", ["/t/hunter2/main", "/t/hunter2", "/t/hunter2/"])
def test_a_token_in_the_address_of_a_channel_is_refused(declare: Declare, path: str) -> None:
    """It would be dropped or written down; the error names the key and does not repeat it."""
    problem = refused(declare(f'{GOOD}[channel.c]\nurl = "https://conda.example.org{path}"\n'))
    assert problem.where == "haversack.toml: channel.c.url"
    assert "hunter2" not in f"{problem} {problem.remedy}"


CONDA = '[site]\nname = "lab"\n[env.c]\nkind = "conda"\nfile = "e/environment.yml"\ntargets = ["linux-x86_64-glibc2.28-py311"]\n'


@pytest.mark.parametrize(
    "line", ["-r a.txt", "-ra.txt", "-c a.txt", "'-r a.txt'", "--requirement=a.txt", "--constraint a.txt"]
)
def test_digest_covers_what_a_pip_section_takes_in(declare: Declare, line: str) -> None:
    """A requirements file that an environment.yml names counts, and so do those that it names itself."""
    files = {
        "e/environment.yml": f"dependencies:\n- python\n- pip:\n  - six\n  - {line}\n",
        "e/a.txt": "-r deep/b.txt\n",
        "e/deep/b.txt": "-c c.txt\n",
        "e/deep/c.txt": "six==1\n",
    }
    seen = {parse(declare(CONDA, **files), KINDS).digest}
    for name in files:
        seen.add(parse(declare(CONDA, **{**files, name: files[name] + "# more\n"}), KINDS).digest)
    assert len(seen) == len(files) + 1
    (declare(CONDA, **files).parent / "e/deep/c.txt").unlink()
    assert refused(declare(CONDA)).where == "e/deep/b.txt: line 1"
    (declare(CONDA).parent / "e/a.txt").unlink()
    assert refused(declare(CONDA)).where == "e/environment.yml: dependencies[1].pip[1]"


@pytest.mark.parametrize(
    "text",
    [
        "@EXPLICIT\n# -r x.txt\n",
        "- -r x.txt\n",
        "dependencies: -r x.txt\n",
        "pip: [-r x.txt]\n",
        "a: [-r x\n",
    ],
)
def test_what_has_no_pip_section_takes_in_nothing(declare: Declare, text: str) -> None:
    """Other files that an environment may be made of, and wrong ones, are left to whoever locks them."""
    assert parse(declare(CONDA, **{"e/environment.yml": text}), KINDS).digest
