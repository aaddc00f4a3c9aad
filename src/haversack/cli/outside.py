"""Commands of the connected side."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from haversack.cli.setting import Setting, Size, common, pass_setting
from haversack.console import human_size
from haversack.errors import UsageError

if TYPE_CHECKING:
    from haversack.model.lock import Lock
    from haversack.model.site import Site
    from haversack.ports import Outside
    from haversack.verbs.collect import Plan
    from haversack.verbs.pack import Base

DECLARATION = "haversack.toml"


def _declared(file: Path) -> Site:
    from haversack.formats.declaration import parse
    from haversack.kinds import keys

    return parse(file, keys())


def _locked(site: Site) -> Lock:
    """The lock beside a declaration, if it answers that declaration."""
    from haversack.errors import LockError
    from haversack.formats import lockfile

    path = site.root / lockfile.FILENAME
    if not path.exists():
        raise LockError("there is no lock", where=str(path), remedy="run: haversack lock")
    lock, _ = lockfile.read(path.read_bytes(), str(path))
    if lock.declaration != site.digest:
        raise LockError(
            "the declaration, or a file it names, changed since it was locked",
            where=str(path),
            remedy="run: haversack lock",
        )
    return lock


declaration = click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    default=DECLARATION,
    show_default=True,
    help="The declaration.",
)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--force", is_flag=True, help="Replace a declaration that is there.")
@common
@pass_setting
def init(setting: Setting, folder: Path, force: bool) -> None:
    """Look at a folder and write a commented haversack.toml."""
    from haversack.ports.machine import probe
    from haversack.verbs.init import init as run

    report = run(folder, force=force, machine=probe())
    setting.console.report(report, [f"wrote {report.path}", *report.notes, "next: haversack lock"])


@click.command()
@declaration
@click.option(
    "-U", "--upgrade", is_flag=True, help="Take the newest versions instead of keeping those of the lock."
)
@click.option("--check", is_flag=True, help="Change nothing; exit with 4 if the lock would change.")
@common
@pass_setting
def lock(setting: Setting, file: Path, upgrade: bool, check: bool) -> None:
    """Resolve haversack.toml into haversack.lock.

    Every environment is resolved on each of its targets, all at the same time.  Only wheels are chosen, by the target's markers and tags, not by this machine's.
    """
    from haversack.errors import LockError
    from haversack.formats import lockfile
    from haversack.verbs.lock import lock as run

    site = _declared(file)
    out = setting.outside(site)
    path = site.root / lockfile.FILENAME
    held = None
    if path.exists():
        try:
            held = lockfile.read(path.read_bytes(), str(path))[0]
        except LockError as problem:
            if not upgrade:
                remedy = "mend it, or resolve everything anew: haversack lock --upgrade"
                raise LockError(problem.message, where=problem.where, remedy=remedy) from problem
    answer = run(site, held, out, upgrade=upgrade)
    if check and answer.changed:
        raise LockError("is not what locking gives now", where=str(path), remedy="run: haversack lock")
    if answer.changed:
        from haversack.model.artifact import digest_of
        from haversack.ports.durable import explained, replace

        out.ledger.append("lock", digest_of(answer.data), {"site": site.name})
        with explained(path, "writing the lock"):
            replace(path, answer.data)
    setting.console.findings(answer.findings)
    count = len(answer.lock.artifacts)
    state = "written" if answer.changed else "unchanged"
    environments = [e.ref for e in answer.lock.environments]
    setting.console.report(
        {
            "path": str(path),
            "changed": answer.changed,
            "artifacts": count,
            "environments": environments,
            "added": answer.added,
            "findings": answer.findings,
        },
        [*answer.added, f"{path}: {state}, {count} files for {len(environments)} environments"],
    )


@click.command()
@declaration
@click.option("-o", "--output", help="A folder for the bundle, or - for one tar stream on standard output.")
@click.option("--base", help="A site's receipt, or a snapshot packed here: only what it lacks travels.")
@click.option("--name", help="What the snapshot is called inside (default: the month, as 2026-11).")
@click.option("--volume-size", type=Size(), help="Cut the bundle into volumes, e.g. 4GB for FAT32.")
@click.option(
    "--no-rehearse", is_flag=True, help="Do not install here without network; the manifest says so for ever."
)
@click.option(
    "--resend",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Write again only what this list names.",
)
@click.option(
    "--dry-run", is_flag=True, help="Say what would be fetched and what would cross; fetch nothing."
)
@common
@pass_setting
def pack(
    setting: Setting,
    file: Path,
    output: str | None,
    base: str | None,
    name: str | None,
    volume_size: int | None,
    no_rehearse: bool,
    resend: Path | None,
    dry_run: bool,
) -> None:
    """Collect, prove, rehearse and write a bundle.

    \b
    haversack pack -o bundle/                       everything
    haversack pack -o bundle/ --base site.receipt   what the site lacks
    haversack pack -o - | ssh gate 'cat > …'        one tar stream
    """
    from haversack.model.snapshot import NAME_RULE, is_name_to_give
    from haversack.ports.media import FolderWriter, TarWriter
    from haversack.verbs import collect
    from haversack.verbs import pack as verb
    from haversack.verbs.resend import resend as again

    if output is None and not dry_run:
        raise UsageError("say where the bundle goes", remedy="haversack pack -o FOLDER, or -o - for a stream")
    if name is not None and not is_name_to_give(name):
        raise UsageError(f"{name!r} is no name for a snapshot", remedy=NAME_RULE)
    if output == "-":
        setting.console.to_stderr()
    site = _declared(file)
    out = setting.outside(site)
    found = _base(base, out) if base else None
    if dry_run:
        value, lines = _plan(collect.plan(_locked(site), out, found.blobs if found else ()))
        setting.console.report(value, lines)
        return
    writer = TarWriter(sys.stdout.buffer) if output == "-" else FolderWriter(Path(str(output)))
    if resend is not None:
        packed = again(resend.read_bytes(), str(resend), out, writer)
    else:
        packed = verb.pack(
            _locked(site),
            site.root,
            out,
            writer,
            base=found,
            name=name,
            volume_size=volume_size,
            rehearsing=not no_rehearse,
            tell=lambda planned: setting.console.notes(_plan(planned)[1]),
        )
    setting.console.findings(packed.findings)
    bundle = packed.bundle
    amount = f"{packed.files} files, {human_size(packed.size)} in {packed.volumes} volume(s)"
    lines = [f"wrote {output}: {amount}"]
    lines += [f"rehearsal of {r.ref}: {r.result} {r.detail}" for r in bundle.rehearsals]
    if base:
        lines += [f"{c.ref}: {c.name} {c.old or '-'} -> {c.new or '-'}" for c in packed.changes]
    lines.append(f"bundle {packed.id}")
    setting.console.report(
        {
            "id": packed.id,
            "output": output,
            "files": packed.files,
            "bytes": packed.size,
            "name": bundle.name,
            "snapshot": bundle.snapshot,
            "sequence": bundle.sequence,
            "volumes": [{"name": v.name, "bytes": v.size} for v in bundle.volumes],
            "rehearsals": bundle.rehearsals,
            "changes": packed.changes,
            "findings": packed.findings,
        },
        lines,
    )


def _plan(planned: Plan) -> tuple[dict[str, Any], list[str]]:
    """A plan for scripts and for people."""
    from haversack.ports import UNKNOWN_ROOM

    unknown = f" and {planned.unknown} of unknown size" if planned.unknown else ""
    known = len(planned.fetch) - planned.unknown
    room = "" if planned.free == UNKNOWN_ROOM else f"; free in the store: {human_size(planned.free)}"
    lines = [
        f"to fetch: {known} files, {human_size(planned.bytes)}{unknown}; {planned.held} files are here already",
        f"to cross: {human_size(planned.travel)}{unknown}{room}",
    ]
    value = {
        "fetch": [artifact.filename for artifact in planned.fetch],
        "fetch_bytes": planned.bytes,
        "unknown_sizes": planned.unknown,
        "held": planned.held,
        "travel_bytes": planned.travel,
        "free_bytes": planned.free,
    }
    return value, lines


def _base(text: str, out: Outside) -> Base:
    from haversack.formats import receipt as receipts
    from haversack.verbs import pack as verb

    path = Path(text)
    if path.is_file():
        return verb.base_of_receipt(receipts.read(path.read_bytes(), text))
    return verb.base_of_snapshot(out.store, text)


@click.command()
@click.option(
    "--keep", type=click.Path(path_type=Path, file_okay=False), help="Keep the demo's files in this folder."
)
@common
@pass_setting
def demo(setting: Setting, keep: Path | None) -> None:
    """Do the main job from end to end on real packages.

    Locks numpy, pandas and scikit-learn for this machine and for a foreign one, packs them, and then, in a
    network namespace with no interface, verifies, receives, installs and imports them.
    """
    from haversack.demo import demo as run

    run(keep, setting.console)


@click.command("import")
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=".")
@click.option("--name", help="Name of the environment (default: that of the archive).")
@click.option("--target", "targets", multiple=True, help="A target (default: what the archive is for).")
@click.option("--dry-run", is_flag=True, help="Look at the archive and say what would be declared.")
@common
@pass_setting
def import_(
    setting: Setting, archive: Path, folder: Path, name: str | None, targets: tuple[str, ...], dry_run: bool
) -> None:
    """Declare an environment that pixi-pack or conda-pack packed.

    \b
    haversack import environment.tar --name train
    haversack import legacy.tar.gz
    """
    from haversack.verbs.adopt import adopt as run

    done = run(archive, folder, name=name, targets=targets, dry_run=dry_run)
    verb = "would declare" if dry_run else "declared"
    setting.console.report(
        done,
        [
            f"{verb} {done.name} ({done.kind}) for {', '.join(done.targets) or 'this machine'} in {done.declaration}",
            *([f"copied {archive} to {done.archive}"] if done.copied and not dry_run else []),
            "next: haversack lock",
        ],
    )


COMMANDS = (init, lock, pack, import_, demo)
