#!/bin/sh
# Install what the tests need into .venv-test and run them: linters, types, tests.
# Arguments go to pytest: --cov measures coverage, which Python 3.11 cannot do for thousands of threads without a race.
# shellcheck source=scripts/venv.sh
. "$(dirname -- "$0")/venv.sh"
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
# A service of systemd sees no Python that lies in a home.
need /usr/bin/python3 python3
need git git
need dpkg-deb dpkg
need strace strace
need gcc 'gcc libc6-dev'
need unshare util-linux
need ip iproute2
need mkfs.ext4 e2fsprogs
need skopeo skopeo
need umoci umoci
need podman podman
need docker-registry docker-registry
need htpasswd apache2-utils
need nginx nginx-light
need runc runc
need containerd containerd
need chromium chromium
need faketime faketime
need setpriv util-linux
need shellcheck shellcheck
need openssl openssl
need curl curl
need promtool prometheus
need zsh zsh
need fish fish
need tcsh tcsh
need strip binutils
need sbatch slurm-wlm
need munged munge
need nsenter util-linux
need modulecmd environment-modules
need lua5.3 'lua5.3 lua-filesystem lua-json lua-posix lua-term'
need kubectl kubernetes-client
need ssh openssh-client
need sshd openssh-server
need rsync rsync
need systemd-analyze systemd
need nix-instantiate nix-bin
need visudo sudo
apt_install
make_venv .venv-test
# It and environment-modules exclude each other.
unpack lmod "$venv/lmod"
# uv first, by pip: it installs the rest in seconds instead of minutes.
awk '/^uv==/ { mine = 1 } mine { print } mine && !/\\$/ { exit }' requirements-dev.txt >"$venv/uv.txt"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$venv/uv.txt"
"$venv/bin/uv" pip install --quiet --no-config --python "$venv/bin/python" --require-hashes -r requirements-dev.txt
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
"$venv/bin/ruff" check .
"$venv/bin/ruff" format --check .
"$venv/bin/mypy"
shellcheck -x scripts/*.sh src/haversack/data/bootstrap.sh src/haversack/data/activate/activate.sh .ci/run
exec "$venv/bin/python" -m pytest -n 2 --dist loadscope --timeout 600 "$@"
