"""SkyPilot's own schema: asked of the SkyPilot that is installed here, as strictly as its server is.

Its client lets through what it does not know of Kubernetes (``sky/utils/schemas.py``), and so its settings are made
those of a server for the question.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from haversack.errors import HaversackError
from haversack.formats import prefixes
from haversack.model.finding import Finding, unknown
from haversack.ports import Inside
from haversack.skypilot.asking import Refused, ask

SCRIPT = """\
import json, os, sys
from unittest import mock
import sky
from sky.utils import common_utils, schemas
try:
    from sky.server import plugins
except ImportError:
    plugins = None
with mock.patch.dict(os.environ, {"IS_SKYPILOT_SERVER": "true"}):
    if hasattr(plugins, "_plugins_loaded"):
        with mock.patch.object(plugins, "_plugins_loaded", True):
            schema = schemas.get_config_schema()
    else:
        schema = schemas.get_config_schema()
problem = ""
try:
    common_utils.validate_schema(json.loads(sys.argv[1]), schema, "", skip_none=False)
except ValueError as error:
    problem = str(error)
print("\\nanswer " + json.dumps([sky.__version__, problem]))
"""
"""What is asked: the version, and what is wrong with a configuration, behind the word ``answer``."""
_FILE = "config.yaml"
# What names other configurations than those of a home (``sky/skypilot_config.py``).
_FILES = ("SKYPILOT_CONFIG", "SKYPILOT_GLOBAL_CONFIG", "SKYPILOT_PROJECT_CONFIG")


def installed(inside: Inside, environment: str) -> Path | None:
    """The interpreter of an environment that was installed last and is still there; that stands in the ledger."""
    found = None
    for line in inside.ledger.lines():
        if line.entry is None or line.entry.act != "install":
            continue
        prefix, ref = Path(str(line.entry.details.get("prefix"))), str(line.entry.details.get("ref"))
        if ref.partition("/")[0] != environment or not (prefix / "bin" / "python").is_file():
            continue
        try:
            marker = prefixes.read((prefix / prefixes.MARKER).read_bytes(), str(prefix))
        except (OSError, HaversackError):
            continue
        found = prefix / "bin" / "python" if marker.ref == ref else found
    return found


def judge(
    content: Mapping[str, Any],
    version: str | None,
    environment: str,
    inside: Inside,
    python: Path | None = None,
) -> list[Finding]:
    """What SkyPilot of that version refuses of its configuration, or that nobody asked it.

    ``python`` is its interpreter, where not the environment that was installed last is meant; then any ``version`` will do
    where none is said.  Somebody else's is run as whom it, or what it links to, belongs to.
    """
    python = python or installed(inside, environment)
    if python is None:
        said = f"is held to what is known of SkyPilot {version}, and not to its own schema: it is not installed here"
        return [unknown(_FILE, said, f"haversack install {environment} --to DIR, and ask again")]
    with TemporaryDirectory(prefix="haversack-") as home:
        # Nobody's own configuration, which would be read, and refused, before ours.
        foreign = [word for name in _FILES for word in ("-u", name)]
        words = [
            *_owner(python, home),
            "env",
            *foreign,
            str(python),
            # It writes nothing into somebody's environment.
            "-I",
            "-B",
            "-W",
            "ignore",
            "-c",
            SCRIPT,
            json.dumps(content),
        ]
        told = ask(inside.run, words, {"HOME": home, "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"})
    if isinstance(told, Refused) or not (answer := str(told).rpartition("\nanswer ")[2]):
        reason = told.reason if isinstance(told, Refused) else "it says nothing"
        return [unknown(_FILE, f"is not held to SkyPilot's own schema: {reason}", "install it again")]
    have, problem = json.loads(answer)
    if version is not None and have != version:
        said = f"is not held to the schema of SkyPilot {version}: {have} is what is installed at {python.parent.parent}"
        return [unknown(_FILE, said, f"haversack install {environment}, and ask again")]
    if not problem:
        return []
    said = f"is refused by SkyPilot {have}: {' '.join(problem.split())[:300]}"
    return [Finding("platform-setting", _FILE, said, "correct [platform.skypilot]")]


def _owner(python: Path, home: str) -> list[str]:
    """The words that run an interpreter as whom it belongs to, who is given ``home``; root runs only root's.

    It belongs to the owner of its environment, of a link on the way to it, and of the file that is run: to the first of
    them that is not root.
    """
    found, step = [python.parent.parent.stat()], python
    while step.is_symlink():
        found.append(step.lstat())
        step = step.parent / step.readlink()
    found.append(step.stat())
    status = next((one for one in found if one.st_uid), None)
    if os.geteuid() or status is None:
        return []
    os.chown(home, status.st_uid, status.st_gid)
    return ["setpriv", f"--reuid={status.st_uid}", f"--regid={status.st_gid}", "--clear-groups"]
