"""Services of one machine, and the SkyPilot that its site declares: what of them does not fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from haversack.formats import declaration
from haversack.kinds import keys
from haversack.model.finding import Finding
from haversack.platforms.systemd import PLATFORM
from haversack.verbs import needs

HEAD = '[site]\nname = "lab"\n[target.server]\nname = "linux-x86_64-glibc2.28-py311"\n'
SKY = '[platform.skypilot]\nversion = "0.14.1"\n[platform.skypilot.aws]\nregions = ["us-west-2"]\nremote_identity = "n"\n'


def problems(folder: Path, text: str) -> list[Finding]:
    """What the platform says of its declaration."""
    (folder / "haversack.toml").write_text(HEAD + text)
    (folder / "sky.txt").write_text("skypilot[gcp,azure]==0.14.1\n")
    site, _, _ = needs.completed(declaration.parse(folder / "haversack.toml", keys()))
    (platform,) = (e for e in site.environments if e.name == "platform.systemd")
    return PLATFORM.validate(platform.settings, site)


@pytest.mark.parametrize(
    ("ours", "mirror", "wanted"),
    [
        ('logsDir = "/srv/a"\n', 'store = "/srv/a/store"\n', {"logsDir"}),
        ('cacheDir = "/srv/a/store/x"\nstateDir = "/srv/a/b"\n', 'store = "/srv/a/store"\n', {"cacheDir"}),
        ('logsDir = "/srv/a"\n', 'store = "/srv/a/store"\nenable = false\n', set()),
        ('logsDir = "/srv/a"\n', 'store = "/srv/ab"\n', set()),
    ],
)
def test_two_services_of_one_machine_share_no_folder(
    tmp_path: Path, ours: str, mirror: str, wanted: set[str]
) -> None:
    """What one service owns, and may remove by its age, is not in or around what another one has."""
    text = f'[platform.systemd.skypilot]\npackage = "/srv/sky"\n{ours}[platform.systemd.haversack]\n{mirror}'
    found = problems(tmp_path, text)
    assert {one.subject for one in found} == {f"platform.systemd.skypilot.{folder}" for folder in wanted}
    assert all(one.blocking and "in or around haversack.store" in one.message for one in found)


def test_a_skypilot_that_does_not_fit_to_its_service_is_found(tmp_path: Path) -> None:
    """A version whose server cannot start, credentials without their code, and an endpoint where nobody listens."""
    ours = "[platform.systemd.skypilot]\n"
    credentials = (
        '[platform.systemd.skypilot.cloudCredentials]\naws = "/run/a"\ngcp = "/run/g"\nazure = "/run/z"\n'
    )
    pods = '[platform.skypilot]\nversion = "0.14.1"\n[platform.skypilot.kubernetes]\n'
    here = SKY.replace('"0.14.1"\n', '"0.14.1"\nendpoint = "{}"\n')
    mine = f"{ours}[platform.systemd.skypilot.webUI]\nport = 8081\n"
    for text, wanted in (
        (SKY.replace("0.14.1", "0.9.3") + ours, {"skypilot.version": True}),
        (SKY.replace("0.14.1", "0.10.0") + ours, {}),
        (SKY.replace("0.14.1", "0.9.3") + ours + "enable = false\n", {}),
        (SKY.replace("0.14.1", "0.9.3") + ours + 'package = "/srv/sky"\n', {}),
        (
            SKY + ours + credentials,
            {f"systemd.skypilot.cloudCredentials.{cloud}": False for cloud in ("azure", "gcp")},
        ),
        (
            pods + ours + credentials,
            {f"systemd.skypilot.cloudCredentials.{cloud}": False for cloud in ("aws", "azure", "gcp")},
        ),
        (
            SKY
            + ours
            + credentials
            + '[env.skypilot]\nkind = "pip"\nrequirements = ["sky.txt"]\ntargets = ["server"]\n',
            {},
        ),
        (here.format("http://127.0.0.1:46580") + ours, {"skypilot.endpoint": False}),
        (here.format("http://127.0.0.1:99999") + ours, {"skypilot.endpoint": False}),
        (here.format("http://localhost") + ours, {"skypilot.endpoint": False}),
        (here.format("http://127.0.0.1:8080") + ours, {}),
        (here.format("http://127.0.0.1:8080") + mine, {"skypilot.endpoint": False}),
        (here.format("http://[::1]:8081/") + mine, {}),
        (here.format("https://127.0.0.1") + ours, {}),
        (here.format("http://sky.example.org:46580") + ours, {}),
    ):
        found = {
            one.subject.removeprefix("platform."): one.blocking
            for one in problems(tmp_path, text)
            # Of these credentials another sentence tells what else they need.
            if "gcloud" not in one.message + one.remedy and "az, which" not in one.message + one.remedy
        }
        assert found == wanted, text
