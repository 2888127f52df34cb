#!/bin/sh
# Installs what the tests need: the formatter and the linter, PostgreSQL, and two clients of other languages, which go
# to clients/ in cargo's target directory: python/bin/python has psycopg, node/node_modules has pg.
set -eu
cd "$(dirname "$0")/.."

psycopg=3.2.13
pg=8.16.3

fail() {
    printf 'tests/install.sh: %s\n' "$1" >&2
    exit 1
}

for component in rustfmt clippy; do
    case $component in
    rustfmt) command='cargo fmt --version' ;;
    *) command='cargo clippy --version' ;;
    esac
    $command >/dev/null 2>&1 && continue
    command -v rustup >/dev/null 2>&1 || fail "cargo has no $component; install it as you installed Rust"
    rustup --quiet component add "$component" || fail "rustup could not add $component"
done

docker/standin/install.sh --compiler --python --node

clients=${CARGO_TARGET_DIR:-target}/clients
mkdir -p "$clients"
log=$clients/install.log

# A version's stamp is written last, so an interrupted installation is done again.
python=$clients/python
if [ ! -e "$python/psycopg-$psycopg" ]; then
    echo "installing psycopg $psycopg for the client tests" >&2
    rm -rf "$python"
    { python3 -m venv "$python" &&
        "$python/bin/python" -m pip install --quiet --disable-pip-version-check "psycopg[binary]==$psycopg"; } \
        >"$log" 2>&1 || { tail -n 20 "$log" >&2 && fail "psycopg $psycopg could not be installed"; }
    touch "$python/psycopg-$psycopg"
fi

node=$clients/node
if [ ! -e "$node/pg-$pg" ]; then
    echo "installing node-postgres $pg for the client tests" >&2
    rm -rf "$node"
    mkdir -p "$node"
    npm install --silent --no-fund --no-audit --no-save --prefix "$node" "pg@$pg" >"$log" 2>&1 ||
        { tail -n 20 "$log" >&2 && fail "node-postgres $pg could not be installed"; }
    touch "$node/pg-$pg"
fi
