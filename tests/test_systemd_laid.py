"""What ``haversack install skypilot-service`` does below ``--root`` when the same root is installed to again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from haversack.errors import PrefixError
from haversack.verbs.render import keep
from tests.support import tiny
from tests.test_platform_systemd import MINIMAL, python, store_of


def test_what_is_not_wanted_is_left_nowhere(tmp_path: Path) -> None:
    """Below ``--root`` a unit that goes is disabled first, a service that is turned off leaves no file of its own."""
    settings: dict[str, Any] = {"skypilot": {"enable": True, "monitoring": {"enable": True}}}
    store = store_of(tmp_path, one=settings, two=MINIMAL, off={"skypilot": {"enable": False}})
    root = tmp_path / "root"
    root.mkdir()
    words = ("install", "skypilot-service", "--root", root, "--python", python(), "--snapshot")
    said = [tiny.haversack(*words, name, store=store) for name in ("one", "two")]
    assert [done.returncode for done in said] == [0, 0], said[1].stderr
    assert "disabled: skypilot-monitor.service" in said[1].stdout
    assert "stopped" not in said[1].stdout
    wanted = root / "etc/systemd/system/multi-user.target.wants"
    assert [path.name for path in wanted.iterdir()] == ["skypilot-web-ui.service"]
    done = tiny.haversack(*words, "off", store=store)
    assert done.returncode == 0, done.stderr
    left = [path for top in ("etc", "usr") for path in (root / top).rglob("*") if not path.is_dir()]
    assert not [path for path in left if "skypilot" in str(path.relative_to(root))]


def test_what_a_newer_snapshot_leaves_is_told(tmp_path: Path) -> None:
    """Another state folder does not move what is in the old one; a table that is gone needs ``enable = false``."""
    moved = {"skypilot": {"enable": True, "stateDir": "/srv/sky"}}
    other = {"haversack": {"enable": True, "package": "/opt/haversack", "store": "/srv/store"}}
    store = store_of(tmp_path, one=MINIMAL, two=moved, none=other)
    root = tmp_path / "root"
    root.mkdir()
    words = ("install", "skypilot-service", "--root", root, "--python", python(), "--snapshot")
    first, second = (tiny.haversack(*words, name, store=store) for name in ("one", "two"))
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert "stays as it is" not in first.stderr
    assert (
        f"{root}/var/lib/skypilot: stays as it is, and the service uses another folder now" in second.stderr
    )
    gone = tiny.haversack(*words, "none", store=store)
    assert gone.returncode == 18
    assert "enable = false" in gone.stderr


@contextmanager
def nobody() -> Iterator[None]:
    """As a person who may read what everybody may."""
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_a_dry_run_needs_to_read_no_rules_of_sudo() -> None:
    """What a person may not read counts as rendered last: the same again is nothing, and other rules are written."""
    with tempfile.TemporaryDirectory(prefix="haversack-test-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        keep(root, {"x": {"rules": b"alice\n", "unit": b"u\n"}})
        (root / "rules").chmod(0o400)
        for rules, unit, written in ((b"alice\n", b"u\n", ()), (b"bob\n", b"v\n", ("rules", "unit"))):
            with nobody():
                made = {"x": {"rules": rules, "unit": unit}}
                assert keep(root, made, dry_run=True) == (written, ())
                assert keep(root, {"x": {}}, dry_run=True) == ((), ("rules", "unit"))
                with pytest.raises(PrefixError, match="Permission denied"):
                    keep(root, made)
