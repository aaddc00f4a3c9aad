# The flake with inputs of ours instead of nixpkgs: what it gives, and its virtual machines as data.
{ flake }:
let
  minilib = import ./minilib.nix;
  lib = minilib.lib // {
    genAttrs =
      names: function:
      builtins.listToAttrs (
        map (name: {
          inherit name;
          value = function name;
        }) names
      );
    head = builtins.head;
    mkDefault = value: value;
    licenses.asl20 = "Apache-2.0";
    platforms.linux = [ "x86_64-linux" ];
    fileset = {
      toSource = given: given // { outPath = "/nix/store/source"; };
      unions = map toString;
    };
  };
  packages = minilib.pkgs // {
    inherit (minilib) lib;
    curl = minilib.package "curl";
    jq = minilib.package "jq";
    openssl = minilib.package "openssl";
    prometheus.cli = minilib.package "promtool";
    stdenv.hostPlatform.system = "x86_64-linux";
    runCommand =
      name: given: text:
      minilib.package name // { inherit given text; };
    testers.runNixOSTest = test: test;
    python3 = {
      withPackages = choose: minilib.package "python3";
      pkgs =
        builtins.listToAttrs (
          map
            (name: {
              inherit name;
              value = minilib.package name;
            })
            [
              "click"
              "hatchling"
              "obstore"
              "packaging"
              "ruamel-yaml"
              "tqdm"
              "urllib3"
              "uv"
            ]
        )
        // {
          buildPythonApplication = given: minilib.package "haversack" // { inherit given; };
        };
    };
    callPackage =
      file: _:
      import file {
        inherit lib;
        inherit (packages) python3;
      };
    extend = overlay: packages // overlay packages packages;
  };
  self =
    (import flake).outputs {
      inherit self;
      nixpkgs = {
        inherit lib;
        legacyPackages = lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (_: packages);
      };
    }
    // {
      outPath = "/nix/store/00000000000000000000000000000000-source";
    };

  # What a machine imports, however deep; modules of ours are named by their files.
  imported =
    machine:
    if builtins.isPath machine then
      [ ]
    else
      [ machine ] ++ builtins.concatMap imported (machine.imports or [ ]);
  functions =
    one:
    if builtins.isFunction one then
      one {
        inherit lib;
        pkgs = packages;
      }
    else
      one;
  modules =
    machine:
    if builtins.isPath machine then
      [ (toString machine) ]
    else
      builtins.concatMap (one: modules (functions one)) (machine.imports or [ ]);
  told =
    name: machine:
    builtins.foldl' (one: other: one // other) { } (
      map (one: one.services.${name} or { }) (builtins.filter builtins.isAttrs (imported machine))
    );
  machines =
    test:
    builtins.mapAttrs (_: machine: {
      modules = modules machine;
      services = builtins.listToAttrs (
        map
          (name: {
            inherit name;
            value = minilib.evaluate {
              module = ../../nix + "/${name}.nix";
              inherit name;
              given = told name machine;
              packages = packages // {
                haversack = self.packages.x86_64-linux.haversack;
              };
            };
          })
          [
            "skypilot"
            "haversack"
          ]
      );
    }) test.nodes;
in
{
  names = builtins.mapAttrs (_: builtins.attrNames) (builtins.removeAttrs self [ "outPath" ]);
  default = modules self.nixosModules.default;
  package = (builtins.removeAttrs self.packages.x86_64-linux.haversack.given [ "src" ]) // {
    src = self.packages.x86_64-linux.haversack.given.src.fileset;
  };
  checks = builtins.mapAttrs (_: test: {
    inherit (test) name testScript;
    machines = machines test;
  }) self.checks.x86_64-linux;
}
