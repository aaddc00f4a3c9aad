"""All clients together, or one: their files, one ``env.sh`` for a shell, and ConfigMaps that do the same for pods."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace

from haversack.clients import CA, HOME, Client, Served, clients, text
from haversack.errors import UsageError

TRUST = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""By these, programs on OpenSSL, rustls and Go, those on requests, and curl learn whom to trust."""


def render(served: Served, ca: bytes | None = None, only: str | None = None) -> dict[str, bytes]:
    """The files of every client, or of ``only`` one, by name, with ``ca`` as :data:`CA`.

    Of a client that need not be told anything there are none.
    Raises ``UsageError`` for certificates that are none, hold a key, or come with an address without TLS.
    """
    served = replace(served, ca=ca is not None, by=only or served.by)
    chosen = [client for name, client in clients().items() if only in (None, name)]
    found: dict[str, str] = {}
    for client in chosen:
        found |= client.files(served)
    shell = [line for client in chosen for line in client.shell(served)]
    variables = _variables(served, chosen)
    if not (found or shell or variables):
        return {}
    if ca is not None:
        found[CA] = text(served.head("Whom clients trust.")) + _certificates(ca, served)
        variables |= dict.fromkeys(TRUST, served.at(CA))
    if shell or variables:
        found["env.sh"] = _shell(served, variables, shell)
    if pods := [client for client in chosen if client.in_pods]:
        found["configmap.yaml"] = _configmaps(served, pods, found.get(CA))
    return {name: found[name].encode() for name in sorted(found)}


def _certificates(ca: bytes, served: Served) -> str:
    if not served.base.startswith("https:"):
        raise UsageError("certificates serve no address without TLS", remedy="say https://… as the base URL")
    try:
        pem = ca.decode("utf-8")
    except UnicodeDecodeError:
        pem = ""
    if "-----BEGIN CERTIFICATE-----" not in pem:
        raise UsageError(
            "the file of the CA holds no certificate in PEM", remedy="convert it with openssl x509"
        )
    if "PRIVATE KEY" in pem:
        raise UsageError(
            "the file of the CA holds a private key, which goes to no client",
            remedy="give the file with its certificate alone",
        )
    return pem if pem.endswith("\n") else f"{pem}\n"


def _variables(served: Served, chosen: Sequence[Client]) -> dict[str, str | None]:
    """The variables of some clients; ``None`` takes one away."""
    found: dict[str, str | None] = {}
    for client in chosen:
        found |= client.variables(served)
    return found


def _shell(served: Served, variables: Mapping[str, str | None], more: Sequence[str]) -> str:
    """``env.sh``: variables and more, for any POSIX shell."""
    gone = sorted(name for name, value in variables.items() if value is None)
    set_ = {name: value for name, value in sorted(variables.items()) if value is not None}
    lines = [
        *served.head(
            f"Read it into a shell:  . {served.at('env.sh')}",
            "No password is in it or beside it.  pip, uv, git and curl read ~/.netrc, which only you may read:",
            f"    machine {served.hostname} login NAME password SECRET",
            "`podman login`, `docker login` and `pixi auth login` keep theirs themselves.",
        ),
        *(["# What would lead past the mirror:", f"unset {' '.join(gone)}"] if gone else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in set_.items()),
        *more,
    ]
    return text(lines)


def _configmaps(served: Served, chosen: Sequence[Client], pem: str | None) -> str:
    """Two ConfigMaps: the files, to be mounted at :data:`HOME`, and the variables, for ``envFrom``."""
    inside = replace(served, home=HOME)
    files: dict[str, str] = {}
    for client in chosen:
        files |= client.files(inside)
    told = _variables(inside, chosen)
    if pem is not None:
        files[CA] = pem
        told |= dict.fromkeys(TRUST, inside.at(CA))
    variables = {name: value for name, value in sorted(told.items()) if value is not None}
    lines = [
        *served.head(
            "kubectl apply -f configmap.yaml, and in the pod:",
            "  volumes: [{name: haversack, configMap: {name: haversack-clients}}]",
            "  containers:",
            "  - envFrom: [{configMapRef: {name: haversack-variables}}]",
            f"    volumeMounts: [{{name: haversack, mountPath: {HOME}, readOnly: true}}]",
        ),
        *_configmap("haversack-clients", served, files),
        "---",
        *_configmap("haversack-variables", served, variables),
    ]
    return text(lines)


def _configmap(name: str, served: Served, data: Mapping[str, str]) -> list[str]:
    """One ConfigMap; several lines stand as a literal block, so that a person can read and compare them."""
    lines = [
        "apiVersion: v1",
        "kind: ConfigMap",
        "metadata:",
        f"  name: {name}",
        "  annotations:",
        f"    haversack/snapshot: {json.dumps(served.snapshot.id)}",
        "data:",
    ]
    for key, value in sorted(data.items()):
        if "\n" in value:
            lines += [f"  {key}: |", *(f"    {line}".rstrip() for line in value.splitlines())]
        else:
            lines.append(f"  {key}: {json.dumps(value)}")
    return lines
