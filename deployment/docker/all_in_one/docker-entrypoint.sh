#!/bin/sh
# Starts the service as appuser, who may speak to the host's engine through its socket if that is mounted here.
# The socket belongs to a group of the host, whose number differs from host to host: appuser joins whichever it is.
# Started as root; everything else here happens as appuser. It must not fail for want of an engine.
set -eu

socket=/var/run/docker.sock
user=appuser
wait_s=15 # for an engine that answers slowly

say() { echo "[entrypoint] $*"; }

# Prints the gid; GNU and BSD name the option differently.
gid_of() { stat -Lc %g "$1" 2>/dev/null || stat -Lf %g "$1" 2>/dev/null; }

# Prints the name of the group with that gid.
group_of() { getent group "$1" | cut -d: -f1; }

join_group() {
    group=$(group_of "$1")
    if [ -n "$group" ]; then
        say "Group '$group' (GID $1) already exists"
    else
        group=dockerhost
        say "Creating group '$group' with GID $1"
        # It is there with another gid if this container was started before, by another engine.
        groupadd --gid "$1" "$group" || groupmod --gid "$1" "$group" || return
    fi
    say "Adding $user to group '$group'"
    usermod --append --groups "$group" "$user"
}

# As appuser and not as root, who may do anything; by the same means that start the service.
test_access() { timeout "$wait_s" gosu "$user" docker ps >/dev/null 2>&1; }

set_up_docker() {
    if ! [ -S "$socket" ]; then
        say "⚠️  Docker socket not found at $socket"
        say "Continuing without Docker-in-Docker support..."
        return
    fi
    if ! gid=$(gid_of "$socket"); then
        say "⚠️  Warning: the group of $socket cannot be read, but continuing..."
        return
    fi
    say "Docker socket found with GID: $gid"
    if join_group "$gid" && test_access; then
        say "✅ Docker access verified for $user"
    else
        say "⚠️  Warning: Docker access test failed, but continuing..."
    fi
}

# The service's log is on standard error, which `docker logs NAME | grep WORD` does not look at.
[ "${1-} ${2-}" != "isorun serve" ] || exec 2>&1

say "Starting Docker-in-Docker setup..."
if [ "$(id -u)" -ne 0 ]; then
    say "⚠️  Not started as root (UID $(id -u)): groups and user stay as they are"
    exec "$@"
fi
set_up_docker
say "Switching to user $user (UID $(id -u "$user"))"
exec gosu "$user" "$@"
