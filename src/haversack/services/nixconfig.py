"""What a module of NixOS makes of its options: assertions, users, units, files, rules."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import product

from haversack.services.description import Service, Unit
from haversack.services.layout import block, escaped, indented, lines, quoted
from haversack.services.nixlang import Words, argument
from haversack.services.terms import ALWAYS, Not, When
from haversack.services.text import VERBS


def config(service: Service, words: Words) -> str:
    """What the module makes of the options."""
    user, group = service.options["user"].default, service.options["group"].default
    person = {
        "isSystemUser": "true",
        "group": "cfg.group",
        "home": words.expression(service.home),
        "description": quoted(service.description),
    }
    units = {unit.name: _unit(service, unit, words) for unit in service.units}
    timers = {unit.name: _timer(unit, words) for unit in service.units if unit.timer is not None}
    rules = tuple(
        line.term if line.when == ALWAYS else When(line.when, line.term) for line in service.tmpfiles
    )
    ports = [f"lib.optional {argument(words.test(test))} cfg.{path}" for path, test in service.ports]
    parts = [
        ("assertions", lines([*_assertions(service, words), *_shared(service, words), *_stored(service)])),
        ("warnings", _warnings(service, words)),
        (f"users.users.{user}", f"mkIf (cfg.user == {quoted(user)}) {block(person)}"),
        (f"users.groups.{group}", f"mkIf (cfg.group == {quoted(group)}) {{ }}"),
        ("environment", _environment(service, words)),
        ("systemd.tmpfiles.rules", words.directive(rules)),
        ("systemd.services", block(units, "\n\n")),
        *([("systemd.timers", block(timers, "\n\n"))] if timers else []),
        ("networking.firewall.allowedTCPPorts", " ++ ".join(ports)),
        ("security.sudo.extraRules", _sudo(service)),
    ]
    return block(parts, "\n\n")


def _sentence(service: Service, message: str) -> str:
    """A sentence with the values of options in it."""
    parts = re.split(r"\{([A-Za-z.]+)\}", message)
    said = [f"${{toString cfg.{part}}}" if odd % 2 else escaped(part) for odd, part in enumerate(parts)]
    return f'"services.{service.name}: {"".join(said)}"'


def _assertions(service: Service, words: Words) -> list[str]:
    return [
        block({"assertion": words.test(one.test), "message": _sentence(service, one.message)})
        for one in service.assertions
        if one.block
    ]


def _shared(service: Service, words: Words) -> Iterator[str]:
    """Assertions that it shares no port and no folder with the service beside it, where the system has that too."""
    if service.beside is None:
        return
    other = service.beside
    for mine, theirs in product(service.listens, other.listens):
        when = [] if mine.when == ALWAYS else [argument(words.test(mine.when))]
        both = " && ".join([*when, f"{other.name}.enable"])
        said = f"{mine.path} and services.{other.name}.{theirs.path} are both {{{mine.path}}}: two servers cannot share a port"
        yield block(
            {
                "assertion": f"{both} -> cfg.{mine.path} != {other.name}.{theirs.path}",
                "message": _sentence(service, said),
            }
        )
    for own, their in product(service.folders, other.folders):
        one, two = f'"${{cfg.{own}}}/"', f'"${{{other.name}.{their}}}/"'
        within = f"lib.hasPrefix {one} {two} || lib.hasPrefix {two} {one}"
        said = f"{own} is {{{own}}}, in or around services.{other.name}.{their}: name a folder beside it"
        yield block(
            {
                "assertion": f"{other.name}.enable -> !({within})",
                "message": _sentence(service, said),
            }
        )


def _stored(service: Service) -> Iterator[str]:
    """Assertions that only NixOS needs, where a type says too little, or a secret would lie in the store."""
    if service.config is not None:
        for name, instead in service.config.foreign.items():
            place = f"{service.config.option}.{name}"
            sentence = f"{place} is no key that there is: {instead}"
            there = f"cfg.{service.config.option} ? {name}"
            yield block({"assertion": f"!({there})", "message": _sentence(service, sentence)})
    for path, option in service.options.items():
        if option.type == "lines":
            each = f'lib.all (matches "[^[:cntrl:]]*") (lib.splitString "\\n" cfg.{path})'
            yield block(
                {"assertion": each, "message": _sentence(service, f"{path} holds control characters")}
            )
        if option.type == "free":
            sentence = (
                f"{path} has a path without quotes, which would be copied to the store: write it in quotes"
            )
            yield block({"assertion": f"!copied cfg.{path}", "message": _sentence(service, sentence)})
        many = option.type == "paths"
        if many:
            choices = " ".join(quoted(choice) for choice in option.choices)
            yield block(
                {
                    "assertion": f"lib.subtractLists [ {choices} ] (lib.attrNames cfg.{path}) == [ ]",
                    "message": _sentence(
                        service, f"{path} has a key that is none of {', '.join(option.choices)}"
                    ),
                }
            )
        if option.secret:
            found = f"lib.any inStore (lib.attrValues cfg.{path})" if many else f"inStore cfg.{path}"
            sentence = (
                f"{path} is in the store, which everybody can read: name a file outside, as /run/secrets/NAME"
            )
            yield block({"assertion": f"!{found}", "message": _sentence(service, sentence)})


def _warnings(service: Service, words: Words) -> str:
    found = [
        block({"when": words.test(_contrary), "message": _sentence(service, one.message)})
        for one in service.assertions
        if not one.block
        for _contrary in [one.test.test if isinstance(one.test, Not) else Not(one.test)]
    ]
    if service.extras is not None:
        names = '${lib.concatStringsSep ", " lackedClouds}'
        said = f"services.{service.name}: package has no optional dependencies for {names}: see that it can reach them"
        found.append(block({"when": "isPlain && lackedClouds != [ ]", "message": f'"{said}"'}))
    told = indented(f"lib.filter (warning: warning.when) {lines(found)}")
    return f"map (warning: warning.message) (\n{told}\n)"


def _environment(service: Service, words: Words) -> str:
    found: list[tuple[str, str]] = []
    if service.commands:
        names = lines([quoted(name) for name in service.commands])
        one = 'pkgs.writeShellScriptBin name "exec ${cfg.package}/bin/${name} \\"$@\\""'
        wrapped = f"map (name: {one}) {names}"
        chosen = f"if lib.isDerivation cfg.package then [ cfg.package ] else {wrapped}"
        found.append(("systemPackages", chosen))
    if service.config is not None:
        found.append((f'etc."{service.name}/{service.config.name}".source', "configFile"))
    if service.variables:
        found.append((f'etc."{service.name}/environment".text', "variables"))
    if service.logins:
        logins = {
            name: words.directive(str(term) if isinstance(term, int) else term)
            for name, term in service.logins.items()
        }
        found.append(("variables", block(logins)))
    return block(found)


def _variables(unit: Unit, words: Words) -> dict[str, str]:
    return {name: words.variable(term) for name, term in unit.environment.items()}


def _directives(service: Service, unit: Unit, words: Words) -> dict[str, str]:
    found = {name: words.directive(term) for name, term in unit.service.items()}
    if service.variables:
        found["EnvironmentFile"] = quoted(f"/etc/{service.name}/environment")
    if "bash" in service.tools:
        # /bin of NixOS has sh alone.  The whole folder: for one file systemd would make an empty one, for everybody.
        found["BindReadOnlyPaths"] = '"${pkgs.bash}/bin:/bin"'
    return found


def common(service: Service, words: Words) -> dict[str, dict[str, str]]:
    """What all units have in common, of their variables and directives; nothing where there is one unit."""
    if len(service.units) < 2:
        return {}
    tables = {
        "environment": [_variables(unit, words) for unit in service.units],
        "serviceConfig": [_directives(service, unit, words) for unit in service.units],
    }
    return {
        name: {key: said for key, said in first.items() if all(one.get(key) == said for one in rest)}
        for name, (first, *rest) in tables.items()
    }


def path(service: Service, words: Words) -> str:
    """What is on the path of each unit, beside what NixOS puts there."""
    always = lines(["cfg.package", *(f"pkgs.{tool}" for tool in service.tools)])
    more = [f"lib.optional {argument(words.test(test))} pkgs.{tool}" for tool, test in service.clouds]
    return "\n++ ".join([always, *more])


def _unit(service: Service, unit: Unit, words: Words) -> str:
    shared = common(service, words)
    made = {"description": quoted(unit.description)}
    if unit.timer is None:
        made["wantedBy"] = '[ "multi-user.target" ]'
    made |= {
        name: words.directive(told) for name, told in (("after", unit.after), ("wants", unit.wants)) if told
    }
    made["path"] = "path" if shared else path(service, words)
    made["environment"] = _beside("environment", _variables(unit, words), shared)
    if unit.unit:
        made["unitConfig"] = block({key: words.directive(term) for key, term in unit.unit.items()})
    made["serviceConfig"] = _beside("serviceConfig", _directives(service, unit, words), shared)
    # A timer's service reads its files each time it starts.
    if unit.timer is None and service.config is not None:
        made["restartTriggers"] = lines(["configFile", "variables"])
    return _when(unit, words, block(made))


def _beside(name: str, own: Mapping[str, str], shared: Mapping[str, Mapping[str, str]]) -> str:
    """A table of a unit: what all have, by its name, and what it has for itself."""
    if name not in shared:
        return block(own)
    rest = {key: said for key, said in own.items() if shared[name].get(key) != said}
    return f"{name} // {block(rest)}" if rest else name


def _timer(unit: Unit, words: Words) -> str:
    config = {name: words.directive(term) for name, term in (unit.timer or {}).items()}
    made = {
        "description": quoted(f"{unit.description}, again and again"),
        "wantedBy": '[ "timers.target" ]',
        "timerConfig": block(config),
    }
    return _when(unit, words, block(made))


def _when(unit: Unit, words: Words, made: str) -> str:
    return made if unit.when == ALWAYS else f"mkIf {argument(words.test(unit.when))} {made}"


def _sudo(service: Service) -> str:
    """Rules of sudoers(5): these words with these units, and nothing else."""
    people = f"cfg.{service.administrators}"
    command = {
        "command": '"/run/current-system/sw/bin/systemctl ${words}"',
        "options": '[ "NOPASSWD" ]',
    }
    rule = {
        "users": people,
        "runAs": quoted("root"),
        "commands": f"map (words: {block(command)}) permitted",
    }
    return f"lib.optional ({people} != [ ] && units != [ ]) {block(rule)}"


def permitted(service: Service, words: Words) -> str:
    """The definition of what administrators may say to systemctl."""
    found = []
    for unit in service.units:
        names = lines([quoted(name) for name in unit.files])
        here = unit.when == ALWAYS
        found.append(names if here else f"lib.optionals {argument(words.test(unit.when))} {names}")
    units = found[0] if len(found) == 1 else "\n" + indented("\n++ ".join(found))
    said = lines([f'"{verb} ${{unit}}"' for verb in VERBS])
    return f"units ={units if units[0] == chr(10) else f' {units}'};\n\npermitted = lib.concatMap (unit: {said}) units;"
