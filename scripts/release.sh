#!/usr/bin/env bash
# Builds what a release has: scripts/release.sh v1.2.3 [DIRECTORY]
#
# Archives of both programs for each platform with completion files, checksums, and a list of the modules in each program
# (CycloneDX). The same commit gives the same bytes, whenever and wherever it is built with the Go version of go.mod.
# With SIGN_KEY=FILE, a private key of ssh-keygen, the checksums are signed.
set -euo pipefail
cd "$(dirname "$0")/.."

version=${1:-}
if [[ ! $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?$ ]]; then
  echo "version \"$version\" is not valid; use one such as v1.2.3 or v1.2.3-rc.1: make release VERSION=v1.2.3" >&2
  exit 2
fi
out=$(realpath -m "${2:-bin/release/$version}")
if [[ -n ${SIGN_KEY:-} && ! -r $SIGN_KEY ]]; then
  echo "key $SIGN_KEY cannot be read; SIGN_KEY is a private key of ssh-keygen" >&2
  exit 2
fi
if [[ -n $(git status --porcelain) ]]; then
  echo "the working tree has changes that no commit has; commit or remove them first" >&2
  exit 2
fi

date=$(git log -1 --format=%ct)
module=$(awk '$1 == "module" { print $2 }' go.mod)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out"
mkdir -p "$out"

# build OS ARCHITECTURE DIRECTORY
build() {
  CGO_ENABLED=0 GOWORK=off GOFLAGS= GOOS=$1 GOARCH=$2 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X $module/internal/version.release=$version" -o "$3/" ./cmd/licensed ./cmd/licensectl
}

echo "building $version for this machine"
build "$(go env GOOS)" "$(go env GOARCH)" "$work/here"
mkdir "$work/completions"
for program in licensed licensectl; do
  for shell in bash zsh fish; do
    "$work/here/$program" completion $shell >"$work/completions/$program.$shell"
  done
done

for platform in linux/amd64 linux/arm64 darwin/amd64 darwin/arm64; do
  name=licensed-$version-${platform/\//-}
  echo "building $name"
  build "${platform%/*}" "${platform#*/}" "$work/$name"
  cp -r LICENSE README.md CHANGELOG.md "$work/completions" "$work/$name/"
  tar -C "$work" --sort=name --mtime="@$date" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX -cf - "$name" |
    gzip -n9 >"$out/$name.tar.gz"
done

echo "listing modules"
for program in licensed licensectl; do
  SOURCE_DATE_EPOCH=$date bin/cyclonedx-gomod bin -json -licenses -noserial -version "$version" \
    -output "$out/$program-$version.cdx.json" "$work/licensed-$version-linux-amd64/$program" 2>"$work/log" ||
    { cat "$work/log" >&2; exit 1; }
  # The time of the list is that of the commit, so that it has the same bytes each time.
  sed -i -E "s/(\"timestamp\": \")[^\"]*/\1$(date -u -d "@$date" +%FT%TZ)/" "$out/$program-$version.cdx.json"
done

(cd "$out" && sha256sum -- *.tar.gz *.json >SHA256SUMS)
if [[ -n ${SIGN_KEY:-} ]]; then
  ssh-keygen -q -Y sign -f "$SIGN_KEY" -n licensed "$out/SHA256SUMS"
fi
echo "$out:"
ls -1sh "$out"
