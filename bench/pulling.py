"""skopeo pulls an image of five layers of 200 MB, from our server and from ``docker-registry``.

It keeps the layers in memory: a disk that writes a gigabyte would be most of what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import stock
from bench.daemons import Running, ours, running
from bench.lab import Lab, discard
from bench.measure import MIB, Row, timed

_LAYERS, _SIZE = 5, 200 * MIB
_SKOPEO = ("skopeo", "--insecure-policy", "copy", "-q")
_REGISTRY = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {0}/data}}}}
http: {{addr: "127.0.0.1:{1}"}}
"""


def pull(lab: Lab) -> Iterator[Row]:
    """The first pull of a server that was just started, and the second, each beside the peer's."""
    folder = lab.work / "image"
    stock.image(folder / "layout", "big", _LAYERS, _SIZE)
    stock.image_in(folder / "store", folder / "layout", "registry.example.org/team/big:1")

    def registry(port: int) -> Sequence[str | Path]:
        (folder / "registry.yml").write_text(_REGISTRY.format(folder, port))
        return ["docker-registry", "serve", folder / "registry.yml"]

    with running(lab, registry, "/v2/") as peer:
        place = f"docker://127.0.0.1:{peer.port}/team/big:1"
        timed([*_SKOPEO, "--dest-tls-verify=false", f"oci:{folder}/layout:big", place], env=lab.environ())
    sides = (
        (ours(lab, folder / "store"), "registry.example.org/team/big:1"),
        (registry, "team/big:1"),
    )
    first: tuple[list[float], list[float]] = ([], [])
    again: tuple[list[float], list[float]] = ([], [])
    costs: tuple[list[float], list[float]] = ([], [])
    with running(lab, sides[0][0], "/v2/") as server, running(lab, registry, "/v2/") as peer:
        for one, (_, ref) in zip((server, peer), sides, strict=True):
            _pull(lab, one, ref)
        for _ in range(lab.runs):
            for number, (one, (argv, ref)) in enumerate(zip((server, peer), sides, strict=True)):
                before = one.cpu()
                again[number].append(_pull(lab, one, ref))
                costs[number].append(one.cpu() - before)
                with running(lab, argv, "/v2/") as new:
                    first[number].append(_pull(lab, new, ref))
    discard(folder)
    against = "docker-registry"
    yield Row("pull of a 1 GB image", "s", tuple(again[0]), tuple(again[1]), against, 1.0)
    yield Row("CPU for it", "s", tuple(costs[0]), tuple(costs[1]), against)
    yield Row(
        "its first pull since the start", "s", tuple(first[0]), tuple(first[1]), f"{against}, not hashing"
    )


def _pull(lab: Lab, server: Running, ref: str) -> float:
    with lab.in_memory(_LAYERS * _SIZE) as folder:
        source = f"docker://127.0.0.1:{server.port}/{ref}"
        words = [*_SKOPEO, "--src-tls-verify=false", source, f"dir:{folder}"]
        return timed(words, env=lab.environ()).seconds
