"""What ``haversack install skypilot-service`` does below ``--root`` when the same root is installed to again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
