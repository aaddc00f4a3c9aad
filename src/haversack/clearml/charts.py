"""The keys that ClearML's charts know: helm ignores every other one without a word.

One line for each table, its keys behind a colon; what ends in ``*`` is free below that, and a table called ``*``
may have any name.  The public charts are told as their ``values.yaml`` and their templates have them, at the versions
named, and the charts that they bring along as ``scripts/chart_keys.py`` lists them; of the enterprise charts only that
is known which ClearML's documentation shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

COMMUNITY, ENTERPRISE = "community", "enterprise"
"""The flavours: the public charts and servers, and those of ClearML's customers."""

_COMMON = """\
: nameOverride fullnameOverride
imageCredentials: enabled existingSecret registry username password email"""
_POD = "resources* nodeSelector* tolerations* affinity* podSecurityContext* containerSecurityContext*"
_TEMPLATE = f"""\
: labels* annotations* initContainers* schedulerName volumes* volumeMounts*
: fileMounts* env* priorityClassName hostAliases* {_POD}
"""
_SERVER = f"""\
image: registry repository pullPolicy tag
service: annotations* type port nodePort
initContainers: resources*
ingress: enabled ingressClassName hostName tlsSecretName annotations* path
: enabled deploymentAnnotations* serviceAccountName serviceAccountAnnotations* replicaCount extraEnvs*
: podAnnotations* additionalVolumes* additionalVolumeMounts* {_POD}
"""
_SERVED = """\
image: repository tag
: nodeSelector* tolerations* affinity* resources* extraEnvironment* extraPythonPackages*
: existingAdditionalConfigsConfigMap existingAdditionalConfigsSecret additionalConfigs*
"""
_SCALED = """\
autoscaling: enabled minReplicas maxReplicas targetCPU targetMemory
ingress: enabled ingressClassName hostName tlsSecretName annotations* path
"""


def _below(name: str, lines: str) -> str:
    """Lines for a table called ``name``."""
    told = (line.partition(":") for line in lines.splitlines())
    return "".join(f"{name}{f'.{at}' if at else ''}:{keys}\n" for at, _, keys in told)


_AGENT = f"""\
{_COMMON}
global: imageRegistry
clearml: existingAgentk8sglueSecret agentk8sglueKey agentk8sglueSecret existingClearmlConfigSecret clearmlConfig
agentk8sglue: replicaCount serviceAccountAnnotations* serviceExistingAccountName clearmlcheckCertificate
agentk8sglue: apiServerUrlReference fileServerUrlReference webServerUrlReference defaultContainerImage queue
agentk8sglue: createQueueIfNotExists taskAsJob labels* annotations* extraEnvs* additionalClusterRoleBindings*
agentk8sglue: additionalRoleBindings* volumes* volumeMounts* fileMounts* {_POD}
agentk8sglue.image: registry repository tag
agentk8sglue.initContainers: resources*
{_below("agentk8sglue.basePodTemplate", _TEMPLATE)}\
sessions: portModeEnabled svcAnnotations* svcType externalIP startingPort maxServices
"""
_CLEARML = f"""\
{_COMMON}
global: imageRegistry imagePullSecrets* storageClass kubeVersion namespaceOverride
global.redis: password
clearml: cookieName cookieDomain defaultCompany apiserverKey apiserverSecret fileserverKey fileserverSecret
clearml: readinessprobeKey readinessprobeSecret secureAuthTokenSecret testUserKey testUserSecret existingSecret
clearml: clientConfigurationApiUrl clientConfigurationFilesUrl defaultCompanyGuid
serviceAccount: create name
{_below("apiserver", _SERVER)}{_below("fileserver", _SERVER)}{_below("webserver", _SERVER)}\
apiserver: prepopulateEnabled existingAdditionalConfigsConfigMap existingAdditionalConfigsSecret additionalConfigs*
apiserver.processes: count timeout maxRequests maxRequestsJitter
fileserver.storage: enabled
fileserver.storage.data: existingPVC class accessMode size
webserver: additionalConfigs*
webserver.ingress: tls*
externalServices: elasticsearchConnectionString mongodbConnectionStringAuth mongodbConnectionStringBackend
externalServices: redisHost redisPort
"""
_SERVING = f"""\
{_COMMON}
global: imageRegistry imagePullSecrets* storageClass kubeVersion
: kubeVersion
serviceAccount: create name
clearml: apiAccessKey apiSecretKey apiHost filesHost webHost defaultBaseServeUrl servingTaskId kafkaServeUrl
{_below("clearml_serving_statistics", _SERVED)}{_below("clearml_serving_inference", _SERVED + _SCALED)}\
{_below("clearml_serving_triton", _SERVED + _SCALED)}\
clearml_serving_statistics: enabled
clearml_serving_triton: enabled runtimeClassName
"""
_ENTERPRISE_AGENT = f"""\
imageCredentials: password extraImagePullSecrets*
global: imageRegistry
clearml: agentk8sglueKey agentk8sglueSecret extraIndexUrl
agentk8sglue: airGappedSupport apiServerUrlReference fileServerUrlReference webServerUrlReference
agentk8sglue: defaultContainerImage createQueues dashboardReportMaxGpu containerCustomBashScript customBashScript
agentk8sglue: extraEnvs* fileMounts* additionalRoleBindings*
{_below("agentk8sglue.basePodTemplate", _TEMPLATE)}\
agentk8sglue.queues.*: queueSettings*
{_below("agentk8sglue.queues.*.templateOverrides", _TEMPLATE)}\
sessions: portModeEnabled agentID externalIP startingPort maxServices
customCertificates: extraCerts* overrideCaCertificatesCrt
"""
_ENTERPRISE_SERVER = """\
imageCredentials: password existingImagePullSecrets*
global: imageRegistry
customCertificates: extraCerts* overrideCaCertificatesCrt
"""
_GATEWAY = f"""\
{_ENTERPRISE_SERVER}\
clearml: apiServerKey apiServerSecret apiServerUrlReference authCookieName
ingress: enabled hostName
tcpSession: routerAddress portRange*
"""
FREE: Mapping[str, Any] = {"*": {}}
"""What stands for a key that is free below."""


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart: ``lines`` are its keys, and ``brings`` the charts that it brings along, each a table of its values.

    ``other`` is the chart of the other flavour that does the same; ``registry`` what ``global.imageRegistry`` is where
    nobody says anything.
    """

    name: str
    flavor: str
    version: str
    lines: str
    other: str | None
    brings: tuple[str, ...] = ()
    registry: str = ""

    @property
    def complete(self) -> bool:
        """Whether it has no other keys than those that are known."""
        return self.flavor == COMMUNITY

    @property
    def keys(self) -> Mapping[str, Any]:
        """A table of tables, empty where a value stands."""
        return _tree(self.lines, self.brings)


def below(keys: Mapping[str, Any], key: str) -> Mapping[str, Any] | None:
    """What is known below a key; ``None`` of one that is not known."""
    if keys == FREE:
        return FREE
    found: Mapping[str, Any] | None = keys.get(key, keys.get("*"))
    return found


@cache
def _tree(lines: str, brings: tuple[str, ...]) -> Mapping[str, Any]:
    folder = resources.files("haversack") / "data" / "clearml"
    found: dict[str, Any] = {}
    more = "".join(_below(name, (folder / f"{name}.txt").read_text(encoding="utf-8")) for name in brings)
    for line in f"{lines}{more}".splitlines():
        place, _, keys = line.partition(":")
        table = found
        for part in place.split(".") if place else ():
            table = table.setdefault(part, {})
        for key in keys.split():
            table[key.rstrip("*")] = dict(FREE) if key.endswith("*") else {}
    return found


CHARTS: Mapping[str, Chart] = {
    chart.name: chart
    for chart in (
        Chart("clearml-agent", COMMUNITY, "5.3.2", _AGENT, "clearml-enterprise-agent", registry="docker.io"),
        Chart(
            "clearml",
            COMMUNITY,
            "7.14.4",
            _CLEARML,
            "clearml-enterprise",
            ("redis", "mongodb", "elasticsearch"),
            "docker.io",
        ),
        Chart("clearml-serving", COMMUNITY, "1.5.10", _SERVING, None, ("kafka", "prometheus", "grafana")),
        Chart("clearml-enterprise-agent", ENTERPRISE, "", _ENTERPRISE_AGENT, "clearml-agent"),
        Chart("clearml-enterprise", ENTERPRISE, "", _ENTERPRISE_SERVER, "clearml"),
        Chart("clearml-enterprise-app-gateway", ENTERPRISE, "", _GATEWAY, None),
    )
}
"""Every chart whose keys are known, by its name."""
