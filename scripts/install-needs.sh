#!/usr/bin/env bash
# Sees that `make test` has what it needs, and installs with apt-get what is missing where that is
# possible. Go itself must be installed; it downloads modules and tools.
set -euo pipefail

if ! command -v go >/dev/null; then
  echo "Go is not installed or not on the PATH; see https://go.dev/doc/install" >&2
  exit 1
fi

missing=()
command -v git >/dev/null || missing+=(git)
# The race detector is built with cgo.
command -v "$(go env CC)" >/dev/null || missing+=(gcc libc6-dev)
# The dashboard is tested in a browser; CHROMIUM names one that has another name.
if [[ -z ${CHROMIUM:-} ]] && ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  missing+=(chromium fonts-dejavu-core)
fi
# Tests run on a real Cassandra: the one that LICENSED_CASSANDRA names, or one started from Maven artifacts.
if [[ -z ${LICENSED_CASSANDRA:-} ]]; then
  "$(dirname "$0")/cassandra.sh" java >/dev/null 2>&1 || missing+=(openjdk-17-jdk-headless)
  command -v mvn >/dev/null || missing+=(maven)
fi
# The examples in Python and TypeScript install their packages by themselves.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v npm >/dev/null || missing+=(nodejs npm)
if [[ ${#missing[@]} -eq 0 ]]; then
  exit 0
fi

sudo=()
if [[ $(id -u) -ne 0 ]]; then
  sudo=(sudo -n)
fi
if ! command -v apt-get >/dev/null || { [[ ${#sudo[@]} -gt 0 ]] && ! command -v sudo >/dev/null; }; then
  echo "make test needs: ${missing[*]}. Install them with your system's package manager and run it again." >&2
  exit 1
fi
echo "installing ${missing[*]}"
# Another installation may be running, for example at the first start of a machine.
apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -o Acquire::Retries=3)
"${apt[@]}" update -qq
for package in "${missing[@]}"; do
  if ! apt-cache show "$package" >/dev/null 2>&1; then
    echo "make test needs $package, which this system's packages do not have. Install what it stands for in another way" >&2
    echo "(a JDK 17: set JAVA_HOME; a browser: set CHROMIUM; or a running Cassandra: LICENSED_CASSANDRA) and run it again." >&2
    exit 1
  fi
done
"${apt[@]}" install -y -qq --no-install-recommends "${missing[@]}"
