#!/usr/bin/env bash
# Builds what a release has: scripts/release.sh v1.2.3 [DIRECTORY]
#
# Archives of both programs for each platform with manual pages and completion files, Debian packages with systemd units,
# checksums, and a list of the modules in each program (CycloneDX). The same commit gives the same bytes, whenever and
# wherever it is built with the Go version of go.mod.
# With SIGN_KEY=FILE, a private key of ssh-keygen, the checksums are signed. PLATFORMS names others than the four.
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

platforms=${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
module=$(awk '$1 == "module" { print $2 }' go.mod)
nfpm=$PWD/bin/nfpm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
rm -rf "$out"
mkdir -p "$out"

# build OS ARCHITECTURE DIRECTORY
build() {
  CGO_ENABLED=0 GOWORK=off GOFLAGS= GOOS=$1 GOARCH=$2 go build -trimpath -buildvcs=false \
    -ldflags "-s -w -X $module/internal/version.release=$version" -o "$3/" ./cmd/licensed ./cmd/licensectl
}

# package ARCHITECTURE PROGRAMS: the Debian package with the programs of a directory.
package() {
  local stage=$work/deb-$1 root=$work/deb-$1/root program
  mkdir -p "$root"/usr/bin "$root"/usr/share/{man/man1,bash-completion/completions,zsh/vendor-completions,fish/vendor_completions.d} \
    "$root"/usr/share/doc/licensed "$root"/lib/systemd/system
  install -m 0755 "$2"/licensed "$2"/licensectl "$root/usr/bin/"
  install -m 0644 deploy/systemd/*.service "$root/lib/systemd/system/"
  install -m 0644 LICENSE "$root/usr/share/doc/licensed/copyright"
  gzip -n9 <CHANGELOG.md >"$root/usr/share/doc/licensed/changelog.gz"
  install -m 0644 deploy/policy.example.yaml "$root/usr/share/doc/licensed/"
  for program in licensed licensectl; do
    install -m 0644 "$work/completions/$program.bash" "$root/usr/share/bash-completion/completions/$program"
    install -m 0644 "$work/completions/$program.zsh" "$root/usr/share/zsh/vendor-completions/_$program"
    install -m 0644 "$work/completions/$program.fish" "$root/usr/share/fish/vendor_completions.d/"
  done
  for page in "$work"/man/*.1; do gzip -n9 <"$page" >"$root/usr/share/man/man1/${page##*/}.gz"; done
  chmod -R u=rwX,go=rX "$root"
  cp deploy/deb/* "$stage/"
  find "$stage" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} + # The package has the times of the files.
  (cd "$stage" && ARCH=$1 VERSION=${version#v} "$nfpm" package --packager deb --config nfpm.yaml \
    --target "$out/licensed_${version#v}_$1.deb" >"$work/log") || { cat "$work/log" >&2; exit 1; }
}

echo "building $version for this machine"
build "$(go env GOOS)" "$(go env GOARCH)" "$work/here"
mkdir "$work/completions"
for program in licensed licensectl; do
  for shell in bash zsh fish; do
    "$work/here/$program" completion $shell >"$work/completions/$program.$shell"
  done
  "$work/here/$program" man "$work/man"
done

for platform in $platforms; do
  name=licensed-$version-${platform/\//-}
  echo "building $name"
  build "${platform%/*}" "${platform#*/}" "$work/$name"
  cp -r LICENSE README.md CHANGELOG.md "$work/completions" "$work/man" "$work/$name/"
  tar -C "$work" --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
    -cf - "$name" | gzip -n9 >"$out/$name.tar.gz"
  if [[ $platform == linux/* ]]; then package "${platform#*/}" "$work/$name"; fi
done

# The modules differ little between platforms; the list is that of the first.
first=${platforms%% *}
first=licensed-$version-${first/\//-}
echo "listing modules"
for program in licensed licensectl; do
  bin/cyclonedx-gomod bin -json -licenses -noserial -version "$version" \
    -output "$out/$program-$version.cdx.json" "$work/$first/$program" 2>"$work/log" ||
    { cat "$work/log" >&2; exit 1; }
  # The time of the list is that of the commit, so that it has the same bytes each time.
  sed -i -E "s/(\"timestamp\": \")[^\"]*/\1$(date -u -d "@$SOURCE_DATE_EPOCH" +%FT%TZ)/" "$out/$program-$version.cdx.json"
done

(cd "$out" && sha256sum -- *.tar.gz *.deb *.json >SHA256SUMS)
if [[ -n ${SIGN_KEY:-} ]]; then
  ssh-keygen -q -Y sign -f "$SIGN_KEY" -n licensed "$out/SHA256SUMS"
fi
echo "$out:"
ls -1sh "$out"
