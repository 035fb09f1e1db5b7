#!/bin/sh
# Makes the executor image of a base image that has Python and pip; the Dockerfile runs it as root, once.
set -eu
umask 022 # who runs in the image is not root, and must read what is installed here

uid=1001 gid=1000 name=isorun # what every program sees of itself, on every backend

fail() {
    echo "install.sh: $*" >&2
    exit 1
}

check_base() {
    command -v python3 >/dev/null || fail "the base image has no python3"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
        || fail "the base image has $(python3 --version); 3.11 or newer is needed"
    python3 -m pip --version >/dev/null || fail "the base image has no pip"
}

# Into the Python that every PATH finds, also where Debian's own would rather have it in an environment. Wheels only, so
# that no package's own code runs here, and no index address: pip's usual one, or the one that the base image names.
# --ignore-installed: what the base has of apt stays where it is, because pip cannot remove it; ours is found first.
install_packages() {
    # What the base trusts, which may be more than what pip brings along.
    authorities=/etc/ssl/certs/ca-certificates.crt
    [ ! -s "$authorities" ] || export PIP_CERT="$authorities"
    PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore python3 -m pip install \
        --no-cache-dir --disable-pip-version-check --no-input --progress-bar off \
        --ignore-installed --only-binary :all: --require-hashes --requirement "$1"
    # A sixth of all that was installed, and no program's.
    rm -rf "$(python3 -c 'from importlib.util import find_spec; print(*find_spec("pandas").submodule_search_locations)')/tests"
}

# For figures and pictures with Chinese, Japanese or Korean text, symbols and emoji: 3 MB to fetch, 9 MB in the image.
# matplotlib brings only DejaVu. Where the base has no apt, or no mirror answers, the image goes without them.
add_fonts() {
    command -v apt-get >/dev/null || return 0
    set -- -qq -o Acquire::Retries=0 -o Acquire::http::Timeout=10 -o Acquire::https::Timeout=10
    { apt-get "$@" update && DEBIAN_FRONTEND=noninteractive apt-get "$@" install --no-install-recommends --yes \
        fonts-wqy-microhei fonts-symbola >/dev/null; } 2>&1 \
        || echo "install.sh: no fonts for Chinese, Japanese, Korean or emoji: apt-get cannot fetch them here" >&2
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin
}

# Programs that start `python` mean the one they run on.
add_python() {
    command -v python >/dev/null || ln -s "$(command -v python3)" /usr/local/bin/python
}

# One account for the program's ids, whoever had them in the base image.
add_account() {
    sed -i -e "/^$name:/d" -e "/^[^:]*:[^:]*:$uid:/d" /etc/passwd
    echo "$name:x:$uid:$gid:$name:/tmp:/bin/sh" >>/etc/passwd
    grep -q "^[^:]*:[^:]*:$gid:" /etc/group || echo "$name:x:$gid:" >>/etc/group
}

# Not needed by any program, and one wall more behind no-new-privileges.
drop_setuid() {
    find / -xdev -type f -perm /6000 -exec chmod ug-s {} +
}

check_base
install_packages "$(dirname "$0")/requirements.txt"
add_fonts
add_python
add_account
drop_setuid
mkdir -p /workspace/work /workspace/out /mnt
[ -e /mnt/data ] || ln -s /workspace/out /mnt/data # a name for it that models have learnt elsewhere
