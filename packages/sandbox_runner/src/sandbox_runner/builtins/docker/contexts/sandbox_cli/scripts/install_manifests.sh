#!/bin/sh
# Installs what manifests list: apt|pip|npm FILE..., of which those that are not there count as empty.
# A manifest without entries, and one whose entries are all there, fetches nothing: such an image builds offline.
set -eu

# One entry a line; an entry of apt or npm holds no space, so the rest of its line is a comment.
entries() {
    for file do
        [ ! -f "$file" ] || sed -e 's/^[[:space:]]*//' -e 's/[[:space:]].*$//' -e '/^#/d' -e '/^$/d' "$file"
    done
}

fail() {
    echo "$*" >&2
    exit 1
}

is_installed() {
    want=${1#*=}
    [ "$want" != "$1" ] || want=
    # shellcheck disable=SC2016 # dpkg-query's own variables
    found=$(dpkg-query --show --showformat '${db:Status-Status} ${Version}' "${1%%=*}" 2>/dev/null) || return 1
    [ "$found" = "installed ${want:-${found#* }}" ]
}

install_apt() {
    missing=
    for package in $(entries "$@"); do
        is_installed "$package" || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    command -v apt-get >/dev/null || fail "${1##*/}: this base image has no apt-get to install$missing with"
    export DEBIAN_FRONTEND=noninteractive
    apt-get -o Acquire::Retries=3 update
    # shellcheck disable=SC2086 # one word a package
    apt-get -o Acquire::Retries=3 install --yes --no-install-recommends $missing
    rm -rf /var/lib/apt/lists/*
}

install_pip() {
    # Into an environment of its own: Debian's Python refuses packages that apt did not bring.
    python3 -m venv /opt/venv || fail "${1##*/}: no Python that can make an environment: add python3-venv to apt.txt"
    for file do
        [ ! -f "$file" ] ||
            /opt/venv/bin/python -m pip install --no-cache-dir --disable-pip-version-check --requirement "$file"
    done
}

install_npm() {
    command -v npm >/dev/null || fail "${1##*/}: there is no npm: add npm to apt.txt, or use a base image that has it"
    # shellcheck disable=SC2046 # one word a package
    npm install --global --no-audit --no-fund $(entries "$@")
    npm cache clean --force
}

umask 022 # whoever runs in the sandbox may read what root installed here
kind=$1
shift
[ -n "$(entries "$@")" ] || exit 0
"install_$kind" "$@"
