"""What a person, or a script, is told: text or JSON, progress and errors."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TextIO

import click

from haversack.errors import HaversackError
from haversack.model.finding import Finding


def human_size(size: float) -> str:
    """Bytes as people read them (powers of ten, as disks and media are sold)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


class Console:
    """Standard output for results, standard error for everything else."""

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        self.as_json = as_json
        self.quiet = quiet
        self._out: TextIO = sys.stdout
        self._aside: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext

    def to_stderr(self) -> None:
        """Leave standard output to a stream of bytes."""
        self._out = sys.stderr

    def report(self, value: Any, lines: Sequence[str]) -> None:
        """The result of a command: ``value`` as JSON, or ``lines``."""
        if self.as_json:
            click.echo(_json(value), file=self._out)
        else:
            self.lines(lines)

    def lines(self, lines: Sequence[str]) -> None:
        """Lines for a person; a script that asked for JSON gets none."""
        if not self.as_json:
            for line in lines:
                click.echo(_line(line), file=self._out)

    def notes(self, lines: Sequence[str]) -> None:
        """What a person may want to know while work goes on: beside the result, not part of it."""
        if not self.as_json:
            with self._aside():
                for line in lines:
                    click.echo(_line(line), err=True)

    def note(self, line: str) -> None:
        """One line of such notes."""
        self.notes([line])

    def findings(self, findings: Sequence[Finding]) -> None:
        """Findings for a person; JSON carries them in the report."""
        if not self.as_json:
            for finding in findings:
                _say(finding)

    def error(self, problem: HaversackError) -> None:
        """An error: its findings, itself, its remedy."""
        if self.as_json:
            body = {
                "error": problem.title,
                "exit_code": problem.exit_code,
                "message": problem.message,
                "where": problem.where,
                "remedy": problem.remedy,
                "findings": problem.findings,
            }
            click.echo(_json(body))
            return
        for finding in problem.findings:
            _say(finding)
        place = f"{_line(problem.where)}: " if problem.where else ""
        click.secho(f"error: {place}{_shown(str(problem.message))}", fg="red", err=True)
        if problem.remedy:
            click.echo(f"  remedy: {_shown(problem.remedy)}", err=True)

    @contextlib.contextmanager
    def progress(self, label: str, total: int, unit: str = "B") -> Iterator[Callable[[int], None]]:
        """See :class:`haversack.ports.Progress`: a bar on terminals, after the first second."""
        if self.quiet or self.as_json or not sys.stderr.isatty():
            yield lambda _: None
            return
        import threading

        from tqdm import tqdm

        lock, done = threading.Lock(), threading.Event()
        # A note is a line above the bar, not behind it.
        self._aside = functools.partial(tqdm.external_write_mode, file=sys.stderr)
        with tqdm(
            total=total or None,
            desc=label,
            unit=unit or " steps",
            unit_scale=unit == "B",
            delay=1,
            leave=False,
            file=sys.stderr,
        ) as bar:

            def advance(count: int) -> None:
                with lock:
                    bar.update(count)

            def tick() -> None:
                # Work that advances seldom, or never, still shows that time goes by.
                while not done.wait(1):
                    with lock:
                        bar.refresh()

            ticker = threading.Thread(target=tick, daemon=True)
            ticker.start()
            try:
                yield advance
            finally:
                done.set()
                ticker.join()


def _say(finding: Finding) -> None:
    label, colour = ("error", "red") if finding.blocking else ("note", "yellow")
    told = f"{label}: {_line(finding.subject)}: {_shown(finding.message)} [{finding.code}]"
    click.secho(told, fg=colour, err=True)
    if finding.remedy:
        click.echo(f"  remedy: {_shown(finding.remedy)}", err=True)


def _shown(text: str) -> str:
    """A text as a terminal may see it: file names and manifests of strangers must not steer it.

    What follows a line break is indented, so that nothing in a text looks like a line of haversack's own.
    """
    return "\n      ".join(_line(part) for part in text.split("\n"))


def _line(text: str) -> str:
    """A text that is one line, or a name: line breaks are a stranger's too."""
    return "".join(c if c.isprintable() or c == "\t" else c.encode("unicode_escape").decode() for c in text)


def _json(value: Any) -> str:
    """JSON; half characters, which a file name may hold, as the escapes that they are in JSON."""
    text = json.dumps(value, default=_plain, ensure_ascii=False, indent=2)
    return text.encode(errors="backslashreplace").decode()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return list(value)
