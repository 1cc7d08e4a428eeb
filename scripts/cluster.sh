#!/usr/bin/env bash
# A cluster on this machine: one Cassandra node, three licensed nodes on 127.0.0.1, 127.0.0.2 and
# 127.0.0.3, and two gateways. It runs until Ctrl-C (or SIGTERM), which stops all of it in good order.
# Two clusters at a time need two DIRs, two FIRSTs (or NETs) and two APIs.
#
# Settings, from the environment:
#   DIR       where binaries, logs, pids and Cassandra's data are   ~/.cache/licensed-cluster
#   STORE     URL of a store on a running Cassandra   (default: one is started in DIR)
#   NODES     how many nodes                                        3
#   GATEWAYS  how many gateways, on ports API, API + 10, …          2
#   NET, FIRST  node i is on NET.(FIRST+i-1), gateways follow       127.0.0, 1
#   API       port of the first gateway's API, on NET.FIRST         8080
#   ADMIN     admin port of all processes                           8081
#   PORT      Cassandra's port                                      9042
#   HEAP      of Cassandra                                          1G
#   DEMO=1    import customers with a year of history, once; so does the argument --demo
#
# Systems other than Linux need the addresses of nodes first: ifconfig lo0 alias 127.0.0.2, and so on.
set -euo pipefail
cd "$(dirname "$0")/.."

DIR=$(realpath -m "${DIR:-$HOME/.cache/licensed-cluster}")
NODES=${NODES:-3}
GATEWAYS=${GATEWAYS:-2}
NET=${NET:-127.0.0}
FIRST=${FIRST:-1}
API=${API:-8080}
ADMIN=${ADMIN:-8081}
PORT=${PORT:-9042}
STORE=${STORE:-}
DEMO=${DEMO:-}
KEYSPACE=licensed
pids=()
own_cassandra=

die() {
  echo "cluster.sh: $*" >&2
  exit 1
}

case ${1:-} in
"") ;;
--demo) DEMO=1 ;;
*) die "unknown argument $1; use --demo, or variables of the environment" ;;
esac

# address I: of the process I; gateways come after the nodes.
address() { echo "$NET.$((FIRST + $1 - 1))"; }

cassandra() { NET=$NET FIRST=$FIRST PORT=$PORT DIR=$DIR/cassandra LIB=${LIB:-$HOME/.cache/licensed-cassandra/lib-5.0.5} scripts/cassandra.sh "$@"; }

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

# run NAME ARGUMENTS…: starts a process of the cluster.
run() {
  local name=$1 role=$2
  shift
  rm -f "$DIR/$name.ready"
  setsid "$DIR/licensed" "$@" --node-tls-cert "$DIR/dev/$role.pem" --node-tls-key "$DIR/dev/$role-key.pem" --name "$name" --store "$STORE" --join "$join" --ready-file "$DIR/$name.ready" >"$DIR/$name.log" 2>&1 &
  pids+=($!)
}

# await NAME PID: waits until a process is ready.
await() {
  local name=$1
  for _ in $(seq 1800); do
    [ -e "$DIR/$name.ready" ] && return
    kill -0 "$2" 2>/dev/null || { tail -n 5 "$DIR/$name.log" >&2; die "$name ended; see $DIR/$name.log"; }
    sleep 0.1
  done
  die "$name was not ready in three minutes; see $DIR/$name.log"
}

# import_demo: the histories of the demo's own store, as any other export.
import_demo() {
  local demo=$DIR/demo pid
  [ -e "$DIR/demo.imported" ] && return
  rm -f "$DIR/demo.ready"
  env -u LICENSED_AUTH_FILE "$DIR/licensed" dev --data "$demo/data" --listen 127.0.0.1:0 --admin "" \
    --ready-file "$DIR/demo.ready" >"$DIR/demo.log" 2>&1 &
  pid=$!
  pids+=("$pid")
  await demo "$pid"
  "$DIR/licensectl" --server "$(sed 's/.*"api":"\([^"]*\)".*/\1/' "$DIR/demo.ready")" export |
    "$DIR/licensectl" --server "$(address 1):$API" --token-file "$DIR/dev/all.token" import -
  kill -TERM "$pid"
  wait "$pid"
  touch "$DIR/demo.imported"
}

mkdir -p "$DIR"
go build -o "$DIR/" ./cmd/licensed ./cmd/licensectl
# Callers of the API need a token, as they do in production, and processes know each other by certificates of their role.
# API and admin ports are on this machine, so they are not encrypted: a browser needs no certificate.
"$DIR/licensed" certs dev "$DIR/dev" --if-missing >/dev/null
"$DIR/licensed" tokens dev "$DIR/dev" --if-missing >/dev/null
export LICENSED_AUTH_FILE=$DIR/dev/auth.yaml LICENSED_NODE_TLS_CA=$DIR/dev/ca.pem LICENSED_GOSSIP_KEY_FILE=$DIR/dev/gossip.key
export LICENSED_NODE_SANS=spiffe://licensed.dev/process/node LICENSED_GATEWAY_SANS=spiffe://licensed.dev/process/gateway
# A year of history, made by a service that runs by a clock of its own.
[ -z "$DEMO" ] || [ -e "$DIR/demo" ] || "$DIR/licensed" demo "$DIR/demo"
[ -z "$DEMO" ] || export LICENSED_POLICY=$DIR/demo/policy.yaml
trap stop EXIT
trap 'exit 0' INT TERM
if [ -z "$STORE" ]; then
  own_cassandra=1
  # The signal that stops this script must not reach Cassandra before the nodes are done with it.
  cassandra up 1
  STORE="cassandra://$(address 1):$PORT/$KEYSPACE?accept_risk=replication-1"
  "$DIR/licensed" schema apply --create-keyspace 1 --store "$STORE" 2>"$DIR/schema.log" >/dev/null ||
    { tail -n 5 "$DIR/schema.log" >&2; die "the schema could not be applied; see $DIR/schema.log"; }
fi
join=$(address 1)
for ((i = 2; i <= NODES; i++)); do join+=,$(address "$i"); done
# All at once: members find each other as they come.
for ((i = 1; i <= NODES; i++)); do
  run "n$i" node --host "$(address "$i")" --admin "$(address "$i"):$ADMIN"
done
for ((i = 1; i <= GATEWAYS; i++)); do
  run "g$i" gateway --host "$(address $((NODES + i)))" --admin "$(address $((NODES + i))):$ADMIN" \
    --listen "$(address 1):$((API + 10 * (i - 1)))"
done
for ((i = 1; i <= NODES; i++)); do await "n$i" "${pids[i - 1]}"; done
for ((i = 1; i <= GATEWAYS; i++)); do await "g$i" "${pids[NODES + i - 1]}"; done
[ -z "$DEMO" ] || import_demo

echo
echo "  store    ${STORE%%\?*}"
for ((i = 1; i <= NODES; i++)); do echo "  n$i       pid ${pids[i - 1]}, admin http://$(address "$i"):$ADMIN"; done
for ((i = 1; i <= GATEWAYS; i++)); do
  echo "  g$i       pid ${pids[NODES + i - 1]}, API http://$(address 1):$((API + 10 * (i - 1))), admin http://$(address $((NODES + i))):$ADMIN"
done
echo "  logs     $DIR"
cat <<TEXT

Try:
  export LICENSED_SERVER=$(address 1):$API LICENSED_TOKEN_FILE=$DIR/dev/all.token   # beside it is a token for each role
  $DIR/licensectl cluster
  $DIR/licensectl acquire Bayley iphone GlowS01E01
  kill -9 ${pids[0]}      # n1: the others have its customers in about three seconds
  $DIR/licensectl cluster drain n2

The dashboards take the same token.

Ctrl-C stops all of it.
TEXT
# A member that is killed, to see what happens, does not end the others.
while :; do sleep 1; done
