"""A client of object storage that speaks S3: who asks, what its answers mean.

Keys, region, endpoint and certificates are named as Amazon's own tools name them: variables of the
environment first, then the files in ``~/.aws``.  What obstore finds by itself (roles of pods, containers and
machines) it finds.  No text holds a key: of a server's answer only status and error code are repeated, since
its body quotes what was signed.
"""

from __future__ import annotations

import configparser
import contextlib
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import quote

from haversack.errors import HaversackError, SpaceError, StoreError
from haversack.model.bucket import Bucket

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Store

    Client: TypeAlias = S3Store

_KEYS = {
    "aws_access_key_id": "access_key_id",
    "aws_secret_access_key": "secret_access_key",
    "aws_session_token": "session_token",
}
# What names a role that obstore takes on by itself.
_ROLES = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_TRUE = {"1", "true", "yes", "on"}
_REMEDY = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in ~/.aws/credentials"
_FULL = {"XMinioStorageFull", "QuotaExceeded", "InsufficientCapacity", "EntityTooLarge"}
_ABSENT = "NoSuchBucket"
_CUT = 3


def connect(bucket: Bucket, environ: Mapping[str, str], *, retries: int = 6) -> Client:
    """A client of the objects below ``bucket``; nothing is asked yet.

    ``retries`` counts tries after the first, within two minutes.  Raises ``StoreError`` when nothing says
    who asks, or a file that is named cannot be read.
    """
    from obstore.store import S3Store

    return S3Store(
        bucket.name,
        prefix=bucket.path or None,
        client_options={
            # A blob may take hours; a server that says nothing may not.
            "timeout": timedelta(days=7),
            "connect_timeout": timedelta(seconds=10),
            "read_timeout": timedelta(seconds=180),
            **_transport(environ),
        },
        retry_config={"max_retries": retries, "retry_timeout": timedelta(minutes=2)},
        **_account(bucket, environ),
    )


def whole(client: Client, key: str) -> bytes:
    """All bytes of a small object.  Raises what obstore raises.

    It tries a request again, but not a body that is cut; some servers cut that of an object being replaced.
    """
    from obstore.exceptions import BaseError

    for _ in range(_CUT):
        answer = client.get(key)
        with contextlib.suppress(BaseError):
            return bytes(answer.bytes())
    return bytes(client.get(key).bytes())


def signed(bucket: Bucket, environ: Mapping[str, str], method: Literal["GET", "HEAD"]) -> str:
    """A URL that is good for asking for one object, ``bucket.path``, for half a day.  Raises as :func:`connect`.

    Without a signature, and good for ever, where ``AWS_SKIP_SIGNATURE`` says that nobody asks by name.
    """
    import obstore

    if _nameless(environ):
        region = _account(bucket, environ)["region"]
        host = _endpoint(environ) or f"https://s3.{region}.amazonaws.com"
        return f"{host}/{bucket.name}/{quote(bucket.path)}"
    client = connect(Bucket(bucket.name, ""), environ)
    with explained(str(bucket), "signing"):
        return obstore.sign(client, method, bucket.path, timedelta(hours=12))


def _transport(environ: Mapping[str, str]) -> ClientConfig:
    """Whether plain HTTP is meant, and whose certificates are trusted besides the system's."""
    endpoint, profile = _endpoint(environ), _profile(environ)
    found: ClientConfig = {"allow_http": endpoint.lower().startswith("http://")}
    for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE"):
        place = environ.get(name) or (profile.get("ca_bundle") if name == "AWS_CA_BUNDLE" else None)
        if place:
            try:
                found["root_certificate"] = Path(place).expanduser().read_bytes()
            except OSError as problem:
                raise StoreError(
                    f"cannot be read: {problem.strerror}", where=place, remedy=f"see what {name} says"
                ) from problem
            break
    return found


def _account(bucket: Bucket, environ: Mapping[str, str]) -> dict[str, Any]:
    """Who asks, and where."""
    endpoint, profile = _endpoint(environ), _profile(environ)
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or profile.get("region")
    found: dict[str, Any] = {"region": region or "us-east-1"}
    if endpoint:
        # By path: a bucket's name in front of the host would need a name server that knows it.
        found |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
    if _nameless(environ):
        return found | {"skip_signature": True}
    if environ.get("AWS_ACCESS_KEY_ID"):
        # Together, so that a token of the profile's does not go with keys of the environment's.
        return found | {
            ours: environ[name.upper()] for name, ours in _KEYS.items() if environ.get(name.upper())
        }
    if keys := {ours: profile[name] for name, ours in _KEYS.items() if name in profile}:
        return found | keys
    if name := environ.get("AWS_PROFILE"):
        raise StoreError(
            f"profile {name} holds no keys that haversack can read",
            where=str(bucket),
            remedy='put keys into the environment: eval "$(aws configure export-credentials --format env)"',
        )
    # The address of a machine's role answers nowhere but at Amazon; elsewhere one would wait for nothing.
    off = endpoint or environ.get("AWS_EC2_METADATA_DISABLED", "").lower() in _TRUE
    if off and not any(environ.get(name) for name in _ROLES):
        raise StoreError("there are no keys to ask with", where=str(bucket), remedy=_REMEDY)
    return found


def _nameless(environ: Mapping[str, str]) -> bool:
    return environ.get("AWS_SKIP_SIGNATURE", "").lower() in _TRUE


def _endpoint(environ: Mapping[str, str]) -> str:
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    said = next((environ[name] for name in names if environ.get(name)), None)
    return (said or _profile(environ).get("endpoint_url", "")).rstrip("/")


def _profile(environ: Mapping[str, str]) -> dict[str, str]:
    """What ``~/.aws/config`` and ``~/.aws/credentials`` say of the profile that is asked for."""
    name = environ.get("AWS_PROFILE") or "default"
    home = Path(environ.get("HOME") or Path.home()) / ".aws"
    found: dict[str, str] = {}
    for variable, file, section in (
        ("AWS_CONFIG_FILE", "config", name if name == "default" else f"profile {name}"),
        ("AWS_SHARED_CREDENTIALS_FILE", "credentials", name),
    ):
        place = Path(environ.get(variable) or home / file).expanduser()
        reader = configparser.RawConfigParser(default_section="")
        told = ""
        try:
            reader.read_string(place.read_text() if place.is_file() else "")
        except OSError as problem:
            told = problem.strerror or "it is not there"
        except (UnicodeError, configparser.Error):
            told = "it is not written as Amazon's tools write it"
        if told:
            # Raised out here: an error of the parser quotes the line, which may be a key.
            raise StoreError(f"cannot be read: {told}", where=str(place))
        if reader.has_section(section):
            found |= dict(reader.items(section))
    return found


@contextlib.contextmanager
def explained(where: str, doing: str, error: type[HaversackError] = StoreError) -> Iterator[None]:
    """Turn obstore's errors into ``error``, or ``SpaceError``; an absent object stays ``FileNotFoundError``."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, FileNotFoundError, ValueError) as problem:
        text = str(problem)
        code = _found(r"<Code>(\w+)</Code>", text)
        if isinstance(problem, FileNotFoundError) and code != _ABSENT:
            raise
        said, remedy = _meaning(text, code)
    else:
        return
    # Raised out here, so that no traceback shows the server's answer, which quotes what was signed.
    raise (SpaceError if code in _FULL else error)(f"{doing}: {said}", where=where, remedy=remedy)


def refused(problem: HaversackError) -> bool:
    """Whether an error of :func:`explained` says that these keys may not do that."""
    return problem.remedy == _RIGHTS


_RIGHTS = "check the keys and what they may do: list, get, put and delete below that path"


def _meaning(text: str, code: str) -> tuple[str, str]:
    """What an error of obstore's means, and what to do."""
    status = _found(r"status code: (\d{3}[ A-Za-z]*)", text) or _found(r"status: (\d{3})", text)
    told = " ".join(filter(None, [status, code]))
    if code == _ABSENT:
        return "there is no such bucket", "make the bucket, or check AWS_ENDPOINT_URL"
    if status[:3] in {"401", "403"}:
        return f"it is refused ({told})", _RIGHTS
    if status:
        return f"the server answered {told}", "run this again; if it stays so, ask whoever runs the storage"
    if "InvalidCertificate" in text:
        # The reason is a word of rustls: Expired, NotValidForName, UnknownIssuer, CaUsedAsEndEntity …
        reason = _found(r"InvalidCertificate\(\s*(?:Other\(\s*OtherError\(\s*)?(\w+)", text)
        return (
            f"its certificate is not trusted ({reason})",
            "let AWS_CA_BUNDLE name a file with your root certificates; one that signs cannot serve as well",
        )
    if "kind: Connect" in text:
        return "the server cannot be reached", "check AWS_ENDPOINT_URL and the network"
    if "kind: Timeout" in text:
        return "the server did not answer in time", "check the network, and run this again"
    return "the connection broke off", "check the network, and run this again"


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1].strip() if match else ""
