# SkyPilot as services of NixOS.
# Made by `python -m haversack.services.nix skypilot`: edit src/haversack/services, not this.
{
  config,
  lib,
  pkgs,
  ...
}:

let
  inherit (lib) mkIf mkOption types;

  cfg = config.services.skypilot;

  # Its module may be imported too.
  haversack = config.services.haversack or { enable = false; };

  # A path of Nix that is no text would be copied to the store.
  absolutePath = types.strMatching "(/\\.{0,2}[A-Za-z0-9_@=,+-][A-Za-z0-9_@=,.+-]*)+" // {
    description = "absolute path in quotes, of letters, digits and _@=,.+-, without . or .. and without / at its end";
  };

  word = types.strMatching "[A-Za-z0-9_@:=,.+/~][A-Za-z0-9_@:=,.+/~-]*" // {
    description = "word of letters, digits and _@:=,.+/~-";
  };

  url = types.strMatching "[A-Za-z0-9_@:=,.+/~][]A-Za-z0-9_@:=,.+/~[-]*" // {
    description = "URL of letters, digits and _@:=,.+/~[]-";
  };

  matches = pattern: given: builtins.match pattern (toString given) != null;

  strongGroup = "root|adm|admin|disk|docker|incus-admin|kmem|kvm|libvirt|lxd|mem|microk8s|nixbld|podman|shadow|staff|sudo|systemd-journal|wheel";
  userName = "[a-z_][a-z0-9_-]{0,30}";
  sharedFolder = "/[^/]+|/var/[^/]+|/var/(run|spool|mail|named)/.*|/var/www/html(/.*)?|/(usr|boot|dev|proc|sys|run|nix|etc|bin|sbin|lib|lib32|lib64|libx32)/.*|/var/(lib|log|cache)/(AccountsService|NetworkManager|acme|alertmanager|apache2|apt|audit|bluetooth|calico|ceph|chrony|cilium|cloud|cni|consul|containerd|containers|cups|dbus|dhcp|dnf|docker|dovecot|dpkg|elasticsearch|etcd|exim|exim4|fail2ban|flatpak|gdm3|gitlab|grafana|haproxy|httpd|incus|influxdb|iscsi|jenkins|journal|k0s|k3s|kafka|kubelet|kubernetes|libvirt|logrotate|longhorn|lxc|lxd|machines|mariadb|minio|mongodb|munge|mysql|named|nfs|nginx|nixos|nixos-containers|nomad|ntp|openvpn|pam|pgsql|pods|polkit-1|postfix|postgresql|private|prometheus|puppet|rabbitmq|rancher|redis|rpm|rpm-state|rsyslog|samba|selinux|slurm|slurm-llnl|snapd|squid|ssh|sss|sssd|sudo|sysstat|systemd|tailscale|tftpboot|tor|tuned|ucf|unbound|vault|yum)(/.*)?|/opt/haversack(/.*)?|/var/(lib|log|cache)/haversack(/.*)?";
  unseenPlace = "/(home|root|run/user|tmp|var/tmp)(/.*)?";
  hostAddress = "((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*|([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?\\.)*[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?";
  loopback = "127\\.[0-9.]+|localhost|::1";
  address = "https?://([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*])(:([1-9][0-9]?[0-9]?[0-9]?|[1-5][0-9][0-9][0-9][0-9]|6[0-4][0-9][0-9][0-9]|65[0-4][0-9][0-9]|655[0-2][0-9]|6553[0-5]))?(/[^/@]+)*/?";
  proxyAddress = "https?://([A-Za-z0-9_.-]+|\\[[0-9A-Fa-f]*:[0-9A-Fa-f:.]*]):([1-9][0-9]?[0-9]?[0-9]?|[1-5][0-9][0-9][0-9][0-9]|6[0-4][0-9][0-9][0-9]|65[0-4][0-9][0-9]|655[0-2][0-9]|6553[0-5])/?";
  pastLoopback = "(.*,)?127\\.0\\.0\\.1(,.*)?";
  assignment = " *((export +)?[A-Za-z_][A-Za-z0-9_]*=(\"[^\"\\\\$`]*\"|'[^'\\\\]*'|([^\"'\\\\$`;&|<>() :~][^\"'\\\\$`;&|<>() :]*)?(:([^\"'\\\\$`;&|<>() :~][^\"'\\\\$`;&|<>() :]*)?)*) *|#.*)?";
  secretVariable = " *(export +)?[A-Za-z0-9_]*(SECRET|PASSWORD|PASSWD|TOKEN|(ACCESS|API|PRIVATE|SECRET)_KEY)(_ID)?=.+";

  secretName = "(.*(secret|password|passwd|passphrase|pass_phrase|sshpass|_pwd|npm(_config)?_+auth|(private|access|api|storage|account|shared)[_-]?key|token)|(.*([_-]|pg|db))?pass)(_?(key|id|value))?s?";

  counted = ".*tokens=[0-9]+";

  secretTexts = [
    ".*-----BEGIN [A-Z ]*PRIVATE KEY.*"
    ".*(AKIA|ASIA)[0-9A-Z]{16}.*"
    ".*(hf_|gh[pousr]_)[A-Za-z0-9]{30}.*"
    ".*(github_pat_|glpat-)[A-Za-z0-9_-]{20}.*"
    ".*curl ((\"[^\"]*\"|'[^']*'|\\\\.|[^|;&\"'\\\\])* )?-[A-Za-z]*u *[\"']?[^ :$`]+:[\"']?[^\"'$` ].*"
    ".*(docker|podman|nerdctl|buildah|skopeo|oras|registry|auth|az) login ((\"[^\"]*\"|'[^']*'|\\\\.|[^|;&\"'\\\\])* )?-p *[\"']?[^\"'$` @].*"
    "(.* )?-[PU] *[\"']?[^ :$`/]+:[\"']?[^\"'$` %/].*"
    ".*sshpass +(-[^ p][^ ]* +)*-p *[\"']?[^\"'$` ].*"
  ];

  secretWords = [
    ".*[a-z][a-z0-9+.-]*://[^/@: ]*:[^/@ ]+@.*"
    ".*--?(proxy-auth|proxyauth|remproxyauth|proxy-user)( +|=)[\"']?[^ :$`]+:[\"']?[^\"'$` ].*"
    ".*curl ((\"[^\"]*\"|'[^']*'|\\\\.|[^|;&\"'\\\\])* )?--user( +|=)[\"']?[^ :$`]+:[\"']?[^\"'$` ].*"
    ".*proxyauth=[^ :,$`]+:[\"']?[^\"'$` ,].*"
    "(.* )?-pw +[\"']?[^\"'$` ].*"
    ".*--?(password|passwd)( +|=)[\"']?[^\"'$` ].*"
    ".*authorization[\"']?: *[\"']?(bearer|basic|token) +[\"']?[^\"'$` ].*"
    "(.*[^$a-z0-9_])?[a-z0-9_]*(password|passwd|sshpass|_pwd|secret|token|(private|access|api|storage|account|shared)[_-]?key|secret_key)(_id)?=[\"']?[^\"'$` ;&|/~].*"
    "(.*[^$a-z0-9_])?([a-z0-9_]*_|pg|db)?(pass|npm(_config)?_+auth)=[\"']?[^\"'$` ;&|/~].*"
  ];

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
        text = lib.replaceStrings [ "\n" "\t" ] [ " " " " ] (toString given);
      in
      matches secretName (lib.toLower name) && !matches counted "${lib.toLower name}=${text}"
      || lib.any (pattern: matches pattern text) secretTexts
      || lib.any (pattern: matches pattern (lib.toLower text)) secretWords;

  # Whether a path without quotes, which Nix would copy to the store, lies in a value.
  copied =
    given:
    if lib.isAttrs given then
      lib.any copied (lib.attrValues given)
    else if lib.isList given then
      lib.any copied given
    else
      builtins.isPath given;

  inStore = file: file != null && lib.hasPrefix builtins.storeDir file;

  runsServer = cfg.systemdServices && cfg.enableWebUI;
  measuresServer = runsServer && cfg.monitoring.enable && matches loopback cfg.webUI.host;
  hasDefaults = cfg.cluster.defaultInstanceType != null || cfg.cluster.defaultRegion != null;
  givesMetrics = cfg.systemdServices && cfg.monitoring.enable;
  asksClusters = cfg.systemdServices && cfg.enableCluster;
  stopsClusters = asksClusters && cfg.cluster.autoStop != null;

  # Clouds that are asked for: by credentials, by name, or by a table of their own.
  askedClouds = lib.unique (
    lib.attrNames cfg.cloudCredentials
    ++ map lib.toLower (lib.filter lib.isString (lib.toList (cfg.config.allowed_clouds or [ ])))
    ++ lib.intersectLists [ "aws" "gcp" "azure" "kubernetes" ] (lib.attrNames cfg.config)
  );

  lackedClouds = lib.filter (cloud: !(cfg.package ? optional-dependencies.${cloud})) askedClouds;

  # What nixpkgs leaves out of the package until somebody asks for it.
  extras = lib.concatMap (cloud: cfg.package.optional-dependencies.${cloud} or [ ]) askedClouds;

  # A package of nixpkgs has no interpreter of its own; an environment has.
  isPlain = cfg.package ? overrideAttrs && !(cfg.package ? interpreter);

  python =
    if cfg.package ? interpreter then
      cfg.package.interpreter
    else if isPlain then
      "${pkgs.python3.withPackages (p: [ (p.toPythonModule cfg.package) ] ++ extras)}/bin/python"
    else
      "${cfg.package}/bin/python";

  programs = builtins.path {
    name = "skypilot-programs";
    path = ../src/haversack/data/skypilot;
    filter = path: _: lib.hasSuffix ".py" path;
  };

  near = if matches "::1?" cfg.webUI.host then "[::1]" else "127.0.0.1";
  endpoint =
    if runsServer then "http://${near}:${toString cfg.webUI.port}" else toString cfg.endpoint;
  index =
    if matches ".*/" cfg.mirror then "${cfg.mirror}pypi/simple/" else "${cfg.mirror}/pypi/simple/";

  json = pkgs.formats.json { };

  configFile = json.generate "config.yaml" (
    cfg.config
    // lib.optionalAttrs hasDefaults {
      admin_policy = "site_defaults.SiteDefaults";
    }
  );

  # Lines as systemd reads them: without `export`, comments and blanks before them.
  variables = lib.concatMapStrings (line: line + "\n") (
    lib.filter (line: line != "" && !lib.hasPrefix "#" line) (
      map (line: lib.last (builtins.match " *(export +)?(.*)" line)) (
        lib.splitString "\n" cfg.extraEnvironment
      )
    )
  );

  units =
    lib.optionals runsServer [ "skypilot-web-ui.service" ]
    ++ lib.optionals asksClusters [
      "skypilot-cluster-manager.service"
      "skypilot-cluster-manager.timer"
    ]
    ++ lib.optionals stopsClusters [
      "skypilot-autostop.service"
      "skypilot-autostop.timer"
    ]
    ++ lib.optionals givesMetrics [ "skypilot-monitor.service" ];

  permitted = lib.concatMap (unit: [
    "start ${unit}"
    "stop ${unit}"
    "restart ${unit}"
    "status --no-pager ${unit}"
  ]) units;

  path = [
    cfg.package
    pkgs.bash
    pkgs.openssh
    pkgs.rsync
    pkgs.awscli2
    pkgs.ssm-session-manager-plugin
    pkgs.kubectl
    pkgs.socat
    pkgs.netcat-openbsd
  ]
  ++ lib.optional (cfg.cloudCredentials ? gcp) pkgs.google-cloud-sdk
  ++ lib.optional (cfg.cloudCredentials ? azure) pkgs.azure-cli;

  environment = {
    HOME = cfg.stateDir;
    XDG_CACHE_HOME = cfg.cacheDir;
    SKYPILOT_GLOBAL_CONFIG = "${cfg.configDir}/config.yaml";
    SKYPILOT_API_SERVER_ENDPOINT = endpoint;
    SHELL = "/bin/sh";
    SKYPILOT_DISABLE_LOCAL_API_SERVER = "1";
    SKYPILOT_DISABLE_USAGE_COLLECTION = "1";
    DO_NOT_TRACK = "1";
    SCARF_NO_ANALYTICS = "1";
    PYTHONDONTWRITEBYTECODE = "1";
  };

  serviceConfig = {
    User = cfg.user;
    Group = cfg.group;
    WorkingDirectory = cfg.stateDir;
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
    SystemCallErrorNumber = "EPERM";
    LogRateLimitIntervalSec = "30s";
    LogRateLimitBurst = 10000;
    EnvironmentFile = "/etc/skypilot/environment";
    BindReadOnlyPaths = "${pkgs.bash}/bin:/bin";
  };
in
{
  options.services.skypilot = {
    enable = mkOption {
      type = types.bool;
      default = false;
      description = "Whether to run SkyPilot as a service.";
    };

    package = mkOption {
      type = types.either types.package absolutePath;
      default = pkgs.skypilot or (throw "services.skypilot.package: name a prefix or add an overlay");
      defaultText = lib.literalExpression "pkgs.skypilot";
      example = "/opt/skypilot";
      description = ''
        SkyPilot: a package of nixpkgs, or the prefix of an environment that haversack installed.
      '';
    };

    user = mkOption {
      type = word;
      default = "skypilot";
      description = "The user that runs it; made if this is the default.";
    };

    group = mkOption {
      type = word;
      default = "skypilot";
      description = "The group of that user; made if this is the default.";
    };

    stateDir = mkOption {
      type = absolutePath;
      default = "/var/lib/skypilot";
      description = "Home of the service: SkyPilot's database, keys and catalogs.";
    };

    configDir = mkOption {
      type = absolutePath;
      default = "/var/lib/skypilot/config";
      description = "Where its configuration lies.";
    };

    logsDir = mkOption {
      type = absolutePath;
      default = "/var/log/skypilot";
      description = "Where logs of requests and jobs lie.";
    };

    logsKeepDays = mkOption {
      type = types.ints.between 1 36500;
      default = 30;
      description = "After how many days logs are removed.";
    };

    cacheDir = mkOption {
      type = absolutePath;
      default = "/var/cache/skypilot";
      description = "Where caches and the state of clusters lie.";
    };

    config = mkOption {
      type = json.type;
      default = { };
      example = {
        allowed_clouds = [ "aws" ];
        aws = {
          vpc_name = "private-vpc";
          use_internal_ips = true;
        };
      };
      description = ''
        SkyPilot's own configuration, as in ~/.sky/config.yaml. Everybody on this machine can read
        it: no secrets.
      '';
    };

    cloudCredentials = mkOption {
      type = types.attrsOf absolutePath;
      default = { };
      example = {
        aws = "/run/secrets/aws-credentials";
        gcp = "/run/secrets/gcp-service-account.json";
      };
      description = ''
        Files with credentials by cloud, which only root needs to read; the service gets copies of
        its own.
      '';
    };

    extraEnvironment = mkOption {
      type = types.lines;
      default = "";
      example = "export AWS_PROFILE=skypilot";
      description = ''
        More variables of the service, each a line `export NAME=value`. Everybody can read them.
      '';
    };

    endpoint = mkOption {
      type = types.nullOr url;
      default = null;
      example = "http://skypilot.site.example:8080";
      description = ''
        Address of an API server on another machine, for the timers and for logins here.
      '';
    };

    mirror = mkOption {
      type = types.nullOr url;
      default = null;
      example = "https://mirror.site.example";
      description = ''
        Address of this site's mirror (`haversack serve`), from where the server takes packages.
      '';
    };

    caFile = mkOption {
      type = types.nullOr absolutePath;
      default = null;
      example = "/etc/ssl/site-ca.pem";
      description = "Certificates (PEM) to trust for the mirror, instead of the system's.";
    };

    proxy = mkOption {
      type = types.nullOr url;
      default = null;
      example = "http://proxy.site.example:3128";
      description = "Proxy by which the server reaches clouds.";
    };

    noProxy = mkOption {
      type = word;
      default = "localhost,127.0.0.1,::1,169.254.169.254,.svc,.cluster.local";
      example = "localhost,127.0.0.1,10.0.0.0/8,.svc,.site.example";
      description = "What it reaches without that proxy, with commas between.";
    };

    catalogs = mkOption {
      type = types.nullOr absolutePath;
      default = null;
      example = "/etc/skypilot/catalogs";
      description = ''
        Folder with SkyPilot's catalogs (`v8/aws/vms.csv`), which it then never fetches.
      '';
    };

    administrators = mkOption {
      type = types.listOf word;
      default = [ ];
      example = [ "alice" ];
      description = "Users who may start, stop, restart and look at these services with sudo.";
    };

    systemdServices = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether there are services; without them only users, folders and configuration.
      '';
    };

    enableWebUI = mkOption {
      type = types.bool;
      default = true;
      description = ''
        Whether to run the API server of SkyPilot with its dashboard on this machine.
      '';
    };

    webUI = {
      host = mkOption {
        type = types.enum [
          "127.0.0.1"
          "localhost"
          "0.0.0.0"
          "::1"
          "::"
        ];
        default = "127.0.0.1";
        description = "The address it listens at.";
      };

      port = mkOption {
        type = types.ints.between 1 65535;
        default = 8080;
        description = "Its port.";
      };

      openFirewall = mkOption {
        type = types.bool;
        default = false;
        description = "Whether to open that port in the firewall.";
      };
    };

    enableCluster = mkOption {
      type = types.bool;
      default = true;
      description = "Whether the state of clusters is asked for and kept.";
    };

    cluster = {
      refreshMinutes = mkOption {
        type = types.ints.between 1 525600;
        default = 5;
        description = "Minutes between two looks at the clusters.";
      };

      autoStop = mkOption {
        type = types.nullOr (types.ints.between 1 525600);
        default = null;
        example = 60;
        description = ''
          Minutes of idleness after which clusters stop, where nobody set that or set another time;
          a cloud that cannot stop tears them down.
        '';
      };

      defaultInstanceType = mkOption {
        type = types.nullOr word;
        default = null;
        example = "m5.large";
        description = "Instance type of tasks that ask for no size.";
      };

      defaultRegion = mkOption {
        type = types.nullOr word;
        default = null;
        example = "us-west-2";
        description = "Region of tasks that name none.";
      };
    };

    monitoring = {
      enable = mkOption {
        type = types.bool;
        default = false;
        description = "Whether to give metrics for Prometheus.";
      };

      host = mkOption {
        type = word;
        default = "127.0.0.1";
        description = "The address metrics are given at.";
      };

      metricsPort = mkOption {
        type = types.ints.between 1 65535;
        default = 9090;
        description = "The port metrics are given at.";
      };

      serverPort = mkOption {
        type = types.ints.between 1 65535;
        default = 46581;
        description = ''
          The port at which the API server gives its own metrics to those; there are none where
          webUI.host is not loopback.
        '';
      };

      openFirewall = mkOption {
        type = types.bool;
        default = false;
        description = "Whether to open the port of metrics in the firewall.";
      };

      logLevel = mkOption {
        type = types.enum [
          "DEBUG"
          "INFO"
          "WARNING"
          "ERROR"
          "CRITICAL"
        ];
        default = "INFO";
        description = "What is logged.";
      };
    };
  };

  config = mkIf cfg.enable {
    assertions = [
      {
        assertion = cfg.user != "root";
        message = "services.skypilot: user is root: SkyPilot needs no rights, name a user of its own";
      }
      {
        assertion = !matches strongGroup cfg.group;
        message = "services.skypilot: group is ${toString cfg.group}, which may do more than SkyPilot needs: name a group of its own";
      }
      {
        assertion = matches userName cfg.user;
        message = "services.skypilot: user is ${toString cfg.user}: a name has small letters, digits, _ and - only";
      }
      {
        assertion = matches userName cfg.group;
        message = "services.skypilot: group is ${toString cfg.group}: a name has small letters, digits, _ and - only";
      }
      {
        assertion = lib.all (matches "[a-z_][a-z0-9_.-]*") cfg.administrators;
        message = "services.skypilot: administrators holds what is no name of a user: small letters, digits, _, - and dots only";
      }
      {
        assertion = !matches sharedFolder cfg.stateDir;
        message = "services.skypilot: stateDir is ${toString cfg.stateDir}, which others use too: name a folder of its own, as in /var/lib";
      }
      {
        assertion = !matches sharedFolder cfg.configDir;
        message = "services.skypilot: configDir is ${toString cfg.configDir}, which others use too: name a folder of its own, as in /var/lib";
      }
      {
        assertion = !matches sharedFolder cfg.logsDir;
        message = "services.skypilot: logsDir is ${toString cfg.logsDir}, which others use too: name a folder of its own, as in /var/lib";
      }
      {
        assertion = !matches sharedFolder cfg.cacheDir;
        message = "services.skypilot: cacheDir is ${toString cfg.cacheDir}, which others use too: name a folder of its own, as in /var/lib";
      }
      {
        assertion = cfg.stateDir != cfg.configDir;
        message = "services.skypilot: stateDir and configDir are both ${toString cfg.stateDir}: name a folder for each";
      }
      {
        assertion = cfg.stateDir != cfg.logsDir;
        message = "services.skypilot: stateDir and logsDir are both ${toString cfg.stateDir}: name a folder for each";
      }
      {
        assertion = cfg.stateDir != cfg.cacheDir;
        message = "services.skypilot: stateDir and cacheDir are both ${toString cfg.stateDir}: name a folder for each";
      }
      {
        assertion = cfg.configDir != cfg.logsDir;
        message = "services.skypilot: configDir and logsDir are both ${toString cfg.configDir}: name a folder for each";
      }
      {
        assertion = cfg.configDir != cfg.cacheDir;
        message = "services.skypilot: configDir and cacheDir are both ${toString cfg.configDir}: name a folder for each";
      }
      {
        assertion = cfg.logsDir != cfg.cacheDir;
        message = "services.skypilot: logsDir and cacheDir are both ${toString cfg.logsDir}: name a folder for each";
      }
      {
        assertion =
          !(
            cfg.stateDir == "${cfg.package}"
            || lib.hasPrefix "${cfg.package}/" cfg.stateDir
            || lib.hasPrefix "${cfg.stateDir}/" "${cfg.package}"
          );
        message = "services.skypilot: stateDir is ${toString cfg.stateDir}, where what it runs lies, which would be the service's own: name another folder";
      }
      {
        assertion =
          !(
            cfg.configDir == "${cfg.package}"
            || lib.hasPrefix "${cfg.package}/" cfg.configDir
            || lib.hasPrefix "${cfg.configDir}/" "${cfg.package}"
          );
        message = "services.skypilot: configDir is ${toString cfg.configDir}, where what it runs lies, which would be the service's own: name another folder";
      }
      {
        assertion =
          !(
            cfg.logsDir == "${cfg.package}"
            || lib.hasPrefix "${cfg.package}/" cfg.logsDir
            || lib.hasPrefix "${cfg.logsDir}/" "${cfg.package}"
          );
        message = "services.skypilot: logsDir is ${toString cfg.logsDir}, where what it runs lies, which would be the service's own: name another folder";
      }
      {
        assertion =
          !(
            cfg.cacheDir == "${cfg.package}"
            || lib.hasPrefix "${cfg.package}/" cfg.cacheDir
            || lib.hasPrefix "${cfg.cacheDir}/" "${cfg.package}"
          );
        message = "services.skypilot: cacheDir is ${toString cfg.cacheDir}, where what it runs lies, which would be the service's own: name another folder";
      }
      {
        assertion =
          !(
            lib.hasPrefix "${cfg.stateDir}/." cfg.configDir
            || lib.hasPrefix "${cfg.stateDir}/sky_logs/" "${cfg.configDir}/"
          );
        message = "services.skypilot: configDir is ${toString cfg.configDir}, which SkyPilot has for itself: name a folder of its own";
      }
      {
        assertion =
          !(
            lib.hasPrefix "${cfg.stateDir}/." cfg.logsDir
            || lib.hasPrefix "${cfg.stateDir}/sky_logs/" "${cfg.logsDir}/"
          );
        message = "services.skypilot: logsDir is ${toString cfg.logsDir}, which SkyPilot has for itself: name a folder of its own";
      }
      {
        assertion =
          !(
            lib.hasPrefix "${cfg.stateDir}/." cfg.cacheDir
            || lib.hasPrefix "${cfg.stateDir}/sky_logs/" "${cfg.cacheDir}/"
          );
        message = "services.skypilot: cacheDir is ${toString cfg.cacheDir}, which SkyPilot has for itself: name a folder of its own";
      }
      {
        assertion = !(lib.hasPrefix "${cfg.logsDir}/" (toString cfg.stateDir));
        message = "services.skypilot: stateDir is ${toString cfg.stateDir}, in logsDir, where what is old is removed: name a place beside it";
      }
      {
        assertion = !(lib.hasPrefix "${cfg.logsDir}/" (toString cfg.configDir));
        message = "services.skypilot: configDir is ${toString cfg.configDir}, in logsDir, where what is old is removed: name a place beside it";
      }
      {
        assertion = !(lib.hasPrefix "${cfg.logsDir}/" (toString cfg.cacheDir));
        message = "services.skypilot: cacheDir is ${toString cfg.cacheDir}, in logsDir, where what is old is removed: name a place beside it";
      }
      {
        assertion = !(lib.hasPrefix "${cfg.logsDir}/" (toString cfg.caFile));
        message = "services.skypilot: caFile is ${toString cfg.caFile}, in logsDir, where what is old is removed: name a place beside it";
      }
      {
        assertion = !(lib.hasPrefix "${cfg.logsDir}/" (toString cfg.catalogs));
        message = "services.skypilot: catalogs is ${toString cfg.catalogs}, in logsDir, where what is old is removed: name a place beside it";
      }
      {
        assertion = !(lib.any (lib.hasPrefix "${cfg.logsDir}/") (lib.attrValues cfg.cloudCredentials));
        message = "services.skypilot: cloudCredentials has a file in logsDir, where what is old is removed: name a place beside it";
      }
      {
        assertion = !matches unseenPlace cfg.stateDir;
        message = "services.skypilot: stateDir is ${toString cfg.stateDir}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.configDir;
        message = "services.skypilot: configDir is ${toString cfg.configDir}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.logsDir;
        message = "services.skypilot: logsDir is ${toString cfg.logsDir}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.cacheDir;
        message = "services.skypilot: cacheDir is ${toString cfg.cacheDir}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.package;
        message = "services.skypilot: package is ${toString cfg.package}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.caFile;
        message = "services.skypilot: caFile is ${toString cfg.caFile}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = !matches unseenPlace cfg.catalogs;
        message = "services.skypilot: catalogs is ${toString cfg.catalogs}: the service sees neither homes nor /tmp, name another place";
      }
      {
        assertion = matches hostAddress cfg.monitoring.host;
        message = "services.skypilot: monitoring.host is ${toString cfg.monitoring.host}: write an address, as 127.0.0.1, 0.0.0.0 or ::, or a name, without a port";
      }
      {
        assertion = cfg.enableWebUI -> cfg.webUI.port >= 1024;
        message = "services.skypilot: webUI.port is ${toString cfg.webUI.port}: ports below 1024 belong to root, put a proxy or a rule of the firewall before it";
      }
      {
        assertion = cfg.monitoring.enable -> cfg.monitoring.metricsPort >= 1024;
        message = "services.skypilot: monitoring.metricsPort is ${toString cfg.monitoring.metricsPort}: ports below 1024 belong to root, put a proxy or a rule of the firewall before it";
      }
      {
        assertion = measuresServer -> cfg.monitoring.serverPort >= 1024;
        message = "services.skypilot: monitoring.serverPort is ${toString cfg.monitoring.serverPort}: ports below 1024 belong to root, put a proxy or a rule of the firewall before it";
      }
      {
        assertion =
          cfg.enableWebUI && cfg.monitoring.enable -> cfg.webUI.port != cfg.monitoring.metricsPort;
        message = "services.skypilot: webUI.port and monitoring.metricsPort are both ${toString cfg.webUI.port}: two servers cannot share a port";
      }
      {
        assertion = measuresServer -> cfg.webUI.port != cfg.monitoring.serverPort;
        message = "services.skypilot: webUI.port and monitoring.serverPort are both ${toString cfg.webUI.port}: two servers cannot share a port";
      }
      {
        assertion = measuresServer -> cfg.monitoring.metricsPort != cfg.monitoring.serverPort;
        message = "services.skypilot: monitoring.metricsPort and monitoring.serverPort are both ${toString cfg.monitoring.metricsPort}: two servers cannot share a port";
      }
      {
        assertion = cfg.systemdServices -> cfg.enableWebUI || cfg.endpoint != null;
        message = "services.skypilot: there is no API server: set enableWebUI, or say in endpoint where another machine runs one";
      }
      {
        assertion = !(cfg.enableWebUI && cfg.endpoint != null);
        message = "services.skypilot: endpoint names a server on another machine, and enableWebUI runs one here: leave one of them out";
      }
      {
        assertion = cfg.endpoint != null -> matches address cfg.endpoint;
        message = "services.skypilot: endpoint is no address of a server: write one like http://skypilot.site.example:8080, without a user or password";
      }
      {
        assertion = cfg.mirror != null -> matches address cfg.mirror;
        message = "services.skypilot: mirror is no address of a server: write one like https://mirror.site.example, without a user or password";
      }
      {
        assertion = cfg.proxy != null -> matches proxyAddress cfg.proxy;
        message = "services.skypilot: proxy is no address of a proxy: write one like http://proxy.site.example:3128, without a user or password";
      }
      {
        assertion = cfg.proxy != null -> matches pastLoopback cfg.noProxy;
        message = "services.skypilot: noProxy lacks 127.0.0.1, where the parts of the server ask each other: add it";
      }
      {
        assertion = lib.all (matches assignment) (lib.splitString "\n" cfg.extraEnvironment);
        message = "services.skypilot: extraEnvironment holds a line that is not `export NAME=value` with one word or a text in quotes: no shell reads it, and $, `, \\ and ~ mean nothing";
      }
      {
        assertion =
          !lib.any (matches secretVariable) (lib.splitString "\n" cfg.extraEnvironment)
          && !hides "" cfg.extraEnvironment;
        message = "services.skypilot: extraEnvironment holds a secret, which everybody on this machine could read: name its file in cloudCredentials";
      }
      {
        assertion = !hides "" cfg.config;
        message = "services.skypilot: config holds a secret, which everybody on this machine could read: name its file in cloudCredentials, or leave it out";
      }
      {
        assertion = !(hasDefaults && cfg.config ? admin_policy);
        message = "services.skypilot: config.admin_policy excludes cluster.defaultInstanceType and cluster.defaultRegion, which are given to tasks by such a policy";
      }
      {
        assertion =
          !lib.any (matches " *(export +)?(DO_NOT_TRACK|HOME|PATH|PIP_NO_BUILD_ISOLATION|PYTHONDONTWRITEBYTECODE|SCARF_NO_ANALYTICS|SHELL|SKYPILOT_API_SERVER_ENDPOINT|SKYPILOT_DISABLE_LOCAL_API_SERVER|SKYPILOT_DISABLE_USAGE_COLLECTION|SKYPILOT_GLOBAL_CONFIG|SKYPILOT_GRACE_PERIOD_SECONDS|XDG_CACHE_HOME)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.mirror != null
          -> !lib.any (matches " *(export +)?(PIP_INDEX_URL|UV_DEFAULT_INDEX)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.caFile != null
          -> !lib.any (matches " *(export +)?(PIP_CERT|SSL_CERT_FILE)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.proxy != null
          -> !lib.any (matches " *(export +)?(HTTPS_PROXY|HTTP_PROXY|NO_PROXY|http_proxy|https_proxy|no_proxy)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          hasDefaults
          -> !lib.any (matches " *(export +)?(PYTHONPATH)=.*") (lib.splitString "\n" cfg.extraEnvironment);
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.cluster.defaultRegion != null
          -> !lib.any (matches " *(export +)?(SITE_DEFAULT_REGION)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.cluster.defaultInstanceType != null
          -> !lib.any (matches " *(export +)?(SITE_DEFAULT_INSTANCE_TYPE)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.cloudCredentials ? aws
          -> !lib.any (matches " *(export +)?(AWS_CONFIG_FILE|AWS_SHARED_CREDENTIALS_FILE)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.cloudCredentials ? gcp
          -> !lib.any (matches " *(export +)?(GOOGLE_APPLICATION_CREDENTIALS)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.cloudCredentials ? azure
          -> !lib.any (matches " *(export +)?(AZURE_AUTH_LOCATION)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion =
          cfg.monitoring.logLevel == "DEBUG"
          -> !lib.any (matches " *(export +)?(SKYPILOT_DEBUG)=.*") (
            lib.splitString "\n" cfg.extraEnvironment
          );
        message = "services.skypilot: extraEnvironment sets a variable that the service sets by itself: use the option for it, or leave it out";
      }
      {
        assertion = runsServer && haversack.enable -> cfg.webUI.port != haversack.port;
        message = "services.skypilot: webUI.port and services.haversack.port are both ${toString cfg.webUI.port}: two servers cannot share a port";
      }
      {
        assertion = runsServer && haversack.enable -> cfg.webUI.port != haversack.metrics.port;
        message = "services.skypilot: webUI.port and services.haversack.metrics.port are both ${toString cfg.webUI.port}: two servers cannot share a port";
      }
      {
        assertion = measuresServer && haversack.enable -> cfg.monitoring.serverPort != haversack.port;
        message = "services.skypilot: monitoring.serverPort and services.haversack.port are both ${toString cfg.monitoring.serverPort}: two servers cannot share a port";
      }
      {
        assertion =
          measuresServer && haversack.enable -> cfg.monitoring.serverPort != haversack.metrics.port;
        message = "services.skypilot: monitoring.serverPort and services.haversack.metrics.port are both ${toString cfg.monitoring.serverPort}: two servers cannot share a port";
      }
      {
        assertion = givesMetrics && haversack.enable -> cfg.monitoring.metricsPort != haversack.port;
        message = "services.skypilot: monitoring.metricsPort and services.haversack.port are both ${toString cfg.monitoring.metricsPort}: two servers cannot share a port";
      }
      {
        assertion =
          givesMetrics && haversack.enable -> cfg.monitoring.metricsPort != haversack.metrics.port;
        message = "services.skypilot: monitoring.metricsPort and services.haversack.metrics.port are both ${toString cfg.monitoring.metricsPort}: two servers cannot share a port";
      }
      {
        assertion =
          haversack.enable
          -> !(
            lib.hasPrefix "${cfg.stateDir}/" "${haversack.store}/"
            || lib.hasPrefix "${haversack.store}/" "${cfg.stateDir}/"
          );
        message = "services.skypilot: stateDir is ${toString cfg.stateDir}, in or around services.haversack.store: name a folder beside it";
      }
      {
        assertion =
          haversack.enable
          -> !(
            lib.hasPrefix "${cfg.configDir}/" "${haversack.store}/"
            || lib.hasPrefix "${haversack.store}/" "${cfg.configDir}/"
          );
        message = "services.skypilot: configDir is ${toString cfg.configDir}, in or around services.haversack.store: name a folder beside it";
      }
      {
        assertion =
          haversack.enable
          -> !(
            lib.hasPrefix "${cfg.logsDir}/" "${haversack.store}/"
            || lib.hasPrefix "${haversack.store}/" "${cfg.logsDir}/"
          );
        message = "services.skypilot: logsDir is ${toString cfg.logsDir}, in or around services.haversack.store: name a folder beside it";
      }
      {
        assertion =
          haversack.enable
          -> !(
            lib.hasPrefix "${cfg.cacheDir}/" "${haversack.store}/"
            || lib.hasPrefix "${haversack.store}/" "${cfg.cacheDir}/"
          );
        message = "services.skypilot: cacheDir is ${toString cfg.cacheDir}, in or around services.haversack.store: name a folder beside it";
      }
      {
        assertion = !(cfg.config ? cloud);
        message = "services.skypilot: config.cloud is no key that there is: name clouds in config.allowed_clouds, and the region in cluster.defaultRegion";
      }
      {
        assertion = !(cfg.config ? spot);
        message = "services.skypilot: config.spot is no key that there is: ask for spot machines in tasks (use_spot)";
      }
      {
        assertion = !(cfg.config ? cluster);
        message = "services.skypilot: config.cluster is no key that there is: write cluster.defaultInstanceType and cluster.defaultRegion beside config";
      }
      {
        assertion = !copied cfg.config;
        message = "services.skypilot: config has a path without quotes, which would be copied to the store: write it in quotes";
      }
      {
        assertion = lib.subtractLists [ "aws" "gcp" "azure" ] (lib.attrNames cfg.cloudCredentials) == [ ];
        message = "services.skypilot: cloudCredentials has a key that is none of aws, gcp, azure";
      }
      {
        assertion = !lib.any inStore (lib.attrValues cfg.cloudCredentials);
        message = "services.skypilot: cloudCredentials is in the store, which everybody can read: name a file outside, as /run/secrets/NAME";
      }
      {
        assertion = lib.all (matches "[^[:cntrl:]]*") (lib.splitString "\n" cfg.extraEnvironment);
        message = "services.skypilot: extraEnvironment holds control characters";
      }
    ];

    warnings = map (warning: warning.message) (
      lib.filter (warning: warning.when) [
        {
          when = runsServer && cfg.webUI.openFirewall && matches loopback cfg.webUI.host;
          message = "services.skypilot: webUI.openFirewall opens port ${toString cfg.webUI.port}, where nothing but this machine is listened to: webUI.host is ${toString cfg.webUI.host}";
        }
        {
          when = givesMetrics && cfg.monitoring.openFirewall && matches loopback cfg.monitoring.host;
          message = "services.skypilot: monitoring.openFirewall opens port ${toString cfg.monitoring.metricsPort}, where nothing but this machine is listened to: monitoring.host is ${toString cfg.monitoring.host}";
        }
        {
          when = !(runsServer -> matches loopback cfg.webUI.host);
          message = "services.skypilot: the API server listens at ${toString cfg.webUI.host} and asks nobody for a password: whoever reaches its port runs commands with your credentials";
        }
        {
          when = runsServer && cfg.cloudCredentials ? gcp;
          message = "services.skypilot: cloudCredentials.gcp is not all that SkyPilot needs: it asks gcloud who is active. As ${toString cfg.user}, with HOME=${toString cfg.stateDir}, say once: gcloud auth activate-service-account --key-file FILE";
        }
        {
          when = runsServer && cfg.cloudCredentials ? azure;
          message = "services.skypilot: cloudCredentials.azure is read by nothing in SkyPilot: it asks az, which has logins of its own. As ${toString cfg.user}, with HOME=${toString cfg.stateDir}, say once: az login --service-principal";
        }
        {
          when = cfg.systemdServices && cfg.cluster.autoStop != null && !cfg.enableCluster;
          message = "services.skypilot: cluster.autoStop stops nothing without enableCluster: set that too, or leave autoStop out";
        }
        {
          when = runsServer && givesMetrics && !measuresServer;
          message = "services.skypilot: monitoring leaves out the API server's own metrics, which it would give at ${toString cfg.webUI.host} to whoever asks: let webUI.host be 127.0.0.1, behind a proxy";
        }
        {
          when = isPlain && lackedClouds != [ ];
          message = "services.skypilot: package has no optional dependencies for ${lib.concatStringsSep ", " lackedClouds}: see that it can reach them";
        }
      ]
    );

    users.users.skypilot = mkIf (cfg.user == "skypilot") {
      isSystemUser = true;
      group = cfg.group;
      home = cfg.stateDir;
      description = "SkyPilot";
    };

    users.groups.skypilot = mkIf (cfg.group == "skypilot") { };

    environment = {
      systemPackages =
        if lib.isDerivation cfg.package then
          [ cfg.package ]
        else
          map (name: pkgs.writeShellScriptBin name "exec ${cfg.package}/bin/${name} \"$@\"") [ "sky" ];
      etc."skypilot/config.yaml".source = configFile;
      etc."skypilot/environment".text = variables;
      variables = {
        SKYPILOT_API_SERVER_ENDPOINT = mkIf (runsServer || cfg.endpoint != null) endpoint;
        SKYPILOT_DISABLE_LOCAL_API_SERVER = mkIf (runsServer || cfg.endpoint != null) "1";
        SKYPILOT_DISABLE_USAGE_COLLECTION = "1";
      };
    };

    systemd.tmpfiles.rules = [
      "d '${cfg.stateDir}' 0700 ${cfg.user} ${cfg.group} -"
      "d '${cfg.configDir}' 0750 ${cfg.user} ${cfg.group} -"
      "d '${cfg.cacheDir}' 0750 ${cfg.user} ${cfg.group} -"
      "d '${cfg.logsDir}' 0750 ${cfg.user} ${cfg.group} ${toString cfg.logsKeepDays}d"
      "d '${cfg.logsDir}/requests' 0750 ${cfg.user} ${cfg.group} ${toString cfg.logsKeepDays}d"
      "L '${cfg.configDir}/config.yaml' - - - - /etc/skypilot/config.yaml"
      "L '${cfg.stateDir}/sky_logs' - - - - ${cfg.logsDir}"
    ];

    systemd.services = {
      skypilot-web-ui = mkIf runsServer {
        description = "SkyPilot API server and dashboard";
        wantedBy = [ "multi-user.target" ];
        after = [ "network-online.target" ];
        wants = [ "network-online.target" ];
        inherit path;
        environment = environment // {
          SKYPILOT_GRACE_PERIOD_SECONDS = "40";
          PIP_NO_BUILD_ISOLATION = "0";
          UV_DEFAULT_INDEX = if cfg.mirror != null then index else null;
          PIP_INDEX_URL = if cfg.mirror != null then index else null;
          SSL_CERT_FILE = cfg.caFile;
          PIP_CERT = cfg.caFile;
          HTTP_PROXY = cfg.proxy;
          HTTPS_PROXY = cfg.proxy;
          http_proxy = cfg.proxy;
          https_proxy = cfg.proxy;
          NO_PROXY = if cfg.proxy != null then cfg.noProxy else null;
          no_proxy = if cfg.proxy != null then cfg.noProxy else null;
          PYTHONPATH = if hasDefaults then "${programs}" else null;
          SITE_DEFAULT_REGION = cfg.cluster.defaultRegion;
          SITE_DEFAULT_INSTANCE_TYPE = cfg.cluster.defaultInstanceType;
          AWS_SHARED_CREDENTIALS_FILE = if cfg.cloudCredentials ? aws then "%d/aws" else null;
          AWS_CONFIG_FILE = if cfg.cloudCredentials ? aws then "%d/aws" else null;
          GOOGLE_APPLICATION_CREDENTIALS = if cfg.cloudCredentials ? gcp then "%d/gcp" else null;
          AZURE_AUTH_LOCATION = if cfg.cloudCredentials ? azure then "%d/azure" else null;
          SKYPILOT_DEBUG = if cfg.monitoring.logLevel == "DEBUG" then "1" else null;
        };
        unitConfig = {
          StartLimitIntervalSec = 0;
        };
        serviceConfig = serviceConfig // {
          Type = "exec";
          ExecStart = lib.concatStrings [
            "${python} ${programs}/server.py --host ${cfg.webUI.host} --port ${toString cfg.webUI.port}"
            (lib.optionalString measuresServer " --metrics-port ${toString cfg.monitoring.serverPort}")
            (lib.optionalString (cfg.catalogs != null) " --catalogs ${cfg.catalogs}")
            " --logs ${cfg.logsDir}/requests"
          ];
          LoadCredential = lib.mapAttrsToList (name: value: "${name}:${value}") cfg.cloudCredentials;
          Restart = "on-failure";
          RestartSec = 5;
          RestartSteps = 6;
          RestartMaxDelaySec = "5min";
          KillMode = "mixed";
          TimeoutStopSec = 60;
          SystemCallFilter = "@system-service";
          ReadWritePaths = [
            cfg.stateDir
            cfg.configDir
            cfg.logsDir
            cfg.cacheDir
          ];
        };
        restartTriggers = [
          configFile
          variables
        ];
      };

      skypilot-cluster-manager = mkIf asksClusters {
        description = "Look at the clusters of SkyPilot and keep what is seen";
        after = [ "skypilot-web-ui.service" ];
        inherit path environment;
        serviceConfig = serviceConfig // {
          Type = "oneshot";
          ExecStart = "${python} ${programs}/clusters.py --state ${cfg.cacheDir}/clusters.json --timeout 240";
          TimeoutStartSec = 300;
          SystemCallFilter = "@system-service";
          ReadWritePaths = [
            cfg.stateDir
            cfg.configDir
            cfg.logsDir
            cfg.cacheDir
          ];
        };
      };

      skypilot-autostop = mkIf stopsClusters {
        description = "Let idle clusters of SkyPilot stop";
        after = [ "skypilot-web-ui.service" ];
        inherit path environment;
        serviceConfig = serviceConfig // {
          Type = "oneshot";
          ExecStart = "${python} ${programs}/autostop.py --idle-minutes ${toString cfg.cluster.autoStop} --timeout 240 --state ${cfg.cacheDir}/autostop.json";
          TimeoutStartSec = 300;
          SystemCallFilter = "@system-service";
          ReadWritePaths = [
            cfg.stateDir
            cfg.configDir
            cfg.logsDir
            cfg.cacheDir
          ];
        };
      };

      skypilot-monitor = mkIf givesMetrics {
        description = "Metrics of SkyPilot for Prometheus";
        wantedBy = [ "multi-user.target" ];
        after = [
          "network-online.target"
          "skypilot-web-ui.service"
        ];
        wants = [ "network-online.target" ];
        inherit path environment;
        unitConfig = {
          StartLimitIntervalSec = 0;
        };
        serviceConfig = serviceConfig // {
          Type = "exec";
          ExecStart = lib.concatStrings [
            "${python} ${programs}/monitor.py --host ${cfg.monitoring.host} --port ${toString cfg.monitoring.metricsPort} --server ${endpoint}"
            (lib.optionalString asksClusters " --state ${cfg.cacheDir}/clusters.json")
            (lib.optionalString stopsClusters " --autostop-state ${cfg.cacheDir}/autostop.json")
            (lib.optionalString measuresServer " --server-metrics http://${near}:${toString cfg.monitoring.serverPort}/metrics")
            " --disk ${cfg.stateDir} --disk ${cfg.logsDir} --disk ${cfg.cacheDir} --log-level ${cfg.monitoring.logLevel}"
          ];
          Restart = "on-failure";
          RestartSec = 5;
          RestartSteps = 6;
          RestartMaxDelaySec = "5min";
          TimeoutStopSec = 20;
          SystemCallFilter = [
            "@system-service"
            "~@privileged @resources"
          ];
          MemoryDenyWriteExecute = true;
          ProcSubset = "pid";
        };
        restartTriggers = [
          configFile
          variables
        ];
      };
    };

    systemd.timers = {
      skypilot-cluster-manager = mkIf asksClusters {
        description = "Look at the clusters of SkyPilot and keep what is seen, again and again";
        wantedBy = [ "timers.target" ];
        timerConfig = {
          OnActiveSec = "2min";
          OnUnitInactiveSec = "${toString cfg.cluster.refreshMinutes}min";
          AccuracySec = "10s";
        };
      };

      skypilot-autostop = mkIf stopsClusters {
        description = "Let idle clusters of SkyPilot stop, again and again";
        wantedBy = [ "timers.target" ];
        timerConfig = {
          OnActiveSec = "3min";
          OnUnitInactiveSec = "5min";
          AccuracySec = "10s";
        };
      };
    };

    networking.firewall.allowedTCPPorts =
      lib.optional (runsServer && cfg.webUI.openFirewall) cfg.webUI.port
      ++ lib.optional (givesMetrics && cfg.monitoring.openFirewall) cfg.monitoring.metricsPort;

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
