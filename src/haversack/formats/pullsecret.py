"""A Kubernetes secret for pulling images, byte for byte what kubectl makes.

``kubectl create secret docker-registry NAME -n NS … --dry-run=client -o yaml`` is the oracle (1.20 and 1.32).
"""

from __future__ import annotations

import base64
import json
import re

from haversack.errors import UsageError

NAME = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
"""What Kubernetes objects may be called (a DNS subdomain, RFC 1123)."""
NAME_SAYS = "a name of lower-case letters, digits, - and ."
# What a reader of YAML 1.1 takes for something other than a text, among what a name can be.
_NO_TEXT = re.compile(
    r"[0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?|0x[0-9a-f]+|0b[01]+|0o[0-7]+|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}"
    r"|y|n|yes|no|on|off|true|false|null"
)


def write(name: str, namespace: str, server: str, username: str, password: str, email: str = "") -> bytes:
    """The manifest; without a namespace it names none.  Raises ``UsageError``, which never holds the password."""
    for what, text in (("name", name), ("namespace", namespace)):
        if text and (len(text) > 253 or not re.fullmatch(NAME, text)):
            raise UsageError(f"{text!r} cannot be the {what} of a secret", remedy=f"give {NAME_SAYS}")
    if not server or not username or not password:
        raise UsageError("a pull secret has a server, a user name and a password", remedy="give all three")
    data = base64.b64encode(_config(server, username, password, email)).decode()
    lines = [
        "apiVersion: v1",
        "data:",
        f"  .dockerconfigjson: {data}",
        "kind: Secret",
        "metadata:",
        "  creationTimestamp: null",
        f"  name: {_text(name)}",
        *([f"  namespace: {_text(namespace)}"] if namespace else []),
        "type: kubernetes.io/dockerconfigjson",
    ]
    return "".join(f"{line}\n" for line in lines).encode()


def _config(server: str, username: str, password: str, email: str) -> bytes:
    """What docker keeps in its ``config.json``, as Go's ``encoding/json`` writes it."""
    auth = {"username": username, "password": password} | ({"email": email} if email else {})
    auth["auth"] = base64.b64encode(f"{username}:{password}".encode()).decode()
    body = json.dumps({"auths": {server: auth}}, separators=(",", ":"), ensure_ascii=False)
    # Go's encoding keeps these out of scripts and HTML; they stand nowhere but in texts here.
    for character in "<>&\u2028\u2029":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return body.encode()


def _text(name: str) -> str:
    return f'"{name}"' if _NO_TEXT.fullmatch(name) else name
