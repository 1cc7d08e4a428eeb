#!/usr/bin/env bash
# Runs every fuzzer of the module for a while: scripts/fuzz.sh 60s
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-60s}
found=0
while IFS=: read -r file name; do
  found=1
  echo "== $(dirname "$file") $name"
  go test "./$(dirname "$file")" -run '^$' -fuzz "^$name\$" -fuzztime "$time"
done < <(git ls-files --cached --others --exclude-standard '*_test.go' |
  xargs grep -oE '^func Fuzz[A-Za-z0-9_]+' | sed 's/:func /:/')
if [[ $found -eq 0 ]]; then
  echo "no fuzzers found" >&2
  exit 1
fi
