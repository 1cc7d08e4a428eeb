#!/usr/bin/env bash
# Generates Go and OpenAPI from the .proto files into a temporary directory and compares it with the committed code:
# the generated code that is committed must be what the pinned tools make of the committed sources.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
bin/buf generate --output "$fresh"

# Only generated files: others may lie beside them.
listed() { (cd "$1" && find messages docs/reference -name '*.pb.go' -o -name '*.connect.go' -o -name '*.swagger.yaml' | sort); }
if ! diff <(listed .) <(listed "$fresh"); then
  echo "the set of generated files is not what the .proto files make; run make proto" >&2
  exit 1
fi
stale=0
while read -r file; do
  if ! diff -u "$file" "$fresh/$file" | head -n 40; then
    stale=1
  fi
done < <(listed .)
if [[ $stale -ne 0 ]]; then
  echo "generated code is stale; run make proto and commit what changes" >&2
  exit 1
fi
