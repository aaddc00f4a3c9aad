# A mirror and a control machine in virtual machines that have no way out: the mirror gives what
# crossed, and SkyPilot takes packages from nowhere else. Where haversack is developed no virtual
# machine can run: there this is only evaluated, and its script compiled.
{ self, pkgs }:

let
  # Two tiny wheels, packed as for a site, with no network. Packing needs py-rattler: where nixpkgs
  # has none, an overlay must bring it.
  python = pkgs.python3.withPackages (p: [ (p.toPythonModule pkgs.haversack) ]);
  bundle =
    pkgs.runCommand "bundle"
      {
        nativeBuildInputs = [ python ];
      }
      ''
        export HOME=$TMPDIR PYTHONPATH=${self}
        python -c 'from pathlib import Path; from tests.support.tiny import tiny_bundle; tiny_bundle(Path("tiny"))'
        cp -r tiny/bundle $out
      '';
in
pkgs.testers.runNixOSTest {
  name = "air-gap";

  nodes = {
    mirror = {
      imports = [ self.nixosModules.haversack ];
      services.haversack = {
        enable = true;
        host = "0.0.0.0";
        openFirewall = true;
        tls = {
          certificate = "/run/secrets/mirror.pem";
          key = "/run/secrets/mirror.key";
        };
        metrics.port = 9092;
      };
      environment.systemPackages = [
        pkgs.curl
        pkgs.openssl
        pkgs.prometheus.cli
      ];
    };

    control = {
      imports = [ self.nixosModules.skypilot ];
      virtualisation = {
        cores = 2;
        memorySize = 4096;
      };
      services.skypilot = {
        enable = true;
        mirror = "https://mirror:8090";
        caFile = "/etc/ssl/site-ca.pem";
        monitoring.enable = true;
      };
      environment.systemPackages = [
        pkgs.curl
        (pkgs.python3.withPackages (p: [ p.pip ]))
      ];
    };
  };

  testScript = ''
    start_all()

    with subtest("The mirror waits for its certificate and its store, and then serves"):
        mirror.succeed("install -d -m 0700 /run/secrets")
        mirror.succeed(
            "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=mirror -addext subjectAltName=DNS:mirror"
            " -keyout /run/secrets/mirror.key -out /run/secrets/mirror.pem"
        )
        mirror.succeed("haversack receive ${bundle} --store /var/lib/haversack/store")
        mirror.wait_until_succeeds("curl --fail --silent --insecure https://127.0.0.1:8090/healthz", timeout=180)

    with subtest("What it serves nobody can write to, and its key nobody can read"):
        mirror.succeed("systemd-analyze security --no-pager --threshold=20 haversack.service")
        mirror.succeed("systemctl show -p User --value haversack.service | grep -qx haversack")
        mirror.fail("su -s /bin/sh haversack -c 'touch /var/lib/haversack/store/x'")
        mirror.fail("su -s /bin/sh haversack -c 'cat /run/secrets/mirror.key'")
        mirror.succeed("curl --fail --silent http://127.0.0.1:9092/metrics | promtool check metrics")

    with subtest("The control machine has no way out"):
        control.wait_for_unit("network-online.target")
        control.fail("curl --silent --max-time 5 http://192.0.2.1/")

    with subtest("It takes packages from the mirror, by the site's certificate"):
        certificate = mirror.succeed("cat /run/secrets/mirror.pem")
        control.succeed(f"cat > /etc/ssl/site-ca.pem <<'END'\n{certificate}\nEND")
        control.succeed("systemctl restart skypilot-web-ui.service")
        control.succeed(
            "pip download --no-deps --dest /tmp --cert /etc/ssl/site-ca.pem"
            " --index-url https://mirror:8090/pypi/simple/ alpha"
        )
        told = control.succeed("systemctl show -p Environment skypilot-web-ui.service")
        assert "UV_DEFAULT_INDEX=https://mirror:8090/pypi/simple/" in told
        assert "SKYPILOT_DISABLE_USAGE_COLLECTION=1" in told

    with subtest("SkyPilot is healthy all the same, and so are its metrics"):
        control.wait_until_succeeds("curl --fail --silent http://127.0.0.1:8080/api/health", timeout=300)
        control.wait_until_succeeds("curl --fail --silent http://127.0.0.1:9090/metrics | grep -q '^skypilot_up 1'")
        control.succeed("systemctl start skypilot-cluster-manager.service")

    with subtest("A mirror that is away takes nothing down with it"):
        mirror.succeed("systemctl stop haversack.service")
        control.succeed("curl --fail --silent http://127.0.0.1:8080/api/health")
  '';
}
