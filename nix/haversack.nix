# haversack mirror as services of NixOS.
# Made by `python -m haversack.services.nix haversack`: edit src/haversack/services, not this.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkIf mkOption types;

  cfg = config.services.haversack;

  # A path of Nix that is no text would be copied to the store.
  absolutePath = types.strMatching "(/\\.{0,2}[A-Za-z0-9_@=,+-][A-Za-z0-9_@=,.+-]*)+" // {
    description = "absolute path in quotes, of letters, digits and _@=,.+-, without . or .. and without / at its end";
  };

  word = types.strMatching "[A-Za-z0-9_@:=,.+/~][A-Za-z0-9_@:=,.+/~-]*" // {
    description = "word of letters, digits and _@:=,.+/~-";
  };

  matches = pattern: given: builtins.match pattern (toString given) != null;

  strongGroup = "root|adm|admin|disk|docker|incus-admin|kmem|kvm|libvirt|lxd|mem|microk8s|nixbld|podman|shadow|staff|sudo|systemd-journal|wheel";
  userName = "[a-z_][a-z0-9_-]{0,30}";
  sharedFolder = "/[^/]+|/var/[^/]+|/var/(run|spool|mail|named)/.*|/var/www/html(/.*)?|/(usr|boot|dev|proc|sys|run|nix|etc|bin|sbin|lib|lib32|lib64|libx32)/.*|/var/(lib|log|cache)/(AccountsService|NetworkManager|acme|alertmanager|apache2|apt|audit|bluetooth|calico|ceph|chrony|cilium|cloud|cni|consul|containerd|containers|cups|dbus|dhcp|dnf|docker|dovecot|dpkg|elasticsearch|etcd|exim|exim4|fail2ban|flatpak|gdm3|gitlab|grafana|haproxy|httpd|incus|influxdb|iscsi|jenkins|journal|k0s|k3s|kafka|kubelet|kubernetes|libvirt|logrotate|longhorn|lxc|lxd|machines|mariadb|minio|mongodb|munge|mysql|named|nfs|nginx|nixos|nixos-containers|nomad|ntp|openvpn|pam|pgsql|pods|polkit-1|postfix|postgresql|private|prometheus|puppet|rabbitmq|rancher|redis|rpm|rpm-state|rsyslog|samba|selinux|slurm|slurm-llnl|snapd|squid|ssh|sss|sssd|sudo|sysstat|systemd|tailscale|tftpboot|tor|tuned|ucf|unbound|vault|yum)(/.*)?|/opt/haversack(/.*)?|/var/(lib|log|cache)/skypilot(/.*)?";
  unseenPlace = "/(home|root|run/user|tmp|var/tmp)(/.*)?";
  hostAddress = "((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*|([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\\.)*[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?";

  inStore = file: file != null && lib.hasPrefix builtins.storeDir file;

  host = if matches ".*:.*" cfg.host then "[${cfg.host}]" else cfg.host;
  metricsHost =
    if matches ".*:.*" cfg.metrics.host then "[${cfg.metrics.host}]" else cfg.metrics.host;

  units = [ "haversack.service" ];

  permitted = lib.concatMap (unit: [
    "start ${unit}"
    "stop ${unit}"
    "restart ${unit}"
    "status --no-pager ${unit}"
  ]) units;
in
{
  options.services.haversack = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to serve the site's store.";
    };

    package = mkOption {
      type = types.either types.package absolutePath;
      default = pkgs.haversack or (throw "services.haversack.package: name a prefix or add an overlay");
      defaultText = lib.literalExpression "pkgs.haversack";
      example = "/opt/haversack";
      description = "haversack: a package, or the prefix it was installed to.";
    };

    user = mkOption {
      type = word;
      default = "haversack";
      description = "The user that serves; made if this is the default.";
    };

    group = mkOption {
      type = word;
      default = "haversack";
      description = "The group of that user; made if this is the default.";
    };

    store = mkOption {
      type = absolutePath;
      default = "/var/lib/haversack/store";
      description = "The store to serve; nothing is written to it.";
    };

    host = mkOption {
      type = word;
      default = "127.0.0.1";
      description = "The address it listens at.";
    };

    port = mkOption {
      type = types.ints.between 1 65535;
      default = 8090;
      description = "Its port.";
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to open that port in the firewall.";
    };

    tls = {
      certificate = mkOption {
        type = types.nullOr absolutePath;
        default = null;
        example = "/etc/ssl/mirror.pem";
        description = ''
          Certificate of this machine (PEM, with its chain); only root needs to read it.
        '';
      };

      key = mkOption {
        type = types.nullOr absolutePath;
        default = null;
        example = "/run/secrets/mirror.key";
        description = "Key of the certificate; only root needs to read it.";
      };
    };

    auth = mkOption {
      type = types.nullOr absolutePath;
      default = null;
      example = "/run/secrets/haversack-users.toml";
      description = "File with users and rules (`haversack auth`); only root needs to read it.";
    };

    metrics = {
      host = mkOption {
        type = word;
        default = "127.0.0.1";
        description = "The address metrics are given at.";
      };

      port = mkOption {
        type = types.nullOr (types.ints.between 1 65535);
        default = null;
        example = 9091;
        description = "A port of their own for metrics; without it there are none.";
      };
    };

    administrators = mkOption {
      type = types.listOf word;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may start, stop, restart and look at it with sudo.";
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.user != "root";
        message = "services.haversack: user is root: serving needs no rights, name a user of its own";
      }
      {
        assertion = !matches strongGroup cfg.group;
        message = "services.haversack: group is ${toString cfg.group}, which may do more than serving needs: name a group of its own";
      }
      {
        assertion = matches userName cfg.user;
        message = "services.haversack: user is ${toString cfg.user}: a name has small letters, digits, _ and - only";
      }
      {
        assertion = matches userName cfg.group;
        message = "services.haversack: group is ${toString cfg.group}: a name has small letters, digits, _ and - only";
      }
      {
        assertion = lib.all (matches "[a-z_][a-z0-9_.-]*") cfg.administrators;
        message = "services.haversack: administrators holds what is no name of a user: small letters, digits, _, - and dots only";
      }
      {
        assertion = !matches sharedFolder cfg.store;
        message = "services.haversack: store is ${toString cfg.store}, which others use too: name a folder of its own, as in /var/lib";
      }
      {
        assertion = !matches unseenPlace cfg.store;
        message = "services.haversack: store is ${toString cfg.store}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.package;
        message = "services.haversack: package is ${toString cfg.package}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = matches hostAddress cfg.host;
        message = "services.haversack: host is ${toString cfg.host}: write an address, as 127.0.0.1, 0.0.0.0 or ::, or a name, without a port";
      }
      {
        assertion = matches hostAddress cfg.metrics.host;
        message = "services.haversack: metrics.host is ${toString cfg.metrics.host}: write an address, as 127.0.0.1, 0.0.0.0 or ::, or a name, without a port";
      }
      {
        assertion = cfg.port >= 1024;
        message = "services.haversack: port is ${toString cfg.port}: ports below 1024 belong to root, put a proxy or a rule of the firewall before it";
      }
      {
        assertion = cfg.metrics.port != null -> cfg.metrics.port >= 1024;
        message = "services.haversack: metrics.port is ${toString cfg.metrics.port}: ports below 1024 belong to root, put a proxy or a rule of the firewall before it";
      }
      {
        assertion = cfg.tls.certificate != null -> cfg.tls.key != null;
        message = "services.haversack: tls.certificate needs tls.key";
      }
      {
        assertion = cfg.tls.key != null -> cfg.tls.certificate != null;
        message = "services.haversack: tls.key needs tls.certificate";
      }
      {
        assertion = cfg.port != cfg.metrics.port;
        message = "services.haversack: port and metrics.port are both ${toString cfg.port}: two servers cannot share a port";
      }
      {
        assertion = !inStore cfg.tls.key;
        message = "services.haversack: tls.key is in the store, which everybody can read: name a file outside, as /run/secrets/NAME";
      }
      {
        assertion = !inStore cfg.auth;
        message = "services.haversack: auth is in the store, which everybody can read: name a file outside, as /run/secrets/NAME";
      }
    ];

    warnings = map (warning: warning.message) (
      lib.filter (warning: warning.when) [
        {
          when = cfg.openFirewall && matches "127\\.[0-9.]+|localhost|::1" cfg.host;
          message = "services.haversack: openFirewall opens port ${toString cfg.port}, where nothing but this machine is listened to: host is ${toString cfg.host}";
        }
      ]
    );

    users.users.haversack = mkIf (cfg.user == "haversack") {
      isSystemUser = true;
      group = cfg.group;
      home = cfg.store;
      description = "haversack mirror";
    };

    users.groups.haversack = mkIf (cfg.group == "haversack") { };

    environment = {
      systemPackages =
        if lib.isDerivation cfg.package then
          [ cfg.package ]
        else
          map (name: pkgs.writeShellScriptBin name "exec ${cfg.package}/bin/${name} \"$@\"") [ "haversack" ];
    };

    systemd.tmpfiles.rules = [ "d '${cfg.store}' 0755 - - -" ];

    systemd.services = {
      haversack = {
        description = "The site's mirror, served by haversack";
        wantedBy = [ "multi-user.target" ];
        after = [ "network-online.target" ];
        wants = [ "network-online.target" ];
        path = [ cfg.package ];
        environment = {
          HOME = cfg.store;
          PYTHONDONTWRITEBYTECODE = "1";
        };
        unitConfig = {
          StartLimitIntervalSec = 0;
        };
        serviceConfig = {
          Type = "exec";
          ExecStart = lib.concatStrings [
            "${cfg.package}/bin/haversack serve --store ${cfg.store} --listen ${host}:${toString cfg.port}"
            (lib.optionalString (cfg.tls.certificate != null) " --tls-cert %d/tls-certificate")
            (lib.optionalString (cfg.tls.key != null) " --tls-key %d/tls-key")
            (lib.optionalString (cfg.auth != null) " --auth %d/auth")
            (lib.optionalString (
              cfg.metrics.port != null
            ) " --metrics-listen ${metricsHost}:${toString cfg.metrics.port}")
          ];
          ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
          User = cfg.user;
          Group = cfg.group;
          LoadCredential =
            lib.optional (cfg.tls.certificate != null) "tls-certificate:${cfg.tls.certificate}"
            ++ lib.optional (cfg.tls.key != null) "tls-key:${cfg.tls.key}"
            ++ lib.optional (cfg.auth != null) "auth:${cfg.auth}";
          Restart = "on-failure";
          RestartSec = 5;
          RestartSteps = 6;
          RestartMaxDelaySec = "5min";
          TimeoutStopSec = 45;
          LimitNOFILE = 65536;
          UMask = "0077";
          NoNewPrivileges = true;
          CapabilityBoundingSet = "";
          AmbientCapabilities = "";
          ProtectSystem = "strict";
          ProtectHome = true;
          PrivateTmp = true;
          PrivateDevices = true;
          ProtectProc = "invisible";
          ProtectKernelTunables = true;
          ProtectKernelModules = true;
          ProtectKernelLogs = true;
          ProtectControlGroups = true;
          ProtectClock = true;
          ProtectHostname = true;
          RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX";
          RestrictNamespaces = true;
          RestrictRealtime = true;
          RestrictSUIDSGID = true;
          LockPersonality = true;
          RemoveIPC = true;
          SystemCallArchitectures = "native";
          SystemCallFilter = "@system-service";
          SystemCallErrorNumber = "EPERM";
          LogRateLimitIntervalSec = "30s";
          LogRateLimitBurst = 10000;
          MemoryDenyWriteExecute = true;
        };
      };
    };

    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall cfg.port;

    security.sudo.extraRules = lib.optional (cfg.administrators != [ ] && units != [ ]) {
      users = cfg.administrators;
      runAs = "root";
      commands = map (words: {
        command = "/run/current-system/sw/bin/systemctl ${words}";
        options = [ "NOPASSWD" ];
      }) permitted;
    };
  };
}
