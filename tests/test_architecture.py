"""The drawing of the house, held true over every import and every file."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import haversack

SRC = Path(haversack.__file__).parent
ROOT = SRC.parent.parent
TESTS = Path(__file__).parent

# What a module may import of haversack: rooms below it.  `ports` is the package of protocols alone,
# `ports.*` the implementations beside it.
BELOW = {
    # For the type checker only: findings ride along in errors.
    "errors": {"errors", "model"},
    "model": {"errors", "model"},
    "formats": {"errors", "model", "formats"},
    "ports": {"errors", "model", "formats", "ports"},
    "ports.*": {"errors", "model", "formats", "ports", "ports.*"},
    "wheels": {"errors", "model", "formats", "ports", "wheels"},
    "conda": {"errors", "model", "formats", "ports", "wheels", "conda"},
    "relocation": {"errors", "model", "formats", "ports", "relocation"},
    "images": {"errors", "model", "formats", "ports", "images"},
    "projects": {"errors", "model", "formats", "ports", "projects"},
    "views": {"errors", "model", "formats", "ports", "views"},
    "clients": {"errors", "model", "formats", "views", "clients"},
    "doors": {"errors", "model", "formats", "ports", "wheels", "conda", "doors"},
    "crossing": {"errors", "model", "formats", "ports", "crossing"},
    "clearml": {"errors", "model", "formats", "ports", "images", "clearml"},
    "skypilot": {"errors", "model", "formats", "ports", "images", "clients", "skypilot"},
    "services": {"errors", "model", "formats", "ports", "services"},
    "hpc": {"errors", "model", "formats", "ports", "hpc"},
    "platforms": {
        *(
            "errors",
            "model",
            "formats",
            "ports",
            "conda",
            "images",
            "views",
            "clients",
            "clearml",
            "skypilot",
            "services",
            "hpc",
        ),
        "platforms",
    },
    "kinds": {
        "errors",
        "model",
        "formats",
        "ports",
        "wheels",
        "conda",
        "relocation",
        "images",
        "projects",
        "platforms",
        "kinds",
    },
    "verbs": {
        *("errors", "model", "formats", "ports", "wheels", "conda", "relocation", "images", "crossing"),
        *("kinds", "projects", "platforms", "services", "views", "clients", "doors", "verbs", ""),
    },
    "console": {"errors", "model", "console"},
    "serving": {"errors", "model", "formats", "ports", "views", "verbs", "console", "serving"},
    # Programs that run elsewhere; they name each other for the type checker.
    "data": {"data"},
}
"""The rooms and what lies below each; `""` is `haversack.__version__`.  Rooms that are not named here
(`cli`, `testing`, `demo`, `__main__`) are the top of the house and may import everything."""

TOP = {"", "cli", "testing", "demo", "__main__"}
DIALS = {
    "ports/http.py",
    "ports/pools.py",
    "ports/fetch.py",
    "ports/cage.py",
    "ports/s3client.py",
    "conda/engine.py",
}
"""The modules that may open a socket; `cage.py` dials to prove that nothing answers, `engine.py` runs rattler's
event loop and dials nobody."""
BESIDE = "data/skypilot/"
"""Programs that haversack lays beside SkyPilot and never runs nor imports: they ask its API server."""
NETWORK = {
    "asyncio", "ftplib", "http", "imaplib", "poplib", "requests", "select", "selectors", "smtplib", "socket",
    "socketserver", "ssl", "telnetlib", "urllib.request", "urllib3", "wsgiref", "xmlrpc", "httpx", "aiohttp",
    "obstore",
}  # fmt: skip
SERVES = "serving/"
"""The room whose modules may listen.  They may not dial."""
SERVES_WITH = {"asyncio", "http", "http.HTTPStatus", "socket", "ssl"}
CONNECTS = {
    "connect",
    "connect_ex",
    "create_connection",
    "create_unix_connection",
    "open_connection",
    "sock_connect",
}
LISTENS = {"http.server", "socketserver", "wsgiref", "xmlrpc.server"}
LONGEST = 400


def sources() -> list[Path]:
    """Every module of haversack."""
    return sorted(SRC.rglob("*.py"))


def place(path: Path) -> str:
    """`ports/fetch.py` for a module of haversack."""
    return path.relative_to(SRC).as_posix()


def room(module: str) -> str:
    """The room of `haversack.ports.fetch` is `ports.*`, that of `haversack.ports` is `ports`."""
    _, first, *rest = [*module.split("."), ""]
    return f"{first}.*" if first == "ports" and rest and rest[0] else first


def module_of(path: Path) -> str:
    """The dotted name of a file."""
    return ".".join(("haversack", *path.relative_to(SRC).with_suffix("").parts)).removesuffix(".__init__")


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, wherever in it the import stands.

    `from haversack.ports import disk` is an import of `haversack.ports.disk` if there is such a module.
    """
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{place(path)}:{node.lineno}: imports are written in full"
            assert node.module
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                yield node.lineno, deeper if _is_module(deeper) else node.module


def _is_module(name: str) -> bool:
    base = ROOT / "src" / name.replace(".", "/")
    return base.is_dir() or base.with_suffix(".py").is_file() or name in NETWORK


def within(name: str, families: set[str]) -> bool:
    """Whether a module is one of some, or lies in one of them."""
    return any(name == family or name.startswith(f"{family}.") for family in families)


def test_imports_run_downwards_only() -> None:
    """No module imports a room above its own; a room that the drawing does not know is an error too."""
    wrong = []
    for path in sources():
        own = room(module_of(path))
        if own in TOP:
            continue
        assert own in BELOW, f"{place(path)}: where in the house is {own}?"
        wrong += [
            f"{place(path)}:{line} imports {name}"
            for line, name in imports(path)
            if name.partition(".")[0] == "haversack" and room(name) not in BELOW[own]
        ]
    assert wrong == []


def test_the_drawing_is_looked_at() -> None:
    """The test above sees imports in functions, of modules by `from package import module`, and of both kinds."""
    found = {name for _, name in imports(SRC / "cli" / "setting.py")}
    assert {"haversack.ports.disk", "haversack.console", "click"} <= found
    assert "haversack.verbs.holdings" in {name for _, name in imports(SRC / "verbs" / "receive.py")}
    assert [
        room(n) for n in ("haversack", "haversack.ports", "haversack.ports.disk", "haversack.cli.inside")
    ] == [
        "",
        "ports",
        "ports.*",
        "cli",
    ]


def test_kinds_do_not_know_each_other() -> None:
    """A kind imports the registry's package, never another kind."""
    kinds = {path: module_of(path) for path in (SRC / "kinds").glob("*.py") if path.stem != "__init__"}
    assert kinds
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for path, own in kinds.items()
        for line, name in imports(path)
        if name in kinds.values() and name != own
    ]
    assert wrong == []


def test_the_model_touches_nothing() -> None:
    """No disk, no network, no clock, no program in `model/`: paths are only values there."""
    wrong = []
    for path in (SRC / "model").glob("*.py"):
        told = {name for _, name in imports(path)}
        wrong += [
            f"{place(path)} imports {name}"
            for name in told
            if within(name, {"os", "shutil", "subprocess", "tempfile", "time", "io", "threading"} | NETWORK)
        ]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called == "open" or called.endswith(
                    (".now", ".utcnow", ".today", ".read_bytes", ".read_text", ".exists", ".open", ".stat")
                ):
                    wrong.append(f"{place(path)}:{node.lineno} calls {called}")
    assert wrong == []


def test_formats_touch_no_network_no_clock_and_no_program() -> None:
    """A reader or writer gives the same for the same bytes on any machine."""
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for path in (SRC / "formats").glob("*.py")
        for line, name in imports(path)
        if within(name, {"subprocess", "time", "tempfile"} | NETWORK)
    ]
    assert wrong == []


def test_only_fetch_dials() -> None:
    """No other module can open a connection: the air gap is an import rule."""
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for path in sources()
        if place(path) not in DIALS and not place(path).startswith(BESIDE)
        for line, name in imports(path)
        if within(name, NETWORK) and not (place(path).startswith(SERVES) and name in SERVES_WITH)
    ]
    assert wrong == []
    # The rule is about something: fetch does import what nobody else may.
    assert any(within(name, NETWORK) for _, name in imports(SRC / "ports" / "http.py"))


def test_rattler_stands_behind_one_door() -> None:
    """Only `conda/` imports rattler; what dials there is behind `late.py`, and that for the command line alone."""
    wrong = [
        f"{place(path)}:{line} imports {name}"
        for path in sources()
        for line, name in imports(path)
        if (within(name, {"rattler"}) and path.parent.name != "conda")
        or (within(name, {"haversack.conda.channels"}) and place(path) != "conda/late.py")
        or (within(name, {"haversack.conda.late"}) and place(path) != "cli/setting.py")
    ]
    assert wrong == []


def test_the_server_dials_nobody() -> None:
    """What listens opens no connection, but one to a socket's own name, to see whether its server is gone."""
    found = [
        f"{place(path)} .{node.attr}"
        for path in sources()
        if place(path).startswith(SERVES)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute) and node.attr in CONNECTS
    ]
    assert found == ["serving/listening.py .connect"]


def test_only_the_server_listens() -> None:
    """Nothing else in haversack accepts a connection."""
    wrong = []
    for path in sources():
        if place(path).startswith((SERVES, BESIDE)):
            continue
        wrong += [f"{place(path)} imports {name}" for _, name in imports(path) if within(name, LISTENS)]
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and node.attr in {
                "start_server",
                "create_server",
                "listen",
                "bind",
            }:
                wrong.append(f"{place(path)}:{node.lineno} .{node.attr}")
    assert wrong == []


_SNIPPET = """\
from haversack.ports import Inside, Outside
def inside(side: Inside) -> None:
    print(side.store, side.run, side.clock)
    side.fetch
def outside(side: Outside) -> None:
    side.fetch
"""


def test_code_for_the_inside_that_fetches_does_not_type_check(tmp_path: Path) -> None:
    """`Inside` has no `fetch`: mypy refuses just that line, and accepts it of `Outside`."""
    pytest.importorskip("mypy")
    snippet = tmp_path / "snippet.py"
    snippet.write_text(_SNIPPET)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--cache-dir",
            tmp_path / "cache",
            "--follow-imports=silent",
            snippet,
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MYPYPATH": str(SRC.parent), "PATH": ""},
    )
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout + done.stderr
    assert 'snippet.py:4: error: "Inside" has no attribute "fetch"' in errors[0]


def test_no_module_is_too_long() -> None:
    """A module that passes 400 lines wants to be two."""
    long = {place(path): lines for path in sources() if (lines := path.read_text().count("\n")) > LONGEST}
    assert long == {}


def test_no_module_is_a_drawer() -> None:
    """A name says what is inside: no utils, helpers or managers, in the package or its tests."""
    drawers = {"util", "utils", "helper", "helpers", "manager", "managers", "misc", "common", "tools"}
    wrong = [path for path in (*sources(), *TESTS.rglob("*.py")) if drawers & {path.stem, path.parent.name}]
    assert wrong == []


def test_everything_public_says_what_it_is() -> None:
    """Every module, public class and public function has a docstring."""
    wrong = []
    for path in sources():
        tree = ast.parse(path.read_text())
        if path.read_text().strip() and not ast.get_docstring(tree):
            wrong.append(place(path))
        wrong += [
            f"{place(path)}:{node.lineno} {node.name}"
            for node in _public(tree)
            if not ast.get_docstring(node)
        ]
    assert wrong == []


def _public(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public functions and classes of a module, and public methods of such classes."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            yield node
            if isinstance(node, ast.ClassDef):
                yield from _public(node)


def test_every_test_says_what_it_holds_true() -> None:
    """Every test function has a sentence."""
    wrong = []
    for path in (*TESTS.rglob("*.py"), *(SRC / "testing" / "contracts").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                sentence = ast.get_docstring(node) or ""
                if not sentence.rstrip().endswith((".", "!", "?")):
                    wrong.append(
                        f"{path.relative_to(SRC.parent if SRC in path.parents else TESTS)}: {node.name}"
                    )
    assert wrong == []


def tracked() -> list[Path]:
    """The files that the repository holds; skips where this is no repository, as in an unpacked sdist."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if done.returncode:
        pytest.skip("not in a repository")
    return [ROOT / name for name in done.stdout.decode().split("\0") if name]


def test_no_registry_is_named() -> None:
    """No host of a public registry stands in the repository: which index is asked is the site's to say."""
    # From parts, since this file is in the repository too.
    hosts = [
        ".".join(parts).encode()
        for parts in (
            ("pypi", "org"), ("pythonhosted", "org"), ("deb", "debian", "org"), ("registry", "npmjs", "org"),
            ("npmjs", "com"), ("crates", "io"), ("conda", "anaconda", "org"), ("archive", "ubuntu", "com"),
            ("proxy", "golang", "org"),
        )
    ]  # fmt: skip
    files = tracked()
    assert Path(__file__).resolve() in files or (ROOT / "pyproject.toml") in files
    wrong = [
        f"{path.relative_to(ROOT)}: {host.decode()}"
        for path in files
        if path.is_file() and not path.is_symlink()
        for host in hosts
        if host in path.read_bytes().lower()
    ]
    assert wrong == []
