# Sourced by the other scripts: sets $venv to a fresh virtual environment with what requirements-dev.txt locks.
# shellcheck shell=sh
set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
python=${PYTHON:-python3}

need() { # need PROGRAM PACKAGE: install a Debian package when its program is missing
    command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}

apt_install() {
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" -ne 0 ]; then
        printf 'these Debian packages are missing:%s\nrun: sudo apt-get install%s\n' "$missing" "$missing" >&2
        exit 1
    fi
    apt-get update -qq
    # A list of words.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
}

unpack() { # unpack PACKAGE FOLDER: a Debian package that excludes one which tests need too
    mkdir -p "$2"
    (cd "$2" && apt-get -qq -o APT::Sandbox::User=root download "$1" && dpkg-deb -x "$1"_*.deb . && rm "$1"_*.deb)
}

make_venv() { # make_venv FOLDER: pip only from what is locked; the machine's own pip settings name the index
    venv=$1
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
        printf '%s is older than Python 3.11; set PYTHON to a newer one\n' "$python" >&2
        exit 1
    }
    "$python" -m venv --clear "$venv"
}
missing=
venv=
