#!/bin/sh
# Install haversack from this bundle into PREFIX: sh bootstrap.sh [PREFIX]
# Needs a POSIX shell, sha256sum (or shasum) and Python 3.11 or later; no network, no pip.
# Without such a Python, an interpreter archive in the bundle is used if there is one.
set -eu
umask 022

say() { printf '%s\n' "bootstrap: $*" >&2; }
die() { say "$*"; exit 1; }

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=${1:-}
if [ -z "$prefix" ]; then
    [ -n "${HOME:-}" ] || die "HOME is not set: name the folder to install into (sh bootstrap.sh PREFIX)"
    prefix=$HOME/.local/share/haversack/tool
fi
case $prefix in
    -h | --help) say "usage: sh bootstrap.sh [PREFIX]"; exit 0 ;;
    -*) die "unknown option $prefix (usage: sh bootstrap.sh [PREFIX])" ;;
    /*) ;;
    *) prefix=$PWD/$prefix ;;
esac
# Names beside the prefix are made from it: tool/ would put them into the folder.
while [ "${prefix%/}" != "$prefix" ]; do
    prefix=${prefix%/}
done
case $prefix in
    "" | */. | */..) die "${prefix:-/} is no name of a folder to install into" ;;
esac

# Whatever the machine is set to, only this bundle is installed from.
for name in $(env | sed -n 's/^\(\(UV\|PIP\|CONDA\|PYTHON\)[A-Za-z0-9_]*\)=.*/\1/p') VIRTUAL_ENV; do
    unset "$name"
done

if [ -L "$prefix" ]; then
    die "$prefix is a symbolic link; name the folder that it leads to"
fi
if [ -e "$prefix" ] && [ ! -e "$prefix/.haversack-tool" ]; then
    if [ ! -d "$prefix" ] || [ -n "$(ls -A "$prefix")" ]; then
        die "$prefix exists and is not an earlier haversack; choose another folder"
    fi
fi

check() { # check LIST: what sha256sum -c does, with whichever tool is here
    if command -v sha256sum >/dev/null 2>&1; then
        sha256sum -c --strict --quiet "$1" >&2
    elif command -v shasum >/dev/null 2>&1; then
        shasum -a 256 -c --strict --quiet "$1" >&2
    else
        die "neither sha256sum nor shasum is here to check $1"
    fi
}
cd "$here"
check SHA256SUMS || die "this volume is damaged: copy it again from its source"
say "SHA256SUMS is right"

case $(uname -s)-$(uname -m) in
    Linux-x86_64) platform=linux-x86_64 ;;
    Linux-aarch64 | Linux-arm64) platform=linux-aarch64 ;;
    Darwin-arm64) platform=macos-arm64 ;;
    Darwin-x86_64) platform=macos-x86_64 ;;
    *) die "no haversack for $(uname -s) $(uname -m)" ;;
esac
table=environments/haversack.$platform.sha256
[ -f "$table" ] || die "this bundle brings no haversack for $platform"

# The other volumes may stand beside this one, and a large file be cut into parts.
assemble() { # assemble SHA256 DEST
    for found in blobs/sha256/"$1" ../*/blobs/sha256/"$1"; do
        if [ -f "$found" ]; then
            cp "$found" "$2"
            return 0
        fi
    done
    for found in ../*/parts/"$1".*; do
        [ -f "$found" ] || return 1
        cat "$found" >> "$2"
    done
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' HUP INT TERM
mkdir "$work/files"
archive=
while read -r sum name; do
    assemble "$sum" "$work/files/$name" ||
        die "$name is not on this volume nor beside it; an increment does not bring haversack again: use the one that is installed"
    case $name in
        *.whl) ;;
        *) archive=$work/files/$name ;;
    esac
done < "$table"
# What stands beside this volume was not covered by its SHA256SUMS.
(cd "$work/files" && check "$here/$table") || die "a file of haversack is damaged: copy the volumes again from their source"

usable() {
    command -v "$1" >/dev/null 2>&1 && "$1" -I -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}
python=
for name in python3 python3.11 python3.12 python3.13 python3.14 python; do
    if usable "$name"; then
        python=$(command -v "$name")
        break
    fi
done
if [ -z "$python" ]; then
    [ -n "$archive" ] || die "no Python 3.11 or later is here, and the bundle brings none: declare [target] interpreter"
    mkdir -p "$prefix.python"
    tar -xf "$archive" -C "$prefix.python"
    for name in "$prefix.python"/bin/python3 "$prefix.python"/*/bin/python3; do
        if usable "$name"; then
            python=$name
            break
        fi
    done
    [ -n "$python" ] || die "the interpreter archive of the bundle has no usable bin/python3"
fi
say "using $python ($("$python" -I -c 'import platform; print(platform.python_version())'))"

# uv travels as a wheel: the program in it is all that is needed to install the rest.
"$python" -I -c '
import glob, os, stat, sys, zipfile
work = sys.argv[1]
(wheel,) = glob.glob(work + "/files/uv-*.whl")
with zipfile.ZipFile(wheel) as archive:
    (name,) = [n for n in archive.namelist() if n.endswith(("/scripts/uv", "/scripts/uv.exe"))]
    with open(work + "/uv", "wb") as file:
        file.write(archive.read(name))
os.chmod(work + "/uv", 0o755)
' "$work"
export UV_NO_CONFIG=1 UV_OFFLINE=1 UV_PYTHON_DOWNLOADS=never UV_CACHE_DIR="$work/cache" UV_LINK_MODE=copy
new=$prefix.new.$$
rm -rf "$new"
mkdir -p "$(dirname -- "$prefix")"
"$work/uv" venv --quiet --relocatable --python "$python" "$new"
"$work/uv" pip install --quiet --python "$new/bin/python" --no-index --find-links "$work/files" \
    --require-hashes -r "environments/haversack.$platform.requirements.txt"
: > "$new/.haversack-tool"
if [ -e "$prefix" ]; then
    rm -rf "$prefix.old.$$"
    mv "$prefix" "$prefix.old.$$"
fi
mv "$new" "$prefix"
rm -rf "$prefix.old.$$"
say "installed: $prefix/bin/haversack"
"$prefix/bin/haversack" --version
