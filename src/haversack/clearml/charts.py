"""The keys that ClearML's charts know: helm ignores every other one without a word.

One line for each table, its keys behind a colon; what ends in ``*`` is free below that.  The public charts are
told as their ``values.yaml`` and their templates have them, at the versions named; of the enterprise charts only
that is known which ClearML's documentation shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from haversack.clearml.helm import COMMUNITY, ENTERPRISE

_COMMON = """\
: nameOverride fullnameOverride
imageCredentials: enabled existingSecret registry username password email"""
_POD = "resources* nodeSelector* tolerations* affinity* podSecurityContext* containerSecurityContext*"
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
agentk8sglue.basePodTemplate: labels* annotations* initContainers* schedulerName volumes* volumeMounts*
agentk8sglue.basePodTemplate: fileMounts* env* priorityClassName hostAliases* {_POD}
sessions: portModeEnabled svcAnnotations* svcType externalIP startingPort maxServices
"""
_CLEARML = f"""\
{_COMMON}
global*
: redis* mongodb* elasticsearch*
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
: global* kafka* prometheus* grafana* kubeVersion
serviceAccount: create name
clearml: apiAccessKey apiSecretKey apiHost filesHost webHost defaultBaseServeUrl servingTaskId kafkaServeUrl
{_below("clearml_serving_statistics", _SERVED)}{_below("clearml_serving_inference", _SERVED + _SCALED)}\
{_below("clearml_serving_triton", _SERVED + _SCALED)}\
clearml_serving_statistics: enabled
clearml_serving_triton: enabled runtimeClassName
"""
_ENTERPRISE_AGENT = """\
imageCredentials: password extraImagePullSecrets*
global: imageRegistry
clearml: agentk8sglueKey agentk8sglueSecret extraIndexUrl
agentk8sglue: airGappedSupport apiServerUrlReference fileServerUrlReference webServerUrlReference
agentk8sglue: defaultContainerImage createQueues dashboardReportMaxGpu containerCustomBashScript
agentk8sglue: basePodTemplate* queues*
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
    """A chart: ``keys`` is a table of tables, empty where a value stands; ``complete`` if it has no others.

    ``other`` is the chart of the other flavour that does the same.
    """

    name: str
    flavor: str
    version: str
    keys: Mapping[str, Any]
    complete: bool
    other: str | None


def _tree(lines: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines.splitlines():
        place, _, keys = line.partition(":")
        table = found
        for part in place.rstrip("*").split(".") if place else ():
            table = table.setdefault(part, {})
        if place.endswith("*"):
            table.update(FREE)
        for key in keys.split():
            table[key.rstrip("*")] = dict(FREE) if key.endswith("*") else {}
    return found


def _chart(name: str, flavor: str, version: str, lines: str, other: str | None) -> Chart:
    return Chart(name, flavor, version, _tree(lines), flavor == COMMUNITY, other)


CHARTS: Mapping[str, Chart] = {
    chart.name: chart
    for chart in (
        _chart("clearml-agent", COMMUNITY, "5.3.2", _AGENT, "clearml-enterprise-agent"),
        _chart("clearml", COMMUNITY, "7.14.4", _CLEARML, "clearml-enterprise"),
        _chart("clearml-serving", COMMUNITY, "1.5.10", _SERVING, None),
        _chart("clearml-enterprise-agent", ENTERPRISE, "", _ENTERPRISE_AGENT, "clearml-agent"),
        _chart("clearml-enterprise", ENTERPRISE, "", _ENTERPRISE_SERVER, "clearml"),
        _chart("clearml-enterprise-app-gateway", ENTERPRISE, "", _GATEWAY, None),
    )
}
"""Every chart whose keys are known, by its name."""
