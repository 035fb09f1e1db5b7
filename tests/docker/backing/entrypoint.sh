#!/bin/sh
# Starts Redis, or PostgreSQL; the first time it makes the database that the variables name.
set -eu

as() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --init-groups "$@"; }

if [ "$1" != postgres ]; then
    exec setpriv --reuid redis --regid redis --init-groups "$@"
fi
bin=$(echo /usr/lib/postgresql/*/bin)
mkdir -p "$PGDATA" /var/run/postgresql
chown postgres:postgres "$PGDATA" /var/run/postgresql
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    [ -n "${POSTGRES_PASSWORD-}" ] || { echo "POSTGRES_PASSWORD is empty" >&2; exit 1; }
    echo "$POSTGRES_PASSWORD" >/tmp/password
    chown postgres /tmp/password
    as postgres "$bin/initdb" -D "$PGDATA" -U "$POSTGRES_USER" --auth-local=trust --auth-host=scram-sha-256 \
        --pwfile=/tmp/password --no-sync
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    as postgres "$bin/pg_ctl" -D "$PGDATA" -w -o "-c listen_addresses=" start
    [ "$POSTGRES_DB" = postgres ] || as postgres "$bin/createdb" -U "$POSTGRES_USER" "$POSTGRES_DB"
    as postgres "$bin/pg_ctl" -D "$PGDATA" -w stop
fi
exec setpriv --reuid postgres --regid postgres --init-groups "$bin/postgres" -D "$PGDATA" -c 'listen_addresses=*'
