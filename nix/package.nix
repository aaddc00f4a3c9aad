# haversack of this source, with what nixpkgs has of what it needs.
{
  lib,
  python3,
}:

let
  packages = python3.pkgs;

  # Stores in buckets need the one, and conda environments the other: without them the rest works.
  optional = lib.filter (name: packages ? ${name}) [
    "obstore"
    "py-rattler"
  ];
in
packages.buildPythonApplication {
  pname = "haversack";
  version = lib.head (
    builtins.match ".*__version__ = \"([^\"]*)\".*" (builtins.readFile ../src/haversack/__init__.py)
  );
  pyproject = true;

  src = lib.fileset.toSource {
    root = ../.;
    fileset = lib.fileset.unions [
      ../src
      ../pyproject.toml
      ../README.md
      ../LICENSE
    ];
  };

  build-system = [ packages.hatchling ];

  dependencies = [
    packages.click
    packages.packaging
    packages.ruamel-yaml
    packages.tqdm
    packages.urllib3
    packages.uv
  ]
  ++ map (name: packages.${name}) optional;

  # The versions are those of nixpkgs.
  pythonRelaxDeps = true;
  pythonRemoveDeps = lib.subtractLists optional [
    "obstore"
    "py-rattler"
  ];
  pythonImportsCheck = [ "haversack.cli" ];

  meta = {
    description = "Machine learning where there is no internet: lock, pack, carry, verify, install";
    license = lib.licenses.asl20;
    mainProgram = "haversack";
    platforms = lib.platforms.linux;
  };
}
