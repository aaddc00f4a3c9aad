{
  description = "haversack: machine learning where there is no internet";

  # By its name in the registry of whoever evaluates: a site pins the nixpkgs that it carried in.
  # There is no flake.lock, which would name one that nobody tested here and that no site has.
  inputs.nixpkgs.url = "nixpkgs";

  outputs =
    { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      each =
        made:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (
          system: made (nixpkgs.legacyPackages.${system}.extend self.overlays.default)
        );
    in
    {
      nixosModules = {
        skypilot = ./nix/skypilot.nix;
        haversack =
          { lib, pkgs, ... }:
          {
            imports = [ ./nix/haversack.nix ];
            services.haversack.package =
              lib.mkDefault
                self.packages.${pkgs.stdenv.hostPlatform.system}.haversack;
          };
        default.imports = [
          self.nixosModules.skypilot
          self.nixosModules.haversack
        ];
      };

      # SkyPilot itself is in nixpkgs, as pkgs.skypilot.
      overlays.default = final: _: { haversack = final.callPackage ./nix/package.nix { }; };

      packages = each (pkgs: {
        inherit (pkgs) haversack;
        default = pkgs.haversack;
      });

      # Where haversack is developed no virtual machine can run: there these are only evaluated.
      checks.x86_64-linux =
        let
          pkgs = nixpkgs.legacyPackages.x86_64-linux.extend self.overlays.default;
        in
        {
          skypilot-module = import ./nix/tests/skypilot-module.nix { inherit self pkgs; };
          air-gap = import ./nix/tests/air-gap.nix { inherit self pkgs; };
        };
    };
}
