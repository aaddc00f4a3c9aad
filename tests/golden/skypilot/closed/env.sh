# Written by haversack render skypilot, of snapshot 2026-11 (sha256:15c803c6332c…), declaration sha256:e3b0c44298fc….
# Read it into the shell that starts the API server, and not into those of clients:  . env.sh
unset SKYPILOT_API_SERVER_ENDPOINT SKYPILOT_DISABLE_LOCAL_API_SERVER
# Put the bin of the environment skypilot first on PATH: it was not installed when this was rendered.
export DO_NOT_TRACK=1
export PIP_NO_BUILD_ISOLATION=0
export SCARF_NO_ANALYTICS=1
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
# Its own way out. What it reaches without the proxy (the cluster's API, as kubectl names it) must be in no_proxy.
# Its URL holds a password, and stands in that secret alone: take the # away where this machine may read it.
# HTTP_PROXY="$(kubectl get secret site-proxy -o 'jsonpath={.data.proxy}' | base64 -d)"; export HTTP_PROXY
# export HTTPS_PROXY="$HTTP_PROXY"
# export http_proxy="$HTTP_PROXY"
# export https_proxy="$HTTP_PROXY"
export NO_PROXY=10.96.0.0/12,k8s.example.org,mirror.example.org,localhost,127.0.0.1,::1,169.254.169.254,.svc,.cluster.local
export no_proxy=10.96.0.0/12,k8s.example.org,mirror.example.org,localhost,127.0.0.1,::1,169.254.169.254,.svc,.cluster.local
