# Just enough of nixpkgs' lib, and of what evaluates modules, to evaluate one module of ours without nixpkgs.
#
#     evaluate { module = ./skypilot.nix; name = "skypilot"; given = { enable = true; }; }
#
# gives `problems` (options that do not exist or have wrong values) and, where there are none, `failed` (sentences of
# assertions), `warnings`, and `config`: what the module sets. `others` are modules that are imported beside it, by
# their names, with what they were given.
rec {
  type = description: check: { inherit description check; };

  types = {
    bool = type "boolean" builtins.isBool;
    lines = type "strings concatenated with newlines" builtins.isString;
    package = type "package" (value: value ? outPath);
    strMatching =
      pattern:
      type "string matching the pattern ${pattern}" (
        value: builtins.isString value && builtins.match pattern value != null
      );
    ints = {
      between =
        low: high:
        type "integer between ${toString low} and ${toString high} (both inclusive)" (
          value: builtins.isInt value && low <= value && value <= high
        );
      positive = type "positive integer, meaning >0" (value: builtins.isInt value && value > 0);
    };
    enum =
      values: type "one of ${builtins.concatStringsSep ", " values}" (value: builtins.elem value values);
    nullOr = of: type "null or ${of.description}" (value: value == null || of.check value);
    either =
      one: other:
      type "${one.description} or ${other.description}" (value: one.check value || other.check value);
    listOf =
      of: type "list of ${of.description}" (value: builtins.isList value && builtins.all of.check value);
    attrsOf =
      of:
      type "attribute set of ${of.description}" (
        value: builtins.isAttrs value && builtins.all of.check (builtins.attrValues value)
      );
  };

  lib = {
    inherit types;
    inherit (builtins)
      all
      any
      attrNames
      attrValues
      concatMap
      concatStringsSep
      filter
      isAttrs
      isBool
      isList
      isString
      replaceStrings
      ;
    mkOption = option: option // { _type = "option"; };
    mkIf = condition: content: {
      _type = "if";
      inherit condition content;
    };
    literalExpression = text: text;
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: values: if condition then values else [ ];
    optionalString = condition: text: if condition then text else "";
    optionalAttrs = condition: attributes: if condition then attributes else { };
    concatStrings = builtins.concatStringsSep "";
    concatMapStrings = function: list: builtins.concatStringsSep "" (map function list);
    splitString = by: text: builtins.filter builtins.isString (builtins.split by text);
    hasPrefix = prefix: text: builtins.substring 0 (builtins.stringLength prefix) text == prefix;
    hasSuffix =
      suffix: text:
      let
        less = builtins.stringLength text - builtins.stringLength suffix;
      in
      less >= 0 && builtins.substring less (-1) text == suffix;
    last = list: builtins.elemAt list (builtins.length list - 1);
    subtractLists = gone: builtins.filter (one: !builtins.elem one gone);
    intersectLists = kept: builtins.filter (one: builtins.elem one kept);
    unique = builtins.foldl' (
      found: one: if builtins.elem one found then found else found ++ [ one ]
    ) [ ];
    toList = value: if builtins.isList value then value else [ value ];
    mapAttrsToList =
      function: attributes: map (name: function name attributes.${name}) (builtins.attrNames attributes);
    makeLibraryPath = packages: builtins.concatStringsSep ":" (map (one: "${one}/lib") packages);
    isDerivation = value: value.type or null == "derivation";
    toLower =
      let
        letters = builtins.filter (one: one != "" && one != [ ]) (
          builtins.split "" "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
        );
        small = builtins.filter (one: one != "" && one != [ ]) (
          builtins.split "" "abcdefghijklmnopqrstuvwxyz"
        );
      in
      builtins.replaceStrings letters small;
  };

  # Packages are names: nothing is built.
  package = name: {
    type = "derivation";
    outPath = "/nix/store/00000000000000000000000000000000-${name}";
    __toString = self: self.outPath;
  };
  pkgs = {
    skypilot = package "skypilot" // {
      overrideAttrs = null;
      optional-dependencies = builtins.mapAttrs (_: map package) {
        aws = [
          "awscli"
          "boto3"
        ];
        azure = [ "azure-identity" ];
        gcp = [ "google-api-python-client" ];
        kubernetes = [ "kubernetes" ];
      };
    };
    haversack = package "haversack";
    bash = package "bash";
    coreutils = package "coreutils";
    openssh = package "openssh";
    rsync = package "rsync";
    awscli2 = package "awscli2";
    ssm-session-manager-plugin = package "ssm-session-manager-plugin";
    kubectl = package "kubectl";
    google-cloud-sdk = package "google-cloud-sdk";
    azure-cli = package "azure-cli";
    socat = package "socat";
    netcat-openbsd = package "netcat-openbsd";
    stdenv.cc.cc.lib = package "gcc-lib";
    zlib = package "zlib";
    python3.withPackages =
      choose:
      package "python3-with-${
        builtins.concatStringsSep "+" (
          map (one: builtins.substring 44 (-1) one.outPath) (choose {
            toPythonModule = one: one;
          })
        )
      }";
    writeShellScriptBin = name: text: package name // { inherit text; };
    formats.json = _: {
      type = type "JSON value" builtins.isAttrs;
      generate = name: value: package name // { content = value; };
    };
  };

  # Options with what was given and their defaults, and what is wrong with those.
  filled =
    path: options: given:
    let
      of =
        name: option:
        let
          here = "${path}.${name}";
          value = given.${name} or option.default;
        in
        if option._type or "" != "option" then
          if builtins.isAttrs (given.${name} or { }) then
            filled here option (given.${name} or { })
          else
            { problems = [ "The option `${here}' is a table." ]; }
        else if !(given ? ${name}) && !(option ? default) then
          { problems = [ "The option `${here}' is used but not defined." ]; }
        else if option.type.check value then
          {
            inherit value;
            problems = [ ];
          }
        else
          {
            problems = [ "A definition for option `${here}' is not of type `${option.type.description}'." ];
          };
      each = builtins.mapAttrs of options;
      unknown = builtins.filter (name: !(options ? ${name})) (builtins.attrNames given);
    in
    {
      value = builtins.mapAttrs (_: one: one.value) each;
      problems =
        map (name: "The option `${path}.${name}' does not exist.") unknown
        ++ builtins.concatMap (one: one.problems) (builtins.attrValues each);
    };

  # What is set, without what stands under conditions that do not hold.
  settled =
    value:
    if value._type or "" == "if" then
      settled value.content
    else if builtins.isAttrs value && !(value ? outPath) then
      builtins.mapAttrs (_: settled) (
        builtins.removeAttrs value (
          builtins.filter (name: value.${name}._type or "" == "if" && !value.${name}.condition) (
            builtins.attrNames value
          )
        )
      )
    else if builtins.isList value then
      map settled value
    else
      value;

  evaluate =
    {
      module,
      name,
      given,
      others ? { },
      packages ? pkgs,
    }:
    let
      beside = builtins.mapAttrs (
        other: one: (filled "services.${other}" (documented one.module other) one.given).value
      ) others;
      read = import module {
        inherit lib;
        pkgs = packages;
        config.services = beside // {
          ${name} = found.value;
        };
      };
      found = filled "services.${name}" read.options.services.${name} given;
      config = if read.config.condition then settled read.config.content else null;
    in
    if found.problems != [ ] then
      { inherit (found) problems; }
    else
      {
        problems = [ ];
        failed = map (one: one.message) (
          builtins.filter (one: !one.assertion) (if config == null then [ ] else config.assertions)
        );
        inherit config;
        content = contents (if config == null then { } else config.environment.etc or { });
      };

  # What is in files of /etc.
  contents = builtins.mapAttrs (
    _: file: if file.text or null == null then file.source.content else file.text
  );

  # Every option as it is documented.
  documented =
    module: name:
    (import module {
      inherit lib pkgs;
      config.services.${name} = { };
    }).options.services.${name};
}
