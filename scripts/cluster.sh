#!/usr/bin/env bash
# A cluster on this machine: one Cassandra node, three licensed nodes on 127.0.0.1, 127.0.0.2 and
# 127.0.0.3, and two gateways. It runs until Ctrl-C (or SIGTERM), which stops all of it in good order.
#
# Settings, from the environment:
#   DIR       where binaries, logs, pids and Cassandra's data are   ~/.cache/licensed-cluster
#   STORE     URL of a store on a running Cassandra   (default: one is started in DIR)
#   NODES     how many nodes                                        3
#   GATEWAYS  how many gateways, on ports 8080, 8090, …             2
#   HEAP      of Cassandra                                          1G
#
# Systems other than Linux need the addresses of nodes first: ifconfig lo0 alias 127.0.0.2, and so on.
set -euo pipefail
cd "$(dirname "$0")/.."

DIR=$(realpath -m "${DIR:-$HOME/.cache/licensed-cluster}")
NODES=${NODES:-3}
GATEWAYS=${GATEWAYS:-2}
STORE=${STORE:-}
KEYSPACE=licensed
pids=()
own_cassandra=

die() {
  echo "cluster.sh: $*" >&2
  exit 1
}

cassandra() { DIR=$DIR/cassandra LIB=${LIB:-$HOME/.cache/licensed-cassandra/lib-5.0.5} scripts/cassandra.sh "$@"; }

stop() {
  trap - EXIT INT TERM
  echo
  echo "stopping"
  # Gateways first, as one would: nobody asks any more. The nodes then hand over until the last.
  local i
  for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill -TERM "${pids[i]}" 2>/dev/null || true; done
  for i in "${pids[@]}"; do wait "$i" 2>/dev/null || true; done
  if [ -n "$own_cassandra" ]; then cassandra down; fi
  echo "stopped; data and logs are in $DIR"
}

# run NAME ARGUMENTS…: starts a process of the cluster and waits until it is ready.
run() {
  local name=$1 ready=$DIR/$1.ready
  shift
  rm -f "$ready"
  setsid "$DIR/licensed" "$@" --name "$name" --store "$STORE" --join "$join" --ready-file "$ready" >"$DIR/$name.log" 2>&1 &
  pids+=($!)
  for _ in $(seq 600); do
    [ -e "$ready" ] && return
    kill -0 "${pids[-1]}" 2>/dev/null || { tail -n 5 "$DIR/$name.log" >&2; die "$name ended; see $DIR/$name.log"; }
    sleep 0.1
  done
  die "$name was not ready in a minute; see $DIR/$name.log"
}

mkdir -p "$DIR"
go build -o "$DIR/" ./cmd/licensed ./cmd/licensectl
# Callers of the API need a token, as they do in production. The ports are on this machine, so nothing is encrypted.
[ -e "$DIR/dev/auth.yaml" ] || "$DIR/licensed" tokens dev "$DIR/dev" >/dev/null
export LICENSED_AUTH_FILE=$DIR/dev/auth.yaml
trap stop EXIT
trap 'exit 0' INT TERM
if [ -z "$STORE" ]; then
  own_cassandra=1
  # The signal that stops this script must not reach Cassandra before the nodes are done with it.
  cassandra up 1
  STORE="cassandra://127.0.0.1:9042/$KEYSPACE?accept_risk=replication-1"
  "$DIR/licensed" schema apply --create-keyspace 1 --store "$STORE" 2>"$DIR/schema.log" >/dev/null ||
    { tail -n 5 "$DIR/schema.log" >&2; die "the schema could not be applied; see $DIR/schema.log"; }
fi
join=127.0.0.1
for ((i = 2; i <= NODES; i++)); do join+=,127.0.0.$i; done
for ((i = 1; i <= NODES; i++)); do
  run "n$i" node --host "127.0.0.$i"
done
for ((i = 1; i <= GATEWAYS; i++)); do
  run "g$i" gateway --host "127.0.0.$((NODES + i))" --listen "127.0.0.1:$((8070 + 10 * i))"
done

echo
echo "  store    ${STORE%%\?*}"
for ((i = 1; i <= NODES; i++)); do echo "  n$i       pid ${pids[i - 1]}, admin http://127.0.0.$i:8081"; done
for ((i = 1; i <= GATEWAYS; i++)); do
  echo "  g$i       pid ${pids[NODES + i - 1]}, API http://127.0.0.1:$((8070 + 10 * i)), admin http://127.0.0.$((NODES + i)):8081"
done
echo "  logs     $DIR"
cat <<TEXT

Try:
  export LICENSED_TOKEN_FILE=$DIR/dev/all.token   # beside it is a token for each role
  $DIR/licensectl cluster
  $DIR/licensectl acquire Bayley iphone GlowS01E01
  kill -9 ${pids[0]}      # n1: the others have its customers in about three seconds
  $DIR/licensectl cluster drain n2

The dashboards take the same token.

Ctrl-C stops all of it.
TEXT
# A member that is killed, to see what happens, does not end the others.
while :; do sleep 1; done
