"""What a snapshot holds for SkyPilot, and what nodes are told of the mirror that serves it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from haversack.clients import Served, address, clients
from haversack.clients.together import TRUST
from haversack.errors import NotFoundError, UsageError
from haversack.formats.schema import Key
from haversack.images import inside
from haversack.model.artifact import Artifact
from haversack.model.finding import Finding, unknown
from haversack.model.snapshot import Snapshot
from haversack.ports import Store
from haversack.skypilot import catalogs, config, proxies, versions
from haversack.skypilot.machines import CA, HOME, Mirror

SERVER, NODES = "skypilot", "skypilot-nodes"
"""The environments of the API server and its clients, and of what it installs on every node."""
ASKS: Mapping[str, Key] = {
    "base_url": Key("string", "Where the store, or an export of it, is served."),
    "dated": Key("boolean", "Point at /@NAME/ of the snapshot instead of at what is current.", default=False),
    "ca": Key("string", "File with the certificates that vouch for the server, in PEM."),
    "registry": Key(
        "string",
        "The site's registry as pods name it (default: the host of the base URL).",
        pattern=r"[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9._-]+)*",
        expects="a host, or a host and a path",
    ),
}
"""What must be known of the mirror to render anything that nodes are told."""
# User data of EC2 may have 16 kB, SkyPilot's own included, and Base64 takes a third more.
_LARGEST_CA = 6000


def served(content: Snapshot, name: str, asked: Mapping[str, Any]) -> tuple[Served | None, str | None]:
    """Where a snapshot of that name is served, if somebody said so, and the certificates that vouch for it.

    ``asked`` holds answers to :data:`ASKS`.  Raises ``UsageError`` and ``NotFoundError``.
    """
    if "base_url" not in asked:
        if "ca" in asked:
            raise UsageError("certificates are for an address", remedy="say --base-url https://HOST")
        return None, None
    base = address(asked["base_url"])
    ca = _certificates(Path(asked["ca"]), base) if "ca" in asked else None
    if asked.get("dated"):
        base += f"/@{name}"
    return Served(content, name, base, HOME, ca is not None), ca


def _certificates(file: Path, base: str) -> str:
    try:
        pem = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        said = problem.strerror if isinstance(problem, OSError) else "it is not PEM"
        raise NotFoundError(f"cannot be read: {said}", where=str(file)) from problem
    if "-----BEGIN CERTIFICATE-----" not in pem or "PRIVATE KEY" in pem:
        said = "holds a private key" if "PRIVATE KEY" in pem else "holds no certificate in PEM"
        raise UsageError(f"the file of the CA {said}", remedy="give the file with its certificate alone")
    if not base.startswith("https:"):
        raise UsageError("certificates serve no address without TLS", remedy="say https://… as the base URL")
    return pem if pem.endswith("\n") else f"{pem}\n"


def mirror(served: Served, ca: str | None, settings: Mapping[str, Any]) -> Mirror:
    """What nodes are told: in variables where they take them from a pod, in files where they are machines.

    Raises ``UsageError`` for certificates that machines have no room for.
    """
    if ca and len(ca) > _LARGEST_CA and (settings.get("aws") or {}).get("mirror"):
        said = f"has {len(ca)} bytes, and the user data of a machine holds {_LARGEST_CA}"
        raise UsageError(f"the file of the CA {said}", remedy="give the site's own certificates alone")
    variables: dict[str, str] = {}
    files: dict[str, str] = {}
    for client in ("pip", "uv"):
        told = clients()[client].variables(served)
        variables |= {name: value for name, value in told.items() if value and "CONFIG_FILE" not in name}
    for name, file, path in (("pip", "pip.conf", "/etc/pip.conf"), ("uv", "uv.toml", "/etc/uv/uv.toml")):
        lines = clients()[name].files(served)[file].splitlines()
        files[path] = "".join(f"{line}\n" for line in lines if not line.startswith("#"))
    if ca:
        variables |= dict.fromkeys(TRUST, served.at(CA))
        files[served.at(CA)] = ca
    docker = clients()["docker"].files(served).get("daemon.json", "{}")
    return Mirror(proxies.host_of(served.base), variables, files, ca, json.loads(docker), served.host)


def is_needed(settings: Mapping[str, Any]) -> bool:
    """Whether nodes must be told where the store is served."""
    return config.mirrors(settings) or "image" in settings.get("kubernetes", {})


def is_asked(settings: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether nodes ask the base URL: for packages, or for images of pods where no registry is said."""
    return config.mirrors(settings) or ("registry" not in asked and is_needed(settings))


def takes_images(settings: Mapping[str, Any]) -> bool:
    """Whether pods take images from the site's registry."""
    pods = settings.get("kubernetes", {})
    return "image" in pods or bool(pods.get("mirror"))


def trusted(settings: Mapping[str, Any], ca: str | None) -> Iterator[Finding]:
    """What nobody knows of the certificates that pods are told: whether they are all that pods must trust."""
    pods = settings.get("kubernetes", {})
    if ca and pods.get("mirror") and pods.keys() & {"proxy", "proxy_secret"}:
        said = "are all that pods trust, also of hosts behind the proxy"
        remedy = "if pods go to public hosts: cat site-ca.pem /etc/ssl/certs/ca-certificates.crt > both.pem, --ca both.pem, and kubectl apply --server-side"
        yield unknown("certificates of --ca", said, remedy)


def files_of_catalogs(
    settings: Mapping[str, Any], content: Snapshot, served: Served | None, registry: str | None, store: Store
) -> tuple[dict[str, bytes], list[Finding]]:
    """The catalogs of what is declared, below the folder of their version: what crossed, and the site's own images."""
    version = settings["version"]
    folder = versions.catalogs(version)
    files: dict[str, bytes] = {}
    findings = []
    at = registry or (urlsplit(served.base).netloc if served else None)
    pods = settings.get("kubernetes", {})
    names = f"{folder}/common/accelerators.csv"
    if "kubernetes" in settings:
        files[names] = catalogs.accelerators(None)
    for table in catalogs.tables(settings):
        held = file_of(content, catalogs.filename(table))
        if held is None:
            continue
        with store.open(held.digest) as stream:
            data = stream.read()
        path = f"{folder}/{table}.csv"
        try:
            if table == "kubernetes/images":
                files[path], images = catalogs.of_pods(data, version, at if pods.get("mirror") else None)
                findings += _not_carried(content, images) if pods.get("mirror") else []
            else:
                regions = settings["aws"].get("regions", ())
                findings += _strange(held.filename, catalogs.strange_regions(data, regions))
                files[path] = catalogs.of_regions(data, regions)
                files |= {names: catalogs.accelerators(data)} if table == "aws/vms" else {}
        except ValueError as problem:
            remedy = "declare a [[file]] of that name that is one"
            findings.append(Finding("platform-unready", held.filename, str(problem), remedy))
    if ami := settings.get("aws", {}).get("ami"):
        (region,) = settings["aws"]["regions"]
        files[f"{folder}/aws/images.csv"] = catalogs.machine_images(version, region, ami)
    if (image := pods.get("image")) and at:
        files[f"{folder}/kubernetes/images.csv"] = catalogs.pod_images(version, inside.at_site(image, at))
        findings += inside.repinned(content, inside.declared(image), image) if registry else []
    return files, findings


def _strange(file: str, regions: Mapping[str, Sequence[str]]) -> list[Finding]:
    """A finding for each region of which a catalog has no row: SkyPilot would find no machine there."""
    subject = "platform.skypilot.aws.regions"
    return [
        Finding(
            "platform-setting",
            subject,
            f"{region} is in no row of {file}, and SkyPilot would find no machine there",
            f"{', or '.join([*near, 'a region that it has'])}; or lock a newer catalog",
        )
        for region, near in regions.items()
    ]


def images_of_pods(settings: Mapping[str, Any], content: Snapshot, store: Store) -> tuple[str, ...]:
    """What the images that pods take from the site's registry are called outside; empty where they take none there."""
    pods = settings.get("kubernetes", {})
    if "image" in pods:
        return (pods["image"],)
    held = file_of(content, catalogs.filename("kubernetes/images"))
    if held is None or not pods.get("mirror"):
        return ()
    with store.open(held.digest) as stream:
        data = stream.read()
    try:
        return catalogs.of_pods(data, settings["version"], None)[1]
    except ValueError:
        # What is wrong with it is said where it is rendered.
        return ()


def file_of(content: Snapshot, name: str) -> Artifact | None:
    """The file that crossed under that name."""
    for environment in content.environments:
        for artifact in environment.artifacts if environment.locked.kind == "file" else ():
            if artifact.filename == name:
                return artifact
    return None


def missing(settings: Mapping[str, Any], content: Snapshot) -> list[Finding]:
    """A finding for each thing that a snapshot should hold for SkyPilot, and does not."""
    names = {environment.locked.name for environment in content.environments}
    wanted = [SERVER, *([NODES] if config.mirrors(settings) else [])]
    lacking = [name for name in wanted if name not in names]
    files = map(catalogs.filename, catalogs.tables(settings))
    lacking += [name for name in files if file_of(content, name) is None]
    image = settings.get("kubernetes", {}).get("image")
    lacking += [image] if image and not inside.holds(inside.carried(content), inside.declared(image)) else []
    said, remedy = "is not in the snapshot", "lock and pack it outside"
    return [Finding("platform-unready", name, said, remedy, blocking=name not in wanted) for name in lacking]


def _not_carried(content: Snapshot, images: Sequence[str]) -> list[Finding]:
    """A finding for each of SkyPilot's own images of pods (for processors, for GPUs) that did not cross.

    The site's registry may have it by another way.
    """
    held = inside.carried(content)
    return [
        Finding("platform-unready", image, f"is not in the snapshot, and is the image of {of}",
                f'declare [[image]] ref = "{image}", or an image of your own: image', blocking=False)
        for image, of in zip(images, ("pods", "pods with a GPU"), strict=True)
        if not inside.holds(held, image)
    ]  # fmt: skip
