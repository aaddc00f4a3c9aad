"""Who may read what: users with passwords or tokens, and rules by path, from one TOML file.

::

    [[user]]
    name = "alice"
    password = "scrypt:…"            # or token = "sha256:…"; `haversack user add` writes both
    expires = 2027-01-01             # the first day on which it is no longer right

    [[rule]]
    path = "/pypi/"                  # the longest path that a request's begins with decides
    allow = ["alice", "bob"]         # "*" is everybody, without a login too

A path without a rule is open.  A rule holds in every snapshot: ``/pypi/`` is also ``/@NAME/pypi/``.  Under
:data:`WHOLE` every file of a snapshot lies once more, so it is for those alone whom no rule keeps from any.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import stat
import threading
import tomllib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Any

from haversack.errors import DeclarationError
from haversack.formats.strict import Place, is_table, near, only_known
from haversack.serving.ruling import PAGES, path_of
from haversack.views import v2

EVERYBODY = "*"
WHOLE = f"/{v2.PREFIX}/{v2.OWN.partition('/')[0]}/"
"""Where the registry shows a snapshot as it stands in the store, by digests."""
BASIC = 'Basic realm="haversack", charset="UTF-8"'
"""The value of ``WWW-Authenticate`` for clients of registries: they take a realm of ``Bearer`` for the address of a
token server (distribution specification, "token authentication"), and prefer it."""
CHALLENGE = f'{BASIC}\r\nWWW-Authenticate: Bearer realm="haversack"'
"""The value for all others: both schemes, each in a line of its own (RFC 9110 §11.6.1)."""
_COST, _BLOCK, _LANES = 1 << 14, 8, 1
"""scrypt's N, r and p: 16 MiB and some 50 ms for a guess."""
_RIGHT, _WRONG = 1024, 256
"""Passwords that are remembered; the two are apart, so that no guesses push out what was right."""


class DeniedError(Exception):
    """No: ``status`` 401 for whoever may try another login, 403 for one who may not read this, 503 for later."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


@dataclass(frozen=True, slots=True)
class User:
    """A user: a password or a token, as what is stored of it, and until when (seconds of the epoch)."""

    name: str
    secret: str
    token: bool
    expires: float


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may read what lies below a path."""

    path: str
    allow: frozenset[str]

    def lets(self, name: str) -> bool:
        """Whether it lets a user of that name read; ``""`` is somebody without a login."""
        return EVERYBODY in self.allow or name in self.allow

    def keeps(self) -> bool:
        """Whether it keeps anybody from what a snapshot shows."""
        return EVERYBODY not in self.allow and self.path[1:].partition("/")[0] not in PAGES


@dataclass(frozen=True, slots=True)
class Login:
    """Who asks: a user's name, or an empty one; right until the moment ``expires`` (seconds of the epoch)."""

    name: str = ""
    expires: float = float("inf")


NOBODY = Login()


def hashed_password(password: str) -> str:
    """What is stored of a password: scrypt (RFC 7914) with its cost, a salt and the result."""
    salt = secrets.token_bytes(16)
    return _joined("scrypt", _COST, _BLOCK, _LANES, salt, _scrypt(password, salt, _COST, _BLOCK, _LANES))


def hashed_token(token: str) -> str:
    """What is stored of a token: it is random and long, so a plain digest will do."""
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def _joined(*parts: str | int | bytes) -> str:
    return ":".join(base64.b64encode(p).decode() if isinstance(p, bytes) else str(p) for p in parts)


def _scrypt(password: str, salt: bytes, cost: int, block: int, lanes: int) -> bytes:
    limit = 256 * cost * block + (1 << 20)
    return hashlib.scrypt(password.encode(), salt=salt, n=cost, r=block, p=lanes, maxmem=limit, dklen=32)


def _fits(password: str, stored: str) -> bool:
    _, cost, block, lanes, salt, wanted = stored.split(":")
    found = _scrypt(password, base64.b64decode(salt), int(cost), int(block), int(lanes))
    return hmac.compare_digest(found, base64.b64decode(wanted))


class Rules:
    """Users and rules; passwords that were tried are remembered, as keyed digests, while the process lives.

    ``now`` gives the seconds of the epoch.
    """

    def __init__(self, users: tuple[User, ...], rules: tuple[Rule, ...], now: Callable[[], float]) -> None:
        self._users = {user.name: user for user in users}
        self._rules = sorted(rules, key=lambda rule: len(rule.path), reverse=True)
        self._now = now
        self._key = secrets.token_bytes(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()
        self._remembering = threading.Lock()
        self._nobody = hashed_password(secrets.token_hex(16))

    def login(self, header: str) -> Login:
        """Who an ``Authorization`` field says is asking; slow for a password seen first, hence for a thread.

        Raises :class:`DeniedError` for a login that is wrong or no longer right.
        """
        if not header:
            return NOBODY
        scheme, _, value = header.partition(" ")
        if scheme.lower() == "bearer":
            return self._bearer(value.strip())
        if scheme.lower() != "basic":
            raise DeniedError(401, "only Basic and Bearer are understood here")
        name, mark, password = _basic(value)
        if not name and not password:
            # What podman and skopeo say when they have no login for a registry that asks for one.
            return NOBODY
        user = self._users.get(name)
        if not mark or not self._fitting(user, name, password) or user is None:
            # Without the name: people type their password there.
            raise DeniedError(401, "wrong user or password")
        return self._valid(user)

    def remembers(self, header: str) -> bool:
        """Whether :meth:`login` would be quick: there is no password in it that was not tried yet."""
        scheme, _, value = header.partition(" ")
        if scheme.lower() != "basic":
            return True
        try:
            name, _, password = _basic(value)
        except DeniedError:
            return True
        user = self._users.get(name)
        return bool(user and user.token) or not (name or password) or self._known(name, password) is not None

    def _bearer(self, token: str) -> Login:
        stored = hashed_token(token)
        found = None
        for user in self._users.values():
            if user.token and hmac.compare_digest(user.secret, stored):
                found = user
        if found is None:
            raise DeniedError(401, "the token is not known")
        return self._valid(found)

    def _valid(self, user: User) -> Login:
        if self._now() >= user.expires:
            raise DeniedError(401, f"the login of {user.name!r} has expired")
        return Login(user.name, user.expires)

    def _fitting(self, user: User | None, name: str, password: str) -> bool:
        if user and user.token:
            # Clients that know no tokens give one as a password.
            return hmac.compare_digest(user.secret, hashed_token(password))
        known = self._known(name, password)
        if known is not None:
            return known
        # A name that nobody has takes as long as a wrong password.
        right = _fits(password, user.secret if user else self._nobody) and user is not None
        with self._remembering:
            memory, limit = (self._right, _RIGHT) if right else (self._wrong, _WRONG)
            memory[self._seal(name, password)] = None
            if len(memory) > limit:
                memory.popitem(last=False)
        return right

    def _known(self, name: str, password: str) -> bool | None:
        """Whether a password is right, if it was tried."""
        seal = self._seal(name, password)
        with self._remembering:
            if seal in self._right:
                self._right.move_to_end(seal)
                return True
            return False if seal in self._wrong else None

    def _seal(self, name: str, password: str) -> bytes:
        # No name holds a colon.
        return hmac.digest(self._key, f"{name}:{password}".encode(), "sha256")

    def check(self, login: Login, path: str) -> None:
        """Raises :class:`DeniedError` where someone may not read a path (of a snapshot, or of the server)."""
        rule = self.ruling(path)
        if rule and not rule.lets(login.name):
            raise _denied(login, rule.path)
        if path.startswith(WHOLE) and not all(rule.lets(login.name) for rule in self.keeping()):
            raise _denied(login, f"{WHOLE} (everything)")

    def ruling(self, path: str) -> Rule | None:
        """The rule that decides about a path: the longest that the path begins with."""
        for rule in self._rules:
            if path.startswith(rule.path) or path + "/" == rule.path:
                return rule
        return None

    def keeping(self) -> tuple[Rule, ...]:
        """The rules that keep anybody from anything that a snapshot shows."""
        return tuple(rule for rule in self._rules if rule.keeps())

    def guards(self, path: str) -> bool:
        """Whether anything below a path is not for everybody: then clients are asked to log in at its root."""
        return any(
            EVERYBODY not in rule.allow and (rule.path.startswith(path) or path.startswith(rule.path))
            for rule in self._rules
        )


def _basic(value: str) -> tuple[str, str, str]:
    """The name, a colon if there is one, and the password (RFC 7617)."""
    try:
        return base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except ValueError:
        # binascii.Error is one, and so is what letters beyond ASCII give.
        raise DeniedError(401, "the login cannot be read") from None


def _denied(login: Login, what: str) -> DeniedError:
    if login.name:
        return DeniedError(403, f"{login.name!r} may not read {what}")
    return DeniedError(401, f"{what} is for users with a login")


def read(path: Path, now: Callable[[], float]) -> Rules:
    """The users and rules of a file.  Raises ``DeclarationError`` naming the place, never a secret.

    A rule that could guard nothing, or allow nobody who is here, is an error too: whoever wrote it means more.
    """
    value, users, place = _read(path)
    names = [user.name for user in users]
    rules: list[Rule] = []
    for item, at in _items(value, "rule", place):
        rule = _rule(item, names, at)
        if any(rule.path == other.path for other in rules):
            raise at.at("path").error("has a second rule", "make one rule of the two")
        rules.append(rule)
    return Rules(users, tuple(rules), now)


def names_in(path: Path) -> list[str]:
    """The names of the users of a file, whatever its rules say: some may name users who are yet to come.

    Raises as :func:`read`.
    """
    return [user.name for user in _read(path)[1]]


def _read(path: Path) -> tuple[dict[str, Any], tuple[User, ...], Place]:
    """The whole of a file, and its users."""
    place = Place(path.parent, str(path))
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name != "nt" and stat.S_IMODE(mode) & 0o007:
                raise place.error("may be read by everybody", f"chmod 600 {path}")
            value = tomllib.load(file)
    except OSError as problem:
        raise place.error(f"cannot be read: {problem.strerror}", "give another file") from problem
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise place.error(f"is no TOML: {problem}", "mend it") from problem
    only_known(value, ("user", "rule"), place)
    users = tuple(_user(item, at) for item, at in _items(value, "user", place))
    names = [user.name for user in users]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise place.at("user").item(number).error("is a second user of that name", "remove one of them")
    return value, users, place


def _items(value: dict[str, Any], name: str, place: Place) -> list[tuple[dict[str, Any], Place]]:
    items = value.get(name, [])
    if not isinstance(items, list):
        raise place.at(name).error("is no array of tables", f"write [[{name}]]")
    return [(is_table(item, place.at(name).item(n)), place.at(name).item(n)) for n, item in enumerate(items)]


def _user(item: dict[str, Any], place: Place) -> User:
    only_known(item, ("name", "password", "token", "expires"), place)
    name, password, token = (item.get(key) for key in ("name", "password", "token"))
    if not isinstance(name, str) or not name or ":" in name or name == EVERYBODY:
        raise place.at("name").error("is no name of a user", "write a word without a colon")
    if (password is None) == (token is None):
        raise place.error("has no secret, or two", "write password or token")
    secret = password if token is None else token
    if not isinstance(secret, str) or not _is_stored(secret, token is not None):
        raise place.error("holds a secret in a form that is not known", "let `haversack user add` write it")
    return User(name, secret, token is not None, _moment(item.get("expires"), place.at("expires")))


def _is_stored(secret: str, token: bool) -> bool:
    scheme, *parts = secret.split(":")
    if token:
        return scheme == "sha256" and len(parts) == 1 and len(parts[0]) == 64
    try:
        cost, block, lanes = (int(part) for part in parts[:3])
        salt, result = (base64.b64decode(part, validate=True) for part in parts[3:])
    except ValueError:
        return False
    bounded = 2 <= cost <= 1 << 20 and cost & (cost - 1) == 0 and 1 <= block <= 32 and 1 <= lanes <= 16
    return scheme == "scrypt" and bounded and len(salt) >= 8 and len(result) == 32


def _moment(value: Any, place: Place) -> float:
    if value is None:
        return float("inf")
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    if isinstance(value, date):
        return datetime.combine(value, time(), UTC).timestamp()
    raise place.error("is neither a date nor a moment", "write 2027-01-01")


def _rule(item: dict[str, Any], names: list[str], place: Place) -> Rule:
    only_known(item, ("path", "allow"), place)
    path, allow = item.get("path"), item.get("allow")
    if not isinstance(path, str):
        raise place.at("path").error("is no path", "begin it with a slash")
    if not isinstance(allow, list) or not all(isinstance(name, str) for name in allow):
        raise place.at("allow").error("is no list of names", 'write ["alice"], or ["*"] for everybody')
    for number, name in enumerate(allow):
        if name != EVERYBODY and name not in names:
            told = near(name, names) or "haversack user add puts users into this file"
            raise place.at("allow").item(number).error("names no user of this file", told)
    return Rule(path_of(path, place.at("path")), frozenset(allow))


def entry(name: str, secret: str, *, token: bool, expires: date | None) -> str:
    """The table of a user, to be put at the end of a file."""
    if not name or any(letter in ':"\\*' or not letter.isprintable() for letter in name):
        raise DeclarationError("is no name of a user", where=name, remedy="take a word without a colon")
    lines = ["[[user]]", f'name = "{name}"', f'{"token" if token else "password"} = "{secret}"']
    if expires:
        lines.append(f"expires = {expires.isoformat()}")
    return "\n".join(lines) + "\n"
