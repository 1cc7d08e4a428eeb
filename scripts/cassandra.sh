#!/usr/bin/env bash
# Apache Cassandra on loopback addresses, from its Maven artifacts: for tests and benchmarks, no
# container engine needed. Needs JDK 17 and Maven (for the first run only, to fetch the artifacts).
#
#   cassandra.sh up [N]        start nodes 1 … N (default 1) and wait until they accept clients
#   cassandra.sh down          stop the nodes started from DIR; their data stays
#   cassandra.sh destroy       down, and remove their data
#   cassandra.sh start|stop I  start or stop node I           cassandra.sh kill I    kill -9 node I
#   cassandra.sh pause I       SIGSTOP node I                  cassandra.sh resume I  SIGCONT node I
#   cassandra.sh status        one line per node               cassandra.sh addresses HOST:PORT,…
#   cassandra.sh nodetool I …  Cassandra's nodetool on node I  cassandra.sh fetch     only the artifacts
#   cassandra.sh java          which Java it would use
#
# Settings, from the environment. A cluster is its DIR: two of them need two NETs (or FIRSTs).
#   DIR      where nodes keep data, logs and pids    ~/.cache/licensed-cassandra
#   LIB      where the artifacts are cached          ~/.cache/licensed-cassandra/lib-VERSION
#   VERSION  of org.apache.cassandra:cassandra-all   5.0.5
#   NET, FIRST  node I listens on NET.(FIRST+I-1)    127.0.0, 1
#   SEED     address of a node to join               that of node 1
#   PORT     native protocol                         9042
#   HEAP     of each node                            1G (512M is enough for each of three)
#   SYNC     commitlog_sync: periodic|batch|group    periodic
#   COMMITLOG  parent of the commit logs             DIR (a small tmpfs shows a full disk)
#   COMMITLOG_TOTAL  commitlog_total_space           Cassandra's own
#   AUTH     none|password (cassandra/cassandra)     none
#   TLS      none|required (clients trust DIR/nI/cert.pem)  none
#            |mutual (certificate and key of KEYSTORE, clients by a CA of TRUSTSTORE: PEM files)
#   TIMEOUT  of reads, writes and compare-and-sets   Cassandra's own (2s, 5s)
#   BATCH_WARN_KIB, BATCH_WARN_PARTITIONS            5, 10: Cassandra's own defaults
#   WAIT     seconds to wait for a node              180
set -euo pipefail

VERSION=${VERSION:-5.0.5}
DIR=${DIR:-$HOME/.cache/licensed-cassandra}
LIB=${LIB:-$HOME/.cache/licensed-cassandra/lib-$VERSION}
NET=${NET:-127.0.0}
FIRST=${FIRST:-1}
PORT=${PORT:-9042}
HEAP=${HEAP:-1G}
SYNC=${SYNC:-periodic}
COMMITLOG=${COMMITLOG:-$DIR}
AUTH=${AUTH:-none}
TLS=${TLS:-none}
BATCH_WARN_KIB=${BATCH_WARN_KIB:-5}
BATCH_WARN_PARTITIONS=${BATCH_WARN_PARTITIONS:-10}
DIR=$(realpath -m "$DIR")
LIB=$(realpath -m "$LIB")
COMMITLOG=$(realpath -m "$COMMITLOG")
WAIT=${WAIT:-180}

die() {
  echo "cassandra.sh: $*" >&2
  exit 1
}

# java_command: the Java 17 of JAVA_HOME, of PATH, or of the usual place of packages.
java_command() {
  local java version seen=
  for java in ${JAVA_HOME:+"$JAVA_HOME/bin/java"} java /usr/lib/jvm/*17*/bin/java; do
    java=$(command -v "$java") || continue
    version=$("$java" -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p;T;q')
    if [ "$version" = 17 ]; then
      echo "$java"
      return
    fi
    seen="$seen; $java is Java ${version:-of an unknown version}"
  done
  die "Cassandra 5.0 needs a JDK 17 (Debian: openjdk-17-jdk-headless)$seen: set JAVA_HOME"
}

fetch() {
  [ -e "$LIB/.done" ] && return
  command -v mvn >/dev/null || die "no Maven, which fetches Cassandra's artifacts (Debian: maven); or set LIB to a directory of its jars with a file .done in it"
  java_command >/dev/null
  mkdir -p "$LIB"
  exec 8>"$LIB/.lock"
  flock 8
  [ -e "$LIB/.done" ] && return
  cat >"$LIB/pom.xml" <<POM
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>licensed</groupId><artifactId>cassandra</artifactId><version>1</version><dependencies><dependency>
<groupId>org.apache.cassandra</groupId><artifactId>cassandra-all</artifactId><version>$VERSION</version>
</dependency></dependencies></project>
POM
  local attempt
  for attempt in 1 2 3; do # What was fetched before a repository failed is not fetched again.
    mvn -q -B -f "$LIB/pom.xml" dependency:copy-dependencies -DoutputDirectory="$LIB" -DincludeScope=runtime >&2 &&
      { touch "$LIB/.done"; return; }
    sleep $((attempt * 5))
  done
  die "Maven could not fetch org.apache.cassandra:cassandra-all:$VERSION"
}

address() { echo "$NET.$((FIRST + $1 - 1))"; }

# pid I: the process of node I, if it is running and really is the one started from this DIR.
pid() {
  local p
  p=$(cat "$DIR/n$1/pid" 2>/dev/null) || return 1
  tr '\0' '\n' <"/proc/$p/cmdline" 2>/dev/null | grep -qxF -- "-Dcassandra.storagedir=$DIR/n$1" || return 1
  echo "$p"
}

running() { pid "$1" || die "node $1 of $DIR is not running"; }

accepts() { (echo >"/dev/tcp/$(address "$1")/$PORT") 2>/dev/null; }

nodes() {
  local d
  for d in "$DIR"/n[0-9]*; do [ -d "$d" ] && echo "${d##*/n}"; done | sort -n
}

# certificate I: a key for node I, and its certificate for clients to trust.
certificate() {
  local d=$DIR/n$1
  [ -e "$d/cert.pem" ] && return
  local keytool
  keytool=$(dirname "$(realpath "$(java_command)")")/keytool
  "$keytool" -genkeypair -alias node -keyalg EC -dname CN=cassandra -ext "SAN=ip:$(address "$1")" -validity 365 \
    -keystore "$d/conf/keystore" -storepass licensed -keypass licensed 2>"$d/keytool.log" &&
    "$keytool" -exportcert -rfc -alias node -keystore "$d/conf/keystore" -storepass licensed -file "$d/cert.pem" 2>>"$d/keytool.log" ||
    die "no certificate for node $1: $(cat "$d/keytool.log")"
}

configure() {
  local d=$DIR/n$1 sync auth=AllowAllAuthenticator authorizer=AllowAllAuthorizer
  case $SYNC in
  periodic) sync=$'commitlog_sync: periodic\ncommitlog_sync_period: 10s' ;;
  batch) sync='commitlog_sync: batch' ;;
  group) sync=$'commitlog_sync: group\ncommitlog_sync_group_window: 5ms' ;;
  *) die "SYNC is $SYNC; it must be periodic, batch or group" ;;
  esac
  [ "$AUTH" = password ] && auth=PasswordAuthenticator authorizer=CassandraAuthorizer
  mkdir -p "$d/conf"
  local tls='{enabled: false}'
  case $TLS in
  required)
    certificate "$1"
    tls="{enabled: true, optional: false, keystore: $d/conf/keystore, keystore_password: licensed}" ;;
  mutual)
    tls="{enabled: true, optional: false, require_client_auth: true, keystore: $KEYSTORE, truststore: $TRUSTSTORE,
      ssl_context_factory: {class_name: org.apache.cassandra.security.PEMBasedSslContextFactory}}" ;;
  esac
  cat >"$d/conf/cassandra.yaml" <<YAML
cluster_name: licensed
num_tokens: 4
partitioner: org.apache.cassandra.dht.Murmur3Partitioner
data_file_directories: [$d/data]
commitlog_directory: $COMMITLOG/n$1/commitlog
saved_caches_directory: $d/saved_caches
hints_directory: $d/hints
cdc_raw_directory: $d/cdc
$sync
${TIMEOUT:+read_request_timeout: $TIMEOUT
write_request_timeout: $TIMEOUT
range_request_timeout: $TIMEOUT
truncate_request_timeout: $TIMEOUT
cas_contention_timeout: $TIMEOUT}
${COMMITLOG_TOTAL:+commitlog_total_space: $COMMITLOG_TOTAL}
client_encryption_options: $tls
disk_access_mode: mmap_index_only
listen_address: $(address "$1")
rpc_address: $(address "$1")
native_transport_port: $PORT
endpoint_snitch: SimpleSnitch
seed_provider:
  - class_name: org.apache.cassandra.locator.SimpleSeedProvider
    parameters: [{seeds: "${SEED:-$(address 1)}"}]
authenticator: $auth
authorizer: $authorizer
paxos_variant: v2
auto_snapshot: false
batch_size_warn_threshold: ${BATCH_WARN_KIB}KiB
unlogged_batch_across_partitions_warn_threshold: $BATCH_WARN_PARTITIONS
memtable_allocation_type: offheap_objects
memtable: {configurations: {trie: {class_name: TrieMemtable}, default: {inherits: trie}}}
storage_compatibility_mode: NONE
sstable: {selected_format: bti}
YAML
  cat >"$d/conf/logback.xml" <<XML
<configuration><appender name="F" class="ch.qos.logback.core.FileAppender"><file>$d/system.log</file><encoder>
<pattern>%-5level [%thread] %date{ISO8601} %F:%L - %msg%n</pattern></encoder></appender>
<root level="INFO"><appender-ref ref="F"/></root></configuration>
XML
}

# What Cassandra's own conf/jvm17-server.options opens to it.
EXPORTS="java.base/jdk.internal.misc java.management.rmi/com.sun.jmx.remote.internal.rmi java.rmi/sun.rmi.registry
  java.rmi/sun.rmi.server java.sql/java.sql java.base/java.lang.ref jdk.unsupported/sun.misc jdk.attach/sun.tools.attach"
OPENS="java.base/java.lang.module java.base/jdk.internal.loader java.base/jdk.internal.ref java.base/jdk.internal.reflect
  java.base/jdk.internal.math java.base/jdk.internal.module java.base/jdk.internal.util.jar java.base/sun.nio.ch
  jdk.management/com.sun.management.internal java.base/java.io java.base/java.nio java.base/java.util
  java.base/java.util.concurrent java.base/java.util.concurrent.atomic java.base/java.lang
  java.base/java.lang.reflect jdk.compiler/com.sun.tools.javac java.rmi/sun.rmi.transport.tcp"

module_options() {
  local m
  for m in $EXPORTS java.rmi/sun.rmi.transport.tcp; do echo "--add-exports=$m=ALL-UNNAMED"; done
  for m in $OPENS java.base/java.lang.ref; do echo "--add-opens=$m=ALL-UNNAMED"; done
}

# JMX is always on 127.0.0.1, so its port must be nobody else's.
free_port() {
  local p
  for p in $(shuf -i 20000-29999 -n 50); do
    (echo >"/dev/tcp/127.0.0.1/$p") 2>/dev/null || { echo "$p"; return; }
  done
  die "no free port for JMX"
}

launch() {
  local d=$DIR/n$1 java options
  pid "$1" >/dev/null && { await "$1"; return; }
  accepts "$1" && die "something else listens on $(address "$1"):$PORT; set NET, FIRST or PORT"
  java=$(java_command)
  mapfile -t options < <(module_options)
  free_port >"$d/jmx"
  CASSANDRA_JMX=$(cat "$d/jmx")
  setsid nohup "$java" -Xms"$HEAP" -Xmx"$HEAP" -XX:+UseG1GC -Xss256k -XX:+ExitOnOutOfMemoryError -XX:ErrorFile="$d/hs_err_pid%p.log" "${options[@]}" \
    -Djdk.attach.allowAttachSelf=true -Dio.netty.tryReflectionSetAccessible=true \
    -Dcassandra.config="file://$d/conf/cassandra.yaml" -Dlogback.configurationFile="file://$d/conf/logback.xml" \
    -Dcassandra.storagedir="$d" -Dcassandra.logdir="$d" -Dcassandra.jmx.local.port="$CASSANDRA_JMX" \
    -Dcassandra.superuser_setup_delay_ms=0 -Dcassandra.ring_delay_ms=2000 -Dcassandra.skip_wait_for_gossip_to_settle=0 \
    -cp "$d/conf:$LIB/*" org.apache.cassandra.service.CassandraDaemon >"$d/out.log" 2>&1 </dev/null 8>&- &
  echo $! >"$d/pid"
  await "$1"
}

await() {
  local d=$DIR/n$1
  for _ in $(seq $((WAIT * 2))); do
    accepts "$1" && { echo "cassandra node $1 is up at $(address "$1"):$PORT"; return; }
    kill -0 "$(cat "$d/pid")" 2>/dev/null || {
      tail -n 20 "$d/out.log" "$d/system.log" >&2 || true
      die "node $1 ended while starting; see $d/system.log"
    }
    sleep 0.5
  done
  die "node $1 did not open $(address "$1"):$PORT in $WAIT s; see $d/system.log"
}

halt() { # node, signal
  local p
  p=$(pid "$1") || return 0
  [ "$2" = TERM ] && kill -CONT "$p" 2>/dev/null
  kill "-$2" "$p" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$p" 2>/dev/null || break
    sleep 0.2
  done
  if kill -0 "$p" 2>/dev/null; then kill -KILL "$p"; fi
  rm -f "$DIR/n$1/pid"
}

up() {
  fetch
  local i
  for i in $(seq "${1:-1}"); do
    [ -e "$DIR/n$i/conf/cassandra.yaml" ] && pid "$i" >/dev/null || configure "$i"
    launch "$i"
  done
}

status() {
  local i p state
  for i in $(nodes); do
    if p=$(pid "$i"); then
      state=$(sed -n 's/^State:\s*\(.\).*/\1/p' "/proc/$p/status")
      case $state in T) state=paused ;; *) accepts "$i" && state=up || state=starting ;; esac
    else
      state=down p=-
    fi
    echo "node $i $(address "$i"):$PORT $state pid $p"
  done
}

addresses() {
  local i list=
  for i in $(nodes); do list+=,$(address "$i"):$PORT; done
  echo "${list#,}"
}

nodetool() {
  local i=$1 options
  shift
  mapfile -t options < <(module_options)
  "$(java_command)" "${options[@]}" -Dlogback.configurationFile="file://$DIR/n$i/conf/logback.xml" -Dcassandra.storagedir="$DIR/n$i" \
    -cp "$DIR/n$i/conf:$LIB/*" org.apache.cassandra.tools.NodeTool -p "$(cat "$DIR/n$i/jmx")" "$@"
}

case ${1:-} in
fetch) fetch ;;
java) java_command ;;
up) up "${2:-1}" ;;
down) for i in $(nodes); do halt "$i" TERM; done ;;
destroy) for i in $(nodes); do halt "$i" KILL && rm -rf "$DIR/n$i" "$COMMITLOG/n$i"; done ;;
start) fetch; launch "${2:?node}" ;;
stop) running "${2:?node}" >/dev/null; halt "$2" TERM ;;
kill) running "${2:?node}" >/dev/null; halt "$2" KILL ;;
pause) p=$(running "${2:?node}"); kill -STOP "$p" ;;
resume) p=$(running "${2:?node}"); kill -CONT "$p" ;;
status) status ;;
addresses) addresses ;;
nodetool) shift; nodetool "$@" ;;
*) sed -n '2,33s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
