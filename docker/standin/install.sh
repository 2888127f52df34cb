#!/bin/sh
# Installs what the stand-in needs: PostgreSQL's server programs and psql. Optional parts by flag:
#   --compiler   a C compiler and linker, for building
#   --pgbouncer  PgBouncer, for the side-by-side bench
#   --haproxy    HAProxy, for the same
#   --pgpool     Pgpool-II, for the same
#   --python     Python with venv, for client tests
#   --node       Node.js with npm, for client tests
# What is there already is left alone. No PostgreSQL server is started or configured by it.
set -eu

fail() {
    printf 'install.sh: %s\n' "$1" >&2
    exit 1
}

has() { command -v "$1" >/dev/null 2>&1; }

# As the stand-in searches.
has_postgresql() {
    if [ -n "${TOLLGATE_PG_BIN:-}" ]; then
        [ -x "$TOLLGATE_PG_BIN/initdb" ] && [ -x "$TOLLGATE_PG_BIN/postgres" ] && return 0
        fail "TOLLGATE_PG_BIN is $TOLLGATE_PG_BIN, which does not have PostgreSQL's initdb and postgres"
    fi
    has initdb && has postgres && return 0
    for directory in /usr/lib/postgresql/*/bin; do
        [ -x "$directory/initdb" ] && [ -x "$directory/postgres" ] && return 0
    done
    return 1
}

has_pgbouncer() { has pgbouncer || [ -x /usr/sbin/pgbouncer ]; }
has_haproxy() { has haproxy || [ -x /usr/sbin/haproxy ]; }
has_pgpool() { has pgpool || [ -x /usr/sbin/pgpool ]; }
has_venv() { has python3 && python3 -c 'import venv, ensurepip' 2>/dev/null; }

packages=
has_postgresql || packages="$packages postgresql"
has psql || packages="$packages postgresql-client"
for flag in "$@"; do
    case $flag in
    --compiler) has cc || packages="$packages gcc libc6-dev" ;;
    --pgbouncer) has_pgbouncer || packages="$packages pgbouncer" ;;
    --haproxy) has_haproxy || packages="$packages haproxy" ;;
    --pgpool) has_pgpool || packages="$packages pgpool2" ;;
    --python) has_venv || packages="$packages python3 python3-venv" ;;
    --node) { has node && has npm; } || packages="$packages nodejs npm" ;;
    *) fail "there is no flag $flag; the flags are --compiler, --pgbouncer, --haproxy, --pgpool, --python, --node" ;;
    esac
done
[ -n "$packages" ] || exit 0

has apt-get || fail "this machine has no apt-get; install these yourself:$packages (their names in Debian)"
if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif has sudo; then
    as_root=sudo
else
    fail "run it as root, or install sudo; missing are:$packages"
fi

printf 'installing%s\n' "$packages" >&2
log=$(mktemp)
# Without these two, Debian's packages would start servers of their own.
no_cluster=/etc/postgresql-common/createcluster.d/tollgate-no-main-cluster.conf
no_start=/usr/sbin/policy-rc.d
made_no_start=
tidy() {
    $as_root rm -f "$no_cluster"
    [ -z "$made_no_start" ] || $as_root rm -f "$no_start"
    rm -f "$log"
}
trap tidy EXIT
trap 'exit 130' INT TERM
$as_root mkdir -p "${no_cluster%/*}"
echo 'create_main_cluster = false' | $as_root tee "$no_cluster" >/dev/null
if [ ! -e "$no_start" ]; then
    made_no_start=yes
    printf '#!/bin/sh\nexit 101\n' | $as_root tee "$no_start" >/dev/null
    $as_root chmod 755 "$no_start"
fi

apt() {
    # shellcheck disable=SC2086 # as_root is one word or none
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@" >>"$log" 2>&1 </dev/null
}
# a list that cannot be renewed may still be good enough
apt update || true
# shellcheck disable=SC2086 # one word for each package
if ! apt install --yes --no-install-recommends $packages; then
    tail -n 20 "$log" >&2
    fail "apt-get could not install$packages"
fi
