"""The images that charts and agents pull where nobody says anything.

Of the public charts as their values have them, and those of the charts that they bring along, at the versions of
:mod:`haversack.clearml.charts`; what an empty tag stands for is the chart's ``appVersion``.  Of enterprise charts
nothing is known.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from haversack.clearml.charts import COMMUNITY
from haversack.model.finding import Finding

# The path of the key, the image, and "off" for what a chart runs only if it is asked to.
_AGENT = """\
agentk8sglue.image docker.io/allegroai/clearml-agent-k8s-base:1.24-21
"""
_CLEARML = """\
apiserver.image docker.io/allegroai/clearml:2.0.0-613
fileserver.image docker.io/allegroai/clearml:2.0.0-613
webserver.image docker.io/allegroai/clearml:2.0.0-613
redis.image docker.io/bitnami/redis:7.0.9-debian-11-r1
mongodb.image docker.io/bitnami/mongodb:6.0.10-debian-11-r8
elasticsearch.image docker.elastic.co/elasticsearch/elasticsearch:7.17.3
"""
_SERVING = """\
clearml_serving_statistics.image docker.io/allegroai/clearml-serving-statistics:1.3.0
clearml_serving_inference.image docker.io/allegroai/clearml-serving-inference:1.3.0
clearml_serving_triton.image docker.io/allegroai/clearml-serving-triton:1.3.0
kafka.image docker.io/bitnami/kafka:3.4.0-debian-11-r6
kafka.zookeeper.image docker.io/bitnami/zookeeper:3.8.1-debian-11-r6
prometheus.server.image quay.io/prometheus/prometheus:v2.41.0
prometheus.configmapReload.prometheus.image docker.io/jimmidyson/configmap-reload:v0.8.0
prometheus.alertmanager.image quay.io/prometheus/alertmanager:v0.25.0
prometheus.alertmanager.configmapReload.image docker.io/jimmidyson/configmap-reload:v0.8.0 off
prometheus.kube-state-metrics.image registry.k8s.io/kube-state-metrics/kube-state-metrics:v2.8.0 off
prometheus.kube-state-metrics.kubeRBACProxy.image quay.io/brancz/kube-rbac-proxy:v0.14.0 off
prometheus.prometheus-node-exporter.image quay.io/prometheus/node-exporter:v1.5.0 off
prometheus.prometheus-pushgateway.image docker.io/prom/pushgateway:v1.5.1 off
grafana.image docker.io/grafana/grafana:9.4.3
grafana.initChownData.image docker.io/library/busybox:1.31.1 off
grafana.downloadDashboardsImage docker.io/curlimages/curl:7.85.0 off
grafana.sidecar.image quay.io/kiwigrid/k8s-sidecar:1.22.0 off
grafana.imageRenderer.image docker.io/grafana/grafana-image-renderer:latest off
grafana.testFramework.image docker.io/bats/bats:v1.4.1 off
"""


@dataclass(frozen=True, slots=True)
class Pull:
    """An image of a chart: where in the values it stands, its whole name, and whether it runs unasked."""

    path: tuple[str, ...]
    image: str
    runs: bool


def _pulls(lines: str) -> tuple[Pull, ...]:
    told = (line.split() for line in lines.splitlines())
    return tuple(Pull(tuple(path.split(".")), image, not off) for path, image, *off in told)


PULLS: Mapping[str, tuple[Pull, ...]] = {
    "clearml-agent": _pulls(_AGENT),
    "clearml": _pulls(_CLEARML),
    "clearml-serving": _pulls(_SERVING),
}
"""What each public chart pulls."""
OF_PODS = "docker.io/library/ubuntu:18.04"
"""What a pod of the public agent's chart runs for a task that names no image (``defaultContainerImage``)."""
OF_AGENTS = "docker.io/nvidia/cuda:12.6.3-cudnn-runtime-ubuntu20.04"
"""What an agent with docker runs for a task that names none (``backend_api/config/default/agent.conf``)."""


def lacking(flavor: str, held: Collection[str]) -> list[Finding]:
    """A note for each chart of a flavour whose own images are not all in the snapshot.

    ``held`` are the names of the snapshot's images, as they are outside.  The site's registry may have the others from
    elsewhere, and not every site has every chart.
    """
    if flavor != COMMUNITY:
        said = "pull images that are not known here, each asked of the site's registry"
        look = "list them: helm template CHART | yq '..|.image? | select(.)' | sort -u; declare them in [[image]]"
        return [Finding("platform-unknown", "the enterprise charts", said, look, blocking=False)]
    found = []
    for chart, pulls in PULLS.items():
        if missing := sorted({pull.image for pull in pulls if pull.runs} - set(held)):
            said = f"pulls by default what is not in the snapshot: {', '.join(missing)}"
            remedy = "declare them in [[image]], and bring a snapshot; or leave the chart out"
            found.append(Finding("values-image", chart, said, remedy, blocking=False))
    return found


def unnamed(image: str | None, held: Collection[str], who: str) -> list[Finding]:
    """A note if tasks that name no image would run one that is not in the snapshot; ``None`` is one that is not known."""
    if image in held:
        return []
    said = f"{who} run {image}, which is not in the snapshot" if image else f"{who} run what the chart says"
    remedy = 'declare it: image = "…" in [platform.clearml]'
    return [Finding("platform-setting", "platform.clearml.image", said, remedy, blocking=False)]
