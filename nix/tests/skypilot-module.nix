# SkyPilot's module in virtual machines: basic installation, each service, web UI, monitoring,
# custom configuration, security and permissions, and the `sky` command. Where haversack is
# developed no virtual machine can run: there this is only evaluated, and its script compiled.
{ self, pkgs }:

let
  machine = {
    imports = [ self.nixosModules.skypilot ];
    virtualisation = {
      cores = 2;
      memorySize = 4096;
    };
    users.users.alice.isNormalUser = true;
    users.users.bob.isNormalUser = true;
    environment.systemPackages = [
      pkgs.curl
      pkgs.jq
      pkgs.prometheus.cli
    ];
  };
in
pkgs.testers.runNixOSTest {
  name = "skypilot-module";

  nodes = {
    # As little as there can be.
    minimal = {
      imports = [ machine ];
      services.skypilot.enable = true;
    };

    # As much as there can be on one machine.
    full = {
      imports = [ machine ];
      services.skypilot = {
        enable = true;
        webUI = {
          host = "0.0.0.0";
          port = 8081;
          openFirewall = true;
        };
        cluster = {
          autoStop = 60;
          defaultInstanceType = "m5.large";
          defaultRegion = "us-west-2";
        };
        monitoring = {
          enable = true;
          host = "0.0.0.0";
          metricsPort = 9091;
        };
        config.allowed_clouds = [ "aws" ];
        cloudCredentials.aws = "/run/secrets/aws-credentials";
        extraEnvironment = "export AWS_PROFILE=skypilot";
        administrators = [ "alice" ];
      };
    };

    # Places, names and ports of one's own, and a server elsewhere.
    custom = {
      imports = [ machine ];
      users.users.ml = {
        isSystemUser = true;
        group = "research";
      };
      users.groups.research = { };
      services.skypilot = {
        enable = true;
        user = "ml";
        group = "research";
        stateDir = "/srv/sky/state";
        configDir = "/srv/sky/config";
        logsDir = "/srv/sky/logs";
        cacheDir = "/srv/sky/cache";
        enableWebUI = false;
        endpoint = "http://full:8081";
      };
    };

    # Users, folders and configuration, and nothing that runs.
    off = {
      imports = [ machine ];
      services.skypilot = {
        enable = true;
        systemdServices = false;
        cluster.autoStop = 60;
        monitoring.enable = true;
      };
    };
  };

  testScript = ''
    start_all()

    with subtest("Basic installation: enabling is enough"):
        minimal.wait_for_unit("skypilot-web-ui.service")
        minimal.wait_until_succeeds("curl --fail --silent http://127.0.0.1:8080/api/health", timeout=300)
        minimal.succeed("systemctl is-active skypilot-cluster-manager.timer")
        minimal.fail("systemctl cat skypilot-monitor.service")
        minimal.fail("systemctl cat skypilot-autostop.timer")

    with subtest("The sky command talks to that server, and starts none of its own"):
        minimal.succeed("su - alice -c 'sky --version'")
        minimal.succeed("su - alice -c 'sky status'")
        minimal.fail("pgrep -u alice -f sky.server")

    with subtest("Only this machine reaches it"):
        full.wait_for_unit("network-online.target")
        full.fail("curl --fail --silent --max-time 5 http://minimal:8080/api/health")

    with subtest("A credential that is missing keeps the server down, and it comes up when the file is there"):
        full.wait_until_succeeds("systemctl show -p NRestarts skypilot-web-ui.service | grep -v =0", timeout=120)
        full.succeed("install -d -m 0700 /run/secrets")
        full.succeed("umask 077; echo '[skypilot]' > /run/secrets/aws-credentials")
        full.wait_until_succeeds("curl --fail --silent http://127.0.0.1:8081/api/health", timeout=600)

    with subtest("Web UI: the dashboard answers on the port that was opened"):
        minimal.succeed("curl --fail --silent --location http://full:8081/dashboard/ | grep -qi '<html'")

    with subtest("Cluster manager: it asks the server and keeps what it saw"):
        full.succeed("systemctl start skypilot-cluster-manager.service")
        full.succeed("jq -e .refreshed_at /var/cache/skypilot/clusters.json")

    with subtest("Autostop: it runs against the server, with nothing to do"):
        full.succeed("systemctl is-active skypilot-autostop.timer")
        full.succeed("systemctl start skypilot-autostop.service")

    with subtest("Monitoring: metrics that Prometheus takes, on a port that nobody asked to open"):
        full.wait_for_unit("skypilot-monitor.service")
        full.wait_for_open_port(9091)
        full.succeed("curl --fail --silent http://127.0.0.1:9091/metrics | promtool check metrics")
        full.succeed("curl --fail --silent http://127.0.0.1:9091/metrics | grep -q '^skypilot_up 1'")
        minimal.fail("curl --fail --silent --max-time 5 http://full:9091/metrics")

    with subtest("Custom configuration: it is what SkyPilot reads"):
        full.succeed("jq -e '.allowed_clouds == [\"aws\"]' /var/lib/skypilot/config/config.yaml")
        full.succeed("jq -e '.admin_policy' /var/lib/skypilot/config/config.yaml")
        full.succeed("grep -qx AWS_PROFILE=skypilot /etc/skypilot/environment")
        for folder in ("state", "config", "logs", "cache"):
            custom.succeed(f"test $(stat -c %U:%G /srv/sky/{folder}) = ml:research")
        custom.fail("systemctl cat skypilot-web-ui.service")
        custom.succeed("systemctl start skypilot-cluster-manager.service")
        custom.succeed("su - alice -c 'sky status'")

    with subtest("Without services nothing runs"):
        off.wait_for_unit("multi-user.target")
        off.fail("systemctl list-unit-files --no-legend 'skypilot-*' | grep .")
        off.succeed("id skypilot")
        off.succeed("test -L /var/lib/skypilot/config/config.yaml")

    with subtest("Permissions: folders are the service's, credentials are root's"):
        for folder, mode in (
            ("/var/lib/skypilot", "700"),
            ("/var/lib/skypilot/config", "750"),
            ("/var/log/skypilot", "750"),
            ("/var/log/skypilot/requests", "750"),
            ("/var/cache/skypilot", "750"),
        ):
            full.succeed(f"test \"$(stat -c '%U %G %a' {folder})\" = 'skypilot skypilot {mode}'")
        full.fail("su - bob -c 'cat /run/secrets/aws-credentials'")
        full.fail("su - bob -c 'cat /run/credentials/skypilot-web-ui.service/aws'")
        full.fail("su - bob -c 'ls /var/lib/skypilot'")

    with subtest("Security: each service is shut in"):
        for unit in ("web-ui", "cluster-manager", "autostop", "monitor"):
            full.succeed(f"systemd-analyze security --no-pager --threshold=20 skypilot-{unit}.service")
            full.succeed(f"systemctl show -p User --value skypilot-{unit}.service | grep -qx skypilot")

    with subtest("Administrators may do what is listed, and others nothing"):
        full.succeed("su - alice -c 'sudo -n systemctl restart skypilot-monitor.service'")
        full.fail("su - alice -c 'sudo -n systemctl restart sshd.service'")
        full.fail("su - alice -c 'sudo -n systemctl edit skypilot-monitor.service'")
        full.fail("su - bob -c 'sudo -n systemctl restart skypilot-monitor.service'")

    with subtest("A server that dies comes back, and a stop leaves nothing behind"):
        minimal.succeed("systemctl kill --signal=KILL skypilot-web-ui.service")
        minimal.wait_until_succeeds("curl --fail --silent http://127.0.0.1:8080/api/health", timeout=300)
        minimal.succeed("timeout 90 systemctl stop skypilot-web-ui.service")
        minimal.succeed("test $(systemctl show -p Result --value skypilot-web-ui.service) = success")
        minimal.fail("pgrep -u skypilot")
  '';
}
