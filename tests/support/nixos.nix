# What NixOS declares of what our modules set, with its types: to evaluate them with nixpkgs' lib and nothing else.
{ lib }:
let
  inherit (lib) mkOption types;
  minilib = import ./minilib.nix;

  value = types.oneOf [
    types.bool
    types.int
    types.str
    types.package
  ];
  section = types.attrsOf (types.either value (types.listOf value));
  text = types.submodule {
    options = {
      text = mkOption {
        type = types.nullOr types.lines;
        default = null;
      };
      source = mkOption {
        type = types.nullOr types.package;
        default = null;
      };
    };
  };
  names = mkOption {
    type = types.listOf types.str;
    default = [ ];
  };
  table = mkOption {
    type = section;
    default = { };
  };
  unit = {
    description = mkOption { type = types.singleLineStr; };
    wantedBy = names;
  };
  service = types.submodule {
    options = unit // {
      after = names;
      wants = names;
      path = mkOption { type = types.listOf (types.either types.package types.str); };
      environment = mkOption {
        type = types.attrsOf (types.nullOr (types.either types.str types.package));
      };
      unitConfig = table;
      serviceConfig = table;
      restartTriggers = mkOption {
        type = types.listOf types.unspecified;
        default = [ ];
      };
    };
  };
  timer = types.submodule {
    options = unit // {
      timerConfig = table;
    };
  };
  user = types.submodule {
    options = {
      isSystemUser = mkOption { type = types.bool; };
      group = mkOption { type = types.str; };
      home = mkOption { type = types.str; };
      description = mkOption { type = types.passwdEntry types.str; };
    };
  };
  tables =
    type:
    mkOption {
      type = types.attrsOf type;
      default = { };
    };
in
{
  module.options = {
    assertions = mkOption { type = types.listOf types.unspecified; };
    warnings = names;
    users.users = tables user;
    users.groups = tables (types.submodule { });
    environment.systemPackages = mkOption { type = types.listOf types.package; };
    environment.etc = tables text;
    environment.variables = tables types.str;
    systemd.tmpfiles.rules = names;
    systemd.services = tables service;
    systemd.timers = tables timer;
    networking.firewall.allowedTCPPorts = mkOption { type = types.listOf types.port; };
    security.sudo.extraRules = mkOption { type = types.listOf types.attrs; };
  };

  evaluate =
    {
      module,
      name,
      given,
      others ? { },
    }:
    let
      packages = minilib.pkgs // {
        formats.json = _: {
          type = types.attrsOf types.anything;
          inherit (minilib.pkgs.formats.json { }) generate;
        };
      };
      evaluated = lib.evalModules {
        modules = [
          (import ./nixos.nix { inherit lib; }).module
          module
          { services.${name} = given; }
        ]
        ++ lib.concatLists (
          lib.mapAttrsToList (other: one: [
            one.module
            { services.${other} = one.given; }
          ]) others
        );
        specialArgs.pkgs = packages;
      };
      config = builtins.removeAttrs evaluated.config [ "services" ];
      result = {
        inherit config;
        problems = [ ];
        failed = map (one: one.message) (builtins.filter (one: !one.assertion) config.assertions);
        content = minilib.contents config.environment.etc;
      };
      tried = builtins.tryEval (builtins.deepSeq (builtins.toJSON result) result);
    in
    if tried.success then tried.value else { problems = [ "not evaluated" ]; };
}
