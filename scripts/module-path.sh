#!/usr/bin/env bash
# Sets the module path of the project: scripts/module-path.sh example.com/org/licensed
# The module of tests and those of the tools get the same prefix. Names that clients and stores know (protobuf packages,
# metrics, the default keyspace) stay. Run through `make module-path`, which also generates the code of the .proto files.
set -euo pipefail
cd "$(dirname "$0")/.."

new=${1:-}
old=$(awk '$1 == "module" { print $2 }' go.mod)
# A path with characters that a module path cannot have would break the edits below as well.
if [[ ! $new =~ ^[A-Za-z0-9._~/-]+$ ]] || ! go mod edit -module "$new"; then
  echo "module path \"$new\" is not valid; use a path such as example.com/org/licensed" >&2
  exit 1
fi
quoted=${old//./\\.}

# edit EXPRESSION NAMES…: edits the files of these names, except those of other projects and what is built.
edit() {
  local expression=$1 names=() name
  shift
  for name in "$@"; do names+=(-o -name "$name"); done
  find . \( -path ./.git -o -path ./bin \) -prune -o -type f \( "${names[@]:1}" \) -print0 | xargs -0 sed -i -E "$expression"
}
edit "s#\"$quoted(/|\")#\"$new\1#g" rules_test.go
edit "s#\"$quoted/#\"$new/#g; s#^const module = \"$quoted\"#const module = \"$new\"#" '*.go'
edit "s#^(option go_package = \")$quoted/#\1$new/#" '*.proto'
edit "s#(^|[[:space:]])$quoted(/|[[:space:]]|\$)#\1$new\2#g" go.mod
edit "s#(module=|-X )$quoted(/|\$)#\1$new\2#g" buf.gen.yaml Dockerfile Makefile '*.sh' '*.go'
edit "s#\`$quoted(/test)#\`$new\1#g" '*.md'
gofmt -w . # The order of imports may be another one.
