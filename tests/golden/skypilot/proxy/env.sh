# Written by haversack render skypilot, of snapshot 2026-11 (sha256:15c803c6332c…), declaration sha256:e3b0c44298fc….
# Read it into the shell that starts the API server, and not into those of clients:  . env.sh
unset SKYPILOT_API_SERVER_ENDPOINT SKYPILOT_DISABLE_LOCAL_API_SERVER
# Put the bin of the environment skypilot first on PATH: it was not installed when this was rendered.
export DO_NOT_TRACK=1
export PIP_NO_BUILD_ISOLATION=0
export SCARF_NO_ANALYTICS=1
export SKYPILOT_DISABLE_USAGE_COLLECTION=1
# Its own way out. What it reaches without the proxy (the cluster's API, as kubectl names it) must be in no_proxy.
export HTTP_PROXY=http://proxy-host:3128
export HTTPS_PROXY=http://proxy-host:3128
export http_proxy=http://proxy-host:3128
export https_proxy=http://proxy-host:3128
export NO_PROXY=localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local,::1,169.254.169.254
export no_proxy=localhost,127.0.0.1,10.0.0.0/8,.svc,.cluster.local,::1,169.254.169.254
