"""Commands of the air-gapped side, and those of both."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from haversack.cli.running import install, run
from haversack.cli.setting import Setting, common, pass_setting
from haversack.console import human_size
from haversack.errors import UsageError

if TYPE_CHECKING:
    from haversack.model.finding import Finding

paths = click.argument("bundle", nargs=-1, required=True, type=click.Path())


@click.command()
@paths
@click.option(
    "--resend",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a list of what must be sent again.",
)
@common
@pass_setting
def verify(setting: Setting, bundle: tuple[str, ...], resend: Path | None) -> None:
    """Find everything that is wrong with a bundle.

    The exit code says which class of finding is worst.  BUNDLE is its folder, the folders of its volumes, a tar, or - for standard input.  With a store,
    also whether the bundle could be received there.
    """
    from haversack.model.finding import raise_blocking
    from haversack.ports.durable import explained
    from haversack.verbs.verify import verify as run

    # Whoever stands at the gate may have no right to the site's store, and needs none to verify.
    store = setting.inside().store if setting.has_store() else None
    done = run(setting.media(bundle), store, setting.console.progress)
    if resend is not None and done.resend:
        with explained(resend, "writing the list", UsageError):
            resend.write_bytes(done.resend)
    raise_blocking(done.findings, "the bundle is not whole and right")
    assert done.bundle is not None
    setting.console.findings(done.findings)
    base = f", an increment on {done.bundle.base}" if done.bundle.base else ""
    lines = [
        f"all is right: {done.files} files, {human_size(done.size)}, snapshot {done.bundle.name} of {done.bundle.site}{base}"
    ]
    lines += [f"rehearsal of {r.ref}: {r.result} {r.detail}" for r in done.bundle.rehearsals]
    lines.append(f"bundle {done.id}")
    setting.console.report(
        {
            "id": done.id,
            "files": done.files,
            "bytes": done.size,
            "site": done.bundle.site,
            "name": done.bundle.name,
            "snapshot": done.bundle.snapshot,
            "sequence": done.bundle.sequence,
            "base": done.bundle.base,
            "rehearsals": done.bundle.rehearsals,
            "findings": done.findings,
        },
        lines,
    )


@click.command()
@paths
@click.option("--copy", is_flag=True, help="Never share a file on disk with the bundle.")
@click.option("--dry-run", is_flag=True, help="Check everything, change nothing.")
@common
@pass_setting
def receive(setting: Setting, bundle: tuple[str, ...], copy: bool, dry_run: bool) -> None:
    """Verify all of a bundle, then take it in.

    Its snapshot becomes `current`; nothing that is served changes before the last step.
    """
    from haversack.verbs.receive import receive as run

    done = run(setting.media(bundle), setting.inside(create=not dry_run), copy=copy, dry_run=dry_run)
    setting.console.findings(done.findings)
    told = "would be received" if dry_run else ("is now current" if done.changed else "was already current")
    setting.console.report(
        {
            "id": done.id,
            "name": done.name,
            "snapshot": done.snapshot.id,
            "files": done.files,
            "bytes": done.size,
            "changed": done.changed,
            "findings": done.findings,
        },
        [
            f"snapshot {done.name} {told}: {done.files} files, {human_size(done.size)}",
            *(f"    {e.ref}" for e in done.snapshot.environments),
        ],
    )


@click.command()
@common
@pass_setting
def snapshots(setting: Setting) -> None:
    """List the snapshots of the store."""
    from haversack.verbs.snapshots import snapshots as run

    found = run(setting.inside())
    rows = [
        f"{'*' if s.current else ' '} {s.name:<12} {s.id[7:19]}  {s.at:<20}  {s.artifacts:>6} files  {human_size(s.bytes):>9}  {', '.join(s.environments) if s.whole else 'not whole: receive the bundle that brought it again'}"
        for s in found
    ]
    setting.console.report(found, rows or ["no snapshot yet: haversack receive BUNDLE"])


@click.command()
@click.argument("snapshot")
@common
@pass_setting
def use(setting: Setting, snapshot: str) -> None:
    """Make a snapshot current, e.g. that of last month."""
    from haversack.verbs.snapshots import use as run

    held, changed = run(snapshot, setting.inside())
    setting.console.report(
        {"name": held.name, "snapshot": held.snapshot, "changed": changed},
        [f"current is {held.name} ({held.snapshot})"],
    )


@click.command()
@click.option(
    "--keep", type=click.IntRange(min=1), help="Forget all snapshots but the current and this many newest."
)
@click.option("--dry-run", is_flag=True, help="Say what would be removed.")
@common
@pass_setting
def prune(setting: Setting, keep: int | None, dry_run: bool) -> None:
    """Remove what no snapshot needs.

    With --keep older snapshots are forgotten too.  Environments that are installed stay as they are.
    """
    from haversack.verbs.snapshots import prune as run

    done = run(setting.inside(), keep=keep, dry_run=dry_run)
    verb = "would remove" if dry_run else "removed"
    setting.console.report(
        done, [f"{verb} {len(done.snapshots)} snapshots, {done.blobs} blobs, {human_size(done.bytes)}"]
    )


@click.command()
@click.argument("old")
@click.argument("new", default="current")
@common
@pass_setting
def diff(setting: Setting, old: str, new: str) -> None:
    """Show what changed between two snapshots."""
    from haversack.verbs.snapshots import compare

    changes = compare(old, new, setting.inside())
    rows = [f"{c.ref}: {c.name} {c.old or '-'} -> {c.new or '-'}" for c in changes]
    setting.console.report(changes, rows or ["no difference"])


@click.command()
@common
@pass_setting
def receipt(setting: Setting) -> None:
    """Print what the store holds, for the next pack.

    \b
    haversack receipt > site.receipt
    """
    from haversack.formats import receipt as receipts
    from haversack.verbs.snapshots import receipt as run

    # A receipt is JSON already, for people and scripts alike.
    click.echo(receipts.write(run(setting.inside())), nl=False)


@click.group()
def audit() -> None:
    """Read and prove the ledger."""


@audit.command("show")
@click.option("-n", "--last", type=click.IntRange(min=1), help="Only the last entries.")
@common
@pass_setting
def audit_show(setting: Setting, last: int | None) -> None:
    """Print every act: when, who, where, what."""
    from haversack.verbs.audit import show

    lines = show(setting.inside().ledger)[-(last or 0) :]
    entries = [line.entry for line in lines if line.entry]
    setting.console.report(
        entries,
        [f"{e.number:>5}  {e.time}  {e.actor}@{e.host}  {e.act:<12} {e.subject}" for e in entries]
        or ["no act yet"],
    )


@audit.command("verify")
@common
@pass_setting
def audit_verify(setting: Setting) -> None:
    """Find an edited, dropped or reordered line and name it."""
    from haversack.model.finding import raise_blocking
    from haversack.verbs.audit import verify as run
    from haversack.verbs.holdings import read

    inside = setting.inside()
    acted = setting.owns_ledger() and read(inside.store).bundle is not None
    count, findings = run(inside.ledger, acted=acted)
    raise_blocking(findings, "the ledger is broken")
    setting.console.report(
        {"entries": count, "findings": findings}, [f"{count} entries, each follows from the one before"]
    )


@audit.command("clock")
@click.option("--reason", required=True, help="Why the clock is right although it runs behind the last act.")
@common
@pass_setting
def audit_clock(setting: Setting, reason: str) -> None:
    """Record that the clock is right.

    Acts can then go on although an earlier one was recorded at a wrong, later time.
    """
    from haversack.verbs.audit import attest_clock

    entry = attest_clock(reason, setting.inside().ledger)
    setting.console.report(entry, [f"recorded at {entry.time}"])


@click.command()
@common
@pass_setting
def probe(setting: Setting) -> None:
    """Print the target profile of this machine.

    \b
    haversack probe > gpu-node.target.toml
    """
    from haversack.ports.machine import probe as run

    fields = run().to_json()
    setting.console.report(fields, [f'{key} = "{value}"' for key, value in fields.items()])


@click.command()
@click.argument("platform", required=False)
@click.option(
    "--env",
    "prefix",
    type=click.Path(path_type=Path, file_okay=False),
    help="Verify an installed environment against its RECORDs.",
)
@click.option("--read-all", is_flag=True, help="Hash every blob of the store.")
@click.option("--drop-damaged", is_flag=True, help="Remove damaged blobs, so that receive brings them again.")
@click.option("--values", metavar="FILE", help="Of a platform: a values file of helm to look at instead.")
@click.option("--chart", help="Of a platform: the chart that the values file is for.")
@click.option("--registry", help="Of a platform: the registry that its images should come from.")
@click.option("--base-url", help="Of a platform: where the store, or an export of it, is served.")
@common
@pass_setting
def doctor(
    setting: Setting,
    /,
    platform: str | None,
    prefix: Path | None,
    read_all: bool,
    drop_damaged: bool,
    **asked: str | None,
) -> None:
    """Say what is wrong here, and what to do.

    Looks at this machine and the store, with --env at an installed environment, or at a platform of the
    current snapshot (slurm, skypilot, systemd, …): everything that would fail, before it fails.
    """
    from haversack.model.finding import raise_blocking
    from haversack.verbs import doctor as verb
    from haversack.verbs.platform import preflight

    looked: list[str] = []
    findings: list[Finding] = []
    if platform is not None:
        if prefix is not None or read_all or drop_damaged:
            raise UsageError("a platform is looked at alone", remedy="leave the options out")
        found = [preflight(platform, setting.inside(), asked)]
    elif any(asked.values()):
        raise UsageError("no platform is named that would look at it", remedy="haversack doctor PLATFORM …")
    elif prefix is not None:
        found = [verb.environment(prefix, setting.inside())]
    else:
        inside = setting.inside(create=not setting.has_store())
        found = [
            verb.machine(inside, os.environ),
            verb.store(inside, read_all=read_all, drop_damaged=drop_damaged),
        ]
    for diagnosis in found:
        looked += diagnosis.looked
        findings += diagnosis.findings
    setting.console.lines(looked)
    raise_blocking(findings, "something is wrong")
    setting.console.findings(findings)
    setting.console.report(
        {"looked": looked, "findings": findings}, ["all is well" if not findings else "nothing that blocks"]
    )


COMMANDS = (verify, receive, install, run, snapshots, use, prune, diff, receipt, audit, probe, doctor)
