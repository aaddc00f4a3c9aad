#!/bin/sh
# Install haversack into .venv-demo and run its demo.
# shellcheck source=scripts/venv.sh
. "$(dirname -- "$0")/venv.sh"
"${PYTHON:-python3}" -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
need "${PYTHON:-python3}" python3
apt_install
make_venv .venv-demo
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check .
exec "$venv/bin/haversack" demo "$@"
