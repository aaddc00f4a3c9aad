"""A Kubernetes secret for pulling images, byte for byte what kubectl makes.

``kubectl create secret docker-registry NAME -n NS … --dry-run=client -o yaml`` is the oracle (1.20 and 1.32).
"""

from __future__ import annotations

import base64
import json
import math
import re
from datetime import date

from haversack.errors import UsageError

NAME = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?(?:\.[a-z0-9](?:[-a-z0-9]*[a-z0-9])?)*"
"""What Kubernetes objects may be called (a DNS subdomain, RFC 1123)."""
NAME_SAYS = "a name of lower-case letters, digits, - and ."
# What a name can be that go-yaml 2 reads as something other than a text, and so writes in quotes (its resolve.go).
_WORD = re.compile("y|n|yes|no|on|off|true|false|null")
_INTEGER = re.compile("0x[0-9a-f]+|0b[01]+|0o[0-7]+")
_FLOAT = re.compile(r"[0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?")
_DAY = re.compile("([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})")


def write(name: str, namespace: str, server: str, username: str, password: str, email: str = "") -> bytes:
    """The manifest; without a namespace it names none.  Raises ``UsageError``, which never holds the password."""
    for what, text in (("name", name), ("namespace", namespace)):
        if text and (len(text) > 253 or not re.fullmatch(NAME, text)):
            raise UsageError(f"{text!r} cannot be the {what} of a secret", remedy=f"give {NAME_SAYS}")
    if not server or not username or not password:
        raise UsageError("a pull secret has a server, a user name and a password", remedy="give all three")
    for what, text in (
        ("server", server),
        ("user name", username),
        ("password", password),
        ("address", email),
    ):
        try:
            text.encode()
        except UnicodeEncodeError:
            # Bytes of a variable or an argument that are no text arrive as halves of characters.  No cause: it
            # would hold the password.
            raise UsageError(f"the {what} is not UTF-8 text", remedy="give it in UTF-8") from None
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
    return f'"{name}"' if _is_no_text(name) else name


def _is_no_text(name: str) -> bool:
    """Whether a reader would take a name for a word of YAML, a number that Go can hold, or a day of the calendar."""
    if _FLOAT.fullmatch(name):
        return math.isfinite(float(name))
    if _INTEGER.fullmatch(name):
        return int(name, 0) < 2**64
    if day := _DAY.fullmatch(name):
        year, month, number = map(int, day.groups())
        try:
            # Go has a year 0, a leap year as 400 is; Python has none.
            date(year or 400, month, number)
        except ValueError:
            return False
        return True
    return _WORD.fullmatch(name) is not None
