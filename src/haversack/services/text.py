"""The files of a machine with systemd, of a described service and the values of its options."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from haversack.services.description import Service, Unit
from haversack.services.terms import Place, Term, join
from haversack.services.values import Values

UNITS = "etc/systemd/system"
COMMANDS = "usr/local/bin"
"""Where commands for people lie: on the path of logins and of ssh.  Cron and RHEL's sudo (``secure_path``) look elsewhere."""
VERBS = ("start", "stop", "restart", "status --no-pager")
"""What administrators may say to systemctl.  A pager could start a shell."""


def places(service: Service, package: str) -> dict[str, str]:
    """What is where on a machine with systemd."""
    return {
        "package": package,
        "python": f"{package}/bin/python",
        "programs": f"/usr/local/libexec/{service.name}",
        "etc": f"/etc/{service.name}",
        "kill": "/bin/kill",
    }


def files(service: Service, values: Values, origin: str) -> dict[str, str]:
    """Every file by its path below ``/``, but for the small programs: units, users, folders, configuration.

    ``origin`` is the line that says from what they were made.  ``values`` must have no fault.
    """
    head = f"# {origin}\n"
    found: dict[str, str] = {}
    for unit in service.units:
        if values.test(unit.when):
            found |= {f"{UNITS}/{name}": head + text for name, text in _unit(service, unit, values).items()}
    if made := _users(service, values):
        found[f"etc/sysusers.d/{service.name}.conf"] = head + made
    if lines := [values.text(line.term) for line in service.tmpfiles if values.test(line.when)]:
        found[f"etc/tmpfiles.d/{service.name}.conf"] = head + "".join(f"{line}\n" for line in lines)
    if service.config is not None:
        found[f"etc/{service.name}/{service.config.name}"] = head + _json(config(service, values))
    if service.variables:
        found[f"etc/{service.name}/environment"] = head + environment(values.options[service.variables])
    logins = {name: text for name, term in service.logins.items() for text in values.texts(term)}
    if logins:
        lines = [f"export {name}='{value}'" for name, value in sorted(logins.items())]
        found[f"etc/profile.d/{service.name}.sh"] = head + "".join(f"{line}\n" for line in lines)
        own = _own(service, values)
        found |= {f"{COMMANDS}/{name}": _command(name, logins, values, head) for name in own}
    if service.administrators and (rules := _sudo(service, values)):
        found[f"etc/sudoers.d/{service.name}"] = head + rules
    return found


def _own(service: Service, values: Values) -> list[str]:
    """The commands that nobody finds without a file of ours: not those that are on everybody's path already."""
    return [] if values.places["package"] in {"/usr", "/usr/local"} else list(service.commands)


def _command(name: str, logins: Mapping[str, str], values: Values, head: str) -> str:
    """A command of the package; the system wants its first line, so that ``head`` is the second."""
    told = "".join(f'export {key}="${{{key}:-{value}}}"\n' for key, value in sorted(logins.items()))
    package = values.places["package"]
    why = "# For who does not log in: over ssh; by cron or RHEL's sudo by its full path."
    return f'#!/bin/sh\n{head}{why}\n{told}exec {package}/bin/{name} "$@"\n'


def config(service: Service, values: Values) -> dict[str, Any]:
    """The content of its file of configuration."""
    if service.config is None:
        return {}
    added = {key: text for key, term in service.config.added.items() for text in values.texts(term)}
    return {**values.options[service.config.option], **added}


def environment(lines: str) -> str:
    """Lines ``export NAME=value`` as systemd reads them (``EnvironmentFile=``, systemd.exec(5))."""
    found = [re.sub(r"^ *(export +)?", "", line) for line in lines.split("\n")]
    return "".join(f"{line}\n" for line in found if line and not line.startswith("#"))


def units(service: Service, values: Values) -> list[str]:
    """The names of the units that there are: those that start by themselves."""
    return [
        f"{unit.name}.{'timer' if unit.timer is not None else 'service'}"
        for unit in service.units
        if values.test(unit.when)
    ]


def _unit(service: Service, unit: Unit, values: Values) -> dict[str, str]:
    path = join(Place("package"), "/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    variables = {"PATH": path, **unit.environment}
    told = {name: text for name, term in variables.items() for text in values.texts(term)}
    lines = [
        *_section("Unit", {"Description": unit.description}, values),
        *_ordered("After", unit.after, values),
        *_ordered("Wants", unit.wants, values),
        *_section(None, unit.unit, values),
        "",
        *_section("Service", {}, values),
        *(f'Environment="{name}={value}"' for name, value in sorted(told.items())),
        *([f"EnvironmentFile=/etc/{service.name}/environment"] if service.variables else []),
        *_section(None, unit.service, values),
    ]
    if unit.timer is None:
        lines += ["", "[Install]", "WantedBy=multi-user.target"]
        return {f"{unit.name}.service": _text(lines)}
    timer = [
        *_section("Unit", {"Description": f"{unit.description}, again and again"}, values),
        "",
        *_section("Timer", unit.timer, values),
        *("", "[Install]", "WantedBy=timers.target"),
    ]
    return {f"{unit.name}.service": _text(lines), f"{unit.name}.timer": _text(timer)}


def _section(
    name: str | None, directives: Mapping[str, Term | tuple[Term, ...]], values: Values
) -> list[str]:
    found = [f"[{name}]"] if name else []
    for key, terms in directives.items():
        each = terms if isinstance(terms, tuple) else (terms,)
        found += [f"{key}={text}" for term in each for text in values.texts(term)]
    return found


def _ordered(key: str, terms: Sequence[Term], values: Values) -> list[str]:
    told = " ".join(text for term in terms for text in values.texts(term))
    return [f"{key}={told}"] if told else []


def _users(service: Service, values: Values) -> str:
    lines = []
    user, group = values.options["user"], values.options["group"]
    if group == service.options["group"].default:
        lines.append(f"g {group} -")
    if user == service.options["user"].default:
        lines.append(f'u {user} -:{group} "{service.description}" {values.text(service.home)}')
    return _text(lines) if lines else ""


def _sudo(service: Service, values: Values) -> str:
    """Rules of sudoers(5): these words with these units, and nothing else; none where there are no units."""
    names = [name for unit in service.units if values.test(unit.when) for name in unit.files]
    commands = [f"/usr/bin/systemctl {verb} {name}" for name in names for verb in VERBS]
    people = values.options[service.administrators] if commands else ()
    return _text([f"{person} ALL=(root) NOPASSWD: {', '.join(commands)}" for person in people])


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
