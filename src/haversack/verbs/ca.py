"""``haversack ca``: a certificate authority for a site that has none, made with ``openssl``.

Keys are on the curve P-256.  ``ca.pem`` is what clients are given; ``ca.key`` never leaves its folder.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from haversack.errors import PrefixError, ToolError, UsageError
from haversack.ports import Completed, Run

CA, CA_KEY = "ca.pem", "ca.key"
_YEARS_CA, _DAYS = 10, 397
"""How long a CA and a server's certificate are right; browsers refuse the latter beyond 398 days."""
_DNS = re.compile(r"(\*\.)?[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?)*")


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


def create(folder: Path, name: str, run: Run) -> Issued:
    """Make a CA called ``name`` in a folder.  Raises ``PrefixError`` if one is there, ``ToolError`` without openssl."""
    made = Issued(folder / CA, folder / CA_KEY)
    for path in (made.certificate, made.key):
        if path.exists():
            raise PrefixError("is there already", where=str(path), remedy="give another folder")
    if not name or any(letter in "/=+,\\" or not letter.isprintable() for letter in name):
        raise UsageError("the name of a CA is a plain text", where=name)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        key, certificate = Path(work) / CA_KEY, Path(work) / CA
        _key(run, key)
        extensions = ["basicConstraints=critical,CA:TRUE,pathlen:0", "keyUsage=critical,keyCertSign,cRLSign"]
        words: list[str | Path] = ["req", "-x509", "-new", "-sha256", "-key", key, "-out", certificate]
        words += ["-days", str(365 * _YEARS_CA), "-utf8", "-subj", f"/CN={name}"]
        # A configuration of the machine's own would put its extensions in twice.
        config = Path(work) / "config"
        config.write_text(
            "[req]\ndistinguished_name=dn\nx509_extensions=ca\n[dn]\n[ca]\n"
            + "".join(f"{line}\n" for line in (*extensions, "subjectKeyIdentifier=hash"))
        )
        _openssl(run, [*words, "-config", config])
        key.replace(made.key)
        certificate.replace(made.certificate)
    return made


def issue(folder: Path, hosts: Sequence[str], output: Path, run: Run) -> Issued:
    """A certificate of the CA in ``folder`` for a server of some names and addresses: ``HOST.pem``, ``HOST.key``.

    Earlier ones of that name are replaced, so that a server that reads them anew has the new ones.  Raises
    ``UsageError`` for what is no host, ``PrefixError`` where there is no CA, ``ToolError`` without openssl.
    """
    if not hosts:
        raise UsageError("a certificate is for at least one host")
    names = [_alternative(host) for host in hosts]
    for path in (folder / CA, folder / CA_KEY):
        if not path.is_file():
            raise PrefixError("is not there", where=str(path), remedy=f"haversack ca create {folder}")
    output.mkdir(parents=True, exist_ok=True)
    stem = re.sub(r"[^A-Za-z0-9.-]", "_", hosts[0])
    made = Issued(output / f"{stem}.pem", output / f"{stem}.key")
    with tempfile.TemporaryDirectory(dir=output) as work:
        key, request, certificate = (Path(work) / name for name in ("key", "request", "certificate"))
        _key(run, key)
        # The common name may hold 64 letters; who looks for names looks at the alternatives.
        config = Path(work) / "config"
        config.write_text("[req]\ndistinguished_name=dn\n[dn]\n")
        subject = ["-subj", f"/CN={hosts[0][:64]}"]
        _openssl(run, ["req", "-new", "-sha256", "-key", key, "-out", request, *subject, "-config", config])
        extensions = Path(work) / "extensions"
        extensions.write_text(
            "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n"
            "extendedKeyUsage=serverAuth\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
            f"subjectAltName={','.join(names)}\n"
        )
        serial = f"0x{int.from_bytes(os.urandom(16)) | 1:x}"
        words: list[str | Path] = [
            "x509",
            "-req",
            "-sha256",
            "-in",
            request,
            "-CA",
            folder / CA,
            "-CAkey",
            folder / CA_KEY,
        ]
        words += ["-days", str(_DAYS), "-set_serial", serial, "-extfile", extensions, "-out", certificate]
        _openssl(run, words)
        key.replace(made.key)
        certificate.replace(made.certificate)
    return made


def _alternative(host: str) -> str:
    """A host as a subject's alternative name (RFC 5280 §4.2.1.6)."""
    try:
        return f"IP:{ipaddress.ip_address(host.removeprefix('[').removesuffix(']'))}"
    except ValueError:
        if len(host) > 253 or _DNS.fullmatch(host) is None:
            raise UsageError("is neither the name of a host nor an address", where=host) from None
        return f"DNS:{host}"


def _key(run: Run, path: Path) -> None:
    path.touch(mode=0o600)
    _openssl(run, ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path])
    path.chmod(0o600)


def _openssl(run: Run, words: Sequence[str | Path]) -> Completed:
    done = run(["openssl", *words])
    if done.code:
        last = (done.err.strip().splitlines() or ["it said nothing"])[-1]
        raise ToolError(f"openssl {words[0]} failed: {last}", remedy="look at the version of openssl")
    return done
