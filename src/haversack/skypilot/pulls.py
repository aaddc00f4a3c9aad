"""Whether the registry that pods' images are asked of has them, as far as its API tells (OCI distribution 1.1)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from haversack.images.inside import at_site
from haversack.images.reference import Reference
from haversack.model.finding import Finding, unknown, unready
from haversack.skypilot.asking import Refused

Ask = Callable[..., Any]
"""``ask("curl", …)`` gives what the program says, or :class:`Refused`."""
_TYPES = (
    *("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"),
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


def look(images: Sequence[str], registry: str, scheme: str, ask: Ask) -> dict[str, Any]:
    """The status with which the registry answers for the manifest of each image, or :class:`Refused`.

    Not through a proxy: the registry is the site's.  No login is sent, and none is looked for.
    """
    words = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}"]
    accept = ["-H", f"Accept: {', '.join(_TYPES)}"]
    return {image: ask(*words, *accept, _url(at_site(image, registry), scheme)) for image in images}


def _url(image: str, scheme: str) -> str:
    found = Reference.parse(image)
    return f"{scheme}://{found.host}/v2/{quote(found.path)}/manifests/{found.digest or found.tag}"


def judge(registry: str, seen: dict[str, Any]) -> Iterator[Finding]:
    """What pods will wait for in vain, and what nobody could tell; pure."""
    for image, answer in seen.items():
        subject = f"image {at_site(image, registry)}"
        if answer == 404:
            yield unready(subject, "is not in the registry", f"push it there: it is {image} outside")
        elif answer in {401, 403}:
            said = "is not known to be there: the registry wants a login"
            # It takes no name with both a tag and a digest.
            found = Reference.parse(at_site(image, registry))
            name = f"{found.repository}@{found.digest}" if found.digest else found.name
            yield unknown(subject, said, f"skopeo inspect docker://{name}")
        elif answer != 200:
            said = answer.reason if isinstance(answer, Refused) else f"the registry answers {answer}"
            yield unknown(
                subject, f"is not known to be there: {said}", "say --registry, or see that it is up"
            )
