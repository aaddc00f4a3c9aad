# Written by haversack render clients, of snapshot 2026-11 (sha256:16a0eeb0791b…).
# Read it into a shell:  . /etc/haversack/env.sh
# No password is in it or beside it.  pip, uv, git and curl read ~/.netrc, which only you may read:
#     machine mirror.example.org login NAME password SECRET
# `podman login`, `docker login` and `pixi auth login` keep theirs themselves.
# What would lead past the mirror:
unset PIP_FIND_LINKS PIP_NO_INDEX PIP_TRUSTED_HOST UV_EXTRA_INDEX_URL UV_FIND_LINKS UV_INDEX UV_INDEX_URL UV_NO_CONFIG UV_NO_INDEX
export CONDARC=/etc/haversack/condarc
export CONDA_SSL_VERIFY=/etc/haversack/ca.pem
export CONTAINERS_REGISTRIES_CONF=/etc/haversack/registries.conf
export CURL_CA_BUNDLE=/etc/haversack/ca.pem
export GIT_CONFIG_COUNT=1
export GIT_CONFIG_KEY_0=include.path
export GIT_CONFIG_VALUE_0=/etc/haversack/gitconfig
export GIT_SSL_CAINFO=/etc/haversack/ca.pem
export PIP_CERT=/etc/haversack/ca.pem
export PIP_CONFIG_FILE=/etc/haversack/pip.conf
export PIP_EXTRA_INDEX_URL=https://mirror.example.org/pypi/simple/
export PIP_INDEX_URL=https://mirror.example.org/pypi/simple/
export REQUESTS_CA_BUNDLE=/etc/haversack/ca.pem
export SSL_CERT_FILE=/etc/haversack/ca.pem
export UV_CONFIG_FILE=/etc/haversack/uv.toml
export UV_DEFAULT_INDEX=https://mirror.example.org/pypi/simple/
export UV_PYTHON_DOWNLOADS=never
# skopeo reads no variable for this:
skopeo() { command skopeo --registries-conf "$CONTAINERS_REGISTRIES_CONF" "$@"; }
