"""A module of NixOS, of a described service: ``python -m haversack.services.nix skypilot >nix/skypilot.nix``."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from haversack.services import haversack, skypilot
from haversack.services.description import Option, Service
from haversack.services.layout import binding, block, indented, laid, lines, prose, quoted
from haversack.services.nixconfig import common, config, path, permitted
from haversack.services.nixlang import Words, argument, terms, tests, value
from haversack.services.terms import (
    COUNTED,
    HIDDEN_KEYS,
    HIDDEN_TEXTS,
    HIDDEN_WORDS,
    Called,
    Clean,
    Holds,
    Matches,
    Named,
    Place,
)
from haversack.services.values import PATH, URL, WORD

SERVICES: Mapping[str, Service] = {"skypilot": skypilot.SERVICE, "haversack": haversack.SERVICE}


def module(service: Service) -> str:
    """The text of the module: ``services.NAME`` with every option, and what it makes of them."""
    words = Words(service)
    let = [
        f"inherit (lib) mkIf mkOption types;\n\ncfg = config.services.{service.name};",
        *_beside(service),
        *_lets(service, words),
    ]
    made = binding("config", f"mkIf cfg.enable {config(service, words)}")
    return laid(
        f"# {service.description} as services of NixOS.\n"
        f"# Made by `python -m haversack.services.nix {service.name}`: edit src/haversack/services, not this.\n"
        "{\n  config,\n  lib,\n  pkgs,\n  ...\n}:\n\nlet\n"
        + "\n\n".join(map(indented, let))
        + "\nin\n{\n"
        + indented(binding(f"options.services.{service.name}", _options(service)))
        + f"\n\n{indented(made)}\n}}\n"
    )


def _beside(service: Service) -> Iterator[str]:
    """The options of the service beside it, by its name; where only this module is imported there are none."""
    if service.beside is not None:
        name = service.beside.name
        yield f"# Its module may be imported too.\n{binding(name, f'config.services.{name} or {{ enable = false; }}')}"


_HIDES = """\
# Whether a value is called or looks like a secret, however deep it lies.
hides =
  name: given:
  if lib.isAttrs given then
    lib.any (
      inner:
      hides (
        if inner == "value" && lib.isString (given.name or null) then given.name else inner
      ) given.${inner}
    ) (lib.attrNames given)
  else if lib.isList given then
    lib.any (hides name) given
  else if given == null || lib.isBool given || toString given == "" then
    false
  else
    let
      text = lib.replaceStrings [ "\\n" "\\t" ] [ " " " " ] (toString given);
    in
    matches secretName (lib.toLower name) && !matches counted "${lib.toLower name}=${text}"
    || lib.any (pattern: matches pattern text) secretTexts
    || lib.any (pattern: matches pattern (lib.toLower text)) secretWords;"""

_COPIED = """\
# Whether a path without quotes, which Nix would copy to the store, lies in a value.
copied =
  given:
  if lib.isAttrs given then
    lib.any copied (lib.attrValues given)
  else if lib.isList given then
    lib.any copied given
  else
    builtins.isPath given;"""

_PYTHON = """\
# A package of nixpkgs has no interpreter of its own; an environment has.
isPlain = cfg.package ? overrideAttrs && !(cfg.package ? interpreter);

python =
  if cfg.package ? interpreter then
    cfg.package.interpreter
  else if isPlain then
    "${pkgs.python3.withPackages (p: [ (p.toPythonModule cfg.package) ] ++ extras)}/bin/python"
  else
    "${cfg.package}/bin/python";"""

_EXTRAS = """\
# Clouds that are asked for: by credentials, by name, or by a table of their own.
askedClouds = lib.unique (
  lib.attrNames cfg.CREDENTIALS
  ++ map lib.toLower (lib.filter lib.isString (lib.toList (cfg.CONFIG.allowed_clouds or [ ])))
  ++ lib.intersectLists CLOUDS (lib.attrNames cfg.CONFIG)
);

lackedClouds = lib.filter (cloud: !(cfg.package ? optional-dependencies.${cloud})) askedClouds;

# What nixpkgs leaves out of the package until somebody asks for it.
extras = lib.concatMap (cloud: cfg.package.optional-dependencies.${cloud} or [ ]) askedClouds;"""

_PROGRAMS = """\
programs = builtins.path {
  name = "NAME-programs";
  path = ../src/haversack/data/NAME;
  filter = path: _: lib.hasSuffix ".py" path;
};"""

_VARIABLES = """\
# Lines as systemd reads them: without `export`, comments and blanks before them.
variables = lib.concatMapStrings (line: line + "\\n") (
  lib.filter (line: line != "" && !lib.hasPrefix "#" line) (
    map (line: lib.last (builtins.match " *(export +)?(.*)" line)) (
      lib.splitString "\\n" cfg.OPTION
    )
  )
);"""


def _lets(service: Service, words: Words) -> Iterator[str]:
    """What the module needs by name: types, patterns, functions, conditions, places and files."""
    used, asked = list(dict.fromkeys(terms(service))), list(dict.fromkeys(tests(service)))
    yield "# A path of Nix that is no text would be copied to the store.\n" + _typed(
        "absolutePath",
        PATH,
        "absolute path in quotes, of letters, digits and _@=,.+-, without . or .. and without / at its end",
    )
    yield _typed("word", WORD, "word of letters, digits and _@:=,.+/~-")
    if any(option.type == "url" for option in service.options.values()):
        yield _typed("url", URL, "URL of letters, digits and _@:=,.+/~[]-")
    yield "matches = pattern: given: builtins.match pattern (toString given) != null;"
    patterns = {test.name: test.pattern for test in asked if isinstance(test, (Matches, Holds)) and test.name}
    yield "\n".join(binding(name, quoted(pattern)) for name, pattern in patterns.items())
    if any(isinstance(test, Clean) for test in asked):
        yield binding("secretName", quoted(HIDDEN_KEYS))
        yield binding("counted", quoted(COUNTED))
        yield binding("secretTexts", lines([quoted(text) for text in HIDDEN_TEXTS]))
        yield binding("secretWords", lines([quoted(text) for text in HIDDEN_WORDS]))
        yield _HIDES
    if any(option.type == "free" for option in service.options.values()):
        yield _COPIED
    if any(option.secret for option in service.options.values()):
        yield "inStore = file: file != null && lib.hasPrefix builtins.storeDir file;"
    called = [test for test in asked if isinstance(test, Called)]
    if called:
        yield "\n".join(binding(test.name, words.test(test.test)) for test in called)
    places = {term.name for term in used if isinstance(term, Place)}
    if service.extras is not None:
        credentials, free = service.extras
        own = " ".join(quoted(cloud) for cloud in (*service.options[credentials].choices, "kubernetes"))
        said = _EXTRAS.replace("CREDENTIALS", credentials).replace("CONFIG", free)
        yield said.replace("CLOUDS", f"[ {own} ]")
    if "python" in places:
        yield _PYTHON
    if "programs" in places:
        yield _PROGRAMS.replace("NAME", service.programs)
    named = [term for term in used if isinstance(term, Named)]
    if named:
        yield "\n".join(binding(term.name, words.expression(term.term)) for term in named)
    if service.config is not None:
        yield from _configured(service, words)
    if service.variables:
        yield _VARIABLES.replace("OPTION", service.variables)
    yield permitted(service, words)
    if shared := common(service, words):
        yield binding("path", path(service, words))
        yield from (binding(name, block(said)) for name, said in shared.items())


def _typed(name: str, pattern: str, description: str) -> str:
    said = block({"description": quoted(description)})
    return binding(name, f"types.strMatching {quoted(pattern)} // {said}")


def _configured(service: Service, words: Words) -> Iterator[str]:
    assert service.config is not None
    name, option = service.config.name, service.config.option
    content = f"cfg.{option}" + "".join(
        f"\n// lib.optionalAttrs {argument(words.test(when.test))} {block({key: words.expression(when.term)})}"
        for key, when in service.config.added.items()
    )
    yield "json = pkgs.formats.json { };"
    yield binding("configFile", f"json.generate {quoted(name)} (\n{indented(content)}\n)")


def _options(service: Service) -> str:
    """Options by their names, those of a table together."""
    made: dict[str, dict[str, str]] = {}
    for full, option in service.options.items():
        table, _, name = full.rpartition(".")
        made.setdefault(table or name, {})[name] = _option(option, service, 6 if table else 4)
    return block(
        {
            name: block(inner, "\n\n") if name in service.tables else inner[name]
            for name, inner in made.items()
        },
        "\n\n",
    )


def _option(option: Option, service: Service, depth: int) -> str:
    told = {"type": _type(option)}
    if option.type == "package":
        sentence = f"services.{service.name}.package: name a prefix or add an overlay"
        told["default"] = f"pkgs.{service.name} or (throw {quoted(sentence)})"
        told["defaultText"] = f"lib.literalExpression {quoted(f'pkgs.{service.name}')}"
    else:
        told["default"] = value(option.default)
    if option.example is not None:
        told["example"] = value(option.example)
    told["description"] = prose(option.description, depth + 2)
    return f"mkOption {block(told)}"


def _type(option: Option) -> str:
    match option.type:
        case "bool":
            said = "types.bool"
        case "port":
            said = "types.ints.between 1 65535"
        case "positive":
            said = f"types.ints.between 1 {option.most}"
        case "word":
            said = "word"
        case "url":
            said = "url"
        case "path":
            said = "absolutePath"
        case "package":
            said = "types.either types.package absolutePath"
        case "lines":
            said = "types.lines"
        case "words":
            said = "types.listOf word"
        case "paths":
            said = "types.attrsOf absolutePath"
        case "free":
            said = "json.type"
        case "enum":
            said = f"types.enum {lines([quoted(choice) for choice in option.choices])}"
    return f"types.nullOr {argument(said)}" if option.nullable else said


if __name__ == "__main__":
    sys.stdout.write(module(SERVICES[sys.argv[1]]))
