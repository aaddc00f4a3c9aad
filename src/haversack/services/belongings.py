"""What lies in the folders of a service: whether its user may read it, and whether it is that user's.

Everything here only reads.  A store that somebody keeps private stays so until that person says otherwise.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Container, Iterator
from itertools import chain
from pathlib import Path

from haversack.model.finding import Finding, unready
from haversack.services.lastruns import Ask
from haversack.services.values import Values

# What a server reads of a store (haversack.ports.disk); what else lies there is its writers' alone.
_SERVED = ("oci-layout", "index.json", "blobs", "haversack/state")


def unreadable(found: Values, ask: Ask, *, top: bool) -> Iterator[Finding]:
    """What the user of a service could not read of the store that it serves, with the command that opens it.

    ``top`` says whether the store's own folder counts, whose mode an install sets.  Only root is told.
    """
    if os.geteuid() or not (store := Path(found.options.get("store") or "/nowhere")).is_dir():
        return
    user, group = found.options["user"], found.options["group"]

    def denied(path: Path, *tests: str) -> bool:
        """Asked of the system itself, for access lists beside the mode; a user that is not there yet has none."""
        words = [word for test in tests for word in ("-a", test, str(path))][1:]
        who = ("setpriv", f"--reuid={user}", f"--regid={group}", "--init-groups")
        done = ask(*who, "test", *words)
        return done is None or done.code != 0

    real = store.resolve()
    for folder in sorted({*store.parents, *real.parents}):
        try:
            mode = folder.stat().st_mode
        except FileNotFoundError:
            continue  # gone meanwhile
        if not mode & stat.S_IXOTH and denied(folder, "-x"):
            said = f"is a folder that {user} may not pass, on the way to the store {store}"
            yield unready(str(folder), said, f"chmod a+x {folder}")
    for path in chain([real] if top else [], _served(real)):
        try:
            mode = path.lstat().st_mode
        except FileNotFoundError:
            continue  # taken away meanwhile, as by a prune
        if stat.S_ISDIR(mode):
            closed = mode & 0o005 != 0o005 and denied(path, "-r", "-x")
        else:
            closed = stat.S_ISREG(mode) and not mode & stat.S_IROTH and denied(path, "-r")
        if closed:
            said = f"cannot be read by {user}, who serves it: {path} is closed to others"
            # Not all of it: what lies beside these is its writers' alone.
            passed, served = (
                " ".join(name for name in names if (real / name).exists())
                for names in ((".", "haversack"), _SERVED)
            )
            yield unready(str(store), said, f"cd {store} && chmod a+rx {passed} && chmod -R a+rX {served}")
            return


def _served(store: Path) -> Iterator[Path]:
    """Every folder and file that a server reads, folders first: what is below a closed one is as closed."""
    own = store / "haversack"
    yield from (path for path in (own, *(store / name for name in _SERVED)) if path.exists())
    for folder in (store / "blobs", own / "state"):
        for top, inner, names in os.walk(folder):
            yield from (Path(top, name) for name in (*inner, *names))


def folders(lines: bytes) -> dict[str, tuple[str, str]]:
    """The folders that a file of tmpfiles.d(5) makes, each with its mode and its user."""
    found = re.findall(r"^d (?:'([^']+)'|(\S+)) (\S+) (\S+)", lines.decode(), re.MULTILINE)
    return {quoted or plain: (mode, user) for quoted, plain, mode, user in found}


def foreign(name: str, lines: bytes, found: Values, known: Container[str] | None = None) -> Iterator[Finding]:
    """Folders of a service (as tmpfiles.d makes them) in which lies what is another user's, root's left out.

    tmpfiles.d gives the folder itself to the declared user, and leaves what is in it: the service would start, and
    could not read its own state.  ``known`` are the folders that an install made before, where there may be one to come:
    any other may be something else's, and there what is root's counts too.  Only root is told.
    """
    if os.geteuid():
        return
    user, group = found.options["user"], found.options["group"]
    made, told = folders(lines), list[Path]()
    for path in sorted(path for path, (_, owner) in made.items() if owner != "-"):
        place = Path(path)
        if any(other in place.parents for other in told):
            continue
        fine = {_number(user), *([] if known is not None and path not in known else [0])}
        owned = (one for one in _within(place) if str(place / one[0]) not in made)
        first = next((one for one in owned if one[1] not in fine), None)
        if first is None:
            continue
        told.append(place)
        holder = _name(first[1])
        said = f"{first[0]} in it is of {holder}, and the service runs as {user}: nobody hands it over"
        new = "" if _number(user) is not None else f"useradd --system {user}; "
        remedy = f"if it is the service's: systemctl stop '{name}*'; {new}chown -R --from={holder} {user}:{group} {path}"
        yield unready(path, said, f"{remedy}; if not, name another folder")


def _within(folder: Path) -> Iterator[tuple[str, int]]:
    """What is in a folder, and in the folders in it, by its name and its owner; links are nobody's.

    What a file system has for itself does not count.
    """
    for depth, pattern in enumerate(("*", "*/*")):
        for path in folder.glob(pattern):
            try:
                status = path.lstat()
            except OSError:
                continue  # it is gone, or cannot be looked at
            if stat.S_ISLNK(status.st_mode) or (depth and path.parent.is_symlink()):
                continue
            if (name := path.relative_to(folder)).parts[0] != "lost+found":
                yield str(name), status.st_uid


def _number(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _name(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
