#!/usr/bin/env bash
# Builds Tidehold's Debian package from a program that is built already; needs dpkg-deb and no network.
set -euo pipefail
# Modes in a package must not depend on who builds it.
umask 022

usage() {
  cat <<'TEXT'
usage: deploy/debian/build.sh [--binary FILE] [--output FOLDER]

  --binary FILE    the program (target/release/tidehold)
  --output FOLDER  gets tidehold_VERSION_ARCH.deb, whose path is printed (target/debian)

The package has the architecture of the machine that builds it, since the manual pages and the completions are asked
of the program itself. SOURCE_DATE_EPOCH dates everything in it; by default that is the last commit's time.
TEXT
}

stop_with() {
  printf '%s\n' "$*" >&2
  exit 1
}

top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/deploy/debian
target=${CARGO_TARGET_DIR:-$top/target}
binary=$target/release/tidehold output=$target/debian
while [ $# -gt 0 ]; do
  case $1 in
    --binary | --output)
      [ $# -gt 1 ] || { usage >&2 && exit 2; }
      printf -v "${1#--}" %s "$2"
      shift 2
      ;;
    -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
  esac
done
command -v dpkg-deb >/dev/null || stop_with "dpkg-deb is missing: install the package dpkg"
[ -x "$binary" ] || stop_with "$binary is not there: cargo build --release --locked, or name a program with --binary"

version=$("$binary" --version)
# A pre-release sorts before its release only behind a tilde.
version=$(printf '%s' "${version##* }" | sed 's/-/~/g')
architecture=$(dpkg --print-architecture)
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
  SOURCE_DATE_EPOCH=$(git -C "$top" log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
chmod 0755 "$tree"

# put MODE FILE PLACE
put() { install -D -m "$1" "$2" "$tree/$3"; }

put 0755 "$binary" usr/bin/tidehold
if command -v strip >/dev/null; then
  strip --strip-unneeded --remove-section=.comment --remove-section=.note "$tree/usr/bin/tidehold"
fi
for unit in tidehold.service tidehold.socket tidehold-mirror.socket tidehold-web.socket; do
  put 0644 "$top/deploy/systemd/$unit" "usr/lib/systemd/system/$unit"
done
put 0644 "$top/deploy/config.toml" etc/tidehold/config.toml

"$binary" generate "$tree/generated"
for page in "$tree"/generated/*.1; do
  gzip --best --no-name "$page"
  put 0644 "$page.gz" "usr/share/man/man1/$(basename "$page").gz"
done
put 0644 "$tree/generated/tidehold.bash" usr/share/bash-completion/completions/tidehold
put 0644 "$tree/generated/_tidehold" usr/share/zsh/vendor-completions/_tidehold
put 0644 "$tree/generated/tidehold.fish" usr/share/fish/vendor_completions.d/tidehold.fish
rm -r "$tree/generated"

put 0644 "$here/copyright" usr/share/doc/tidehold/copyright
# The pages, and what they lead to at the same places as in the sources. The licence is in Debian's own words.
doc=usr/share/doc/tidehold
sed 's/(LICENSE)/(copyright)/' "$top/README.md" >"$tree/README.md"
put 0644 "$tree/README.md" $doc/README.md
rm "$tree/README.md"
put 0644 "$top/ARCHITECTURE.md" $doc/ARCHITECTURE.md
put 0644 "$top/benches/README.md" $doc/benches/README.md
put 0644 "$top/deploy/config.toml" $doc/deploy/config.toml
for folder in docs deploy/grafana deploy/prometheus deploy/kubernetes deploy/github-action proto/tidehold; do
  mkdir -p "$tree/$doc/$(dirname "$folder")"
  cp -r --no-preserve=mode "$top/$folder" "$tree/$doc/$folder"
done
chmod 0755 "$tree/$doc"/deploy/github-action/*.sh
maintainer=$(sed -n 's/^Maintainer: //p' "$here/control")
{
  printf 'tidehold (%s) unstable; urgency=medium\n\n  * See CHANGELOG.md.\n\n' "$version"
  printf ' -- %s  %s\n' "$maintainer" "$(date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %H:%M:%S +0000')"
} | gzip --best --no-name >"$tree/usr/share/doc/tidehold/changelog.gz"
put 0644 "$top/CHANGELOG.md" usr/share/doc/tidehold/CHANGELOG.md
put 0644 "$here/lintian-overrides" usr/share/lintian/overrides/tidehold

# What the program is linked to: its newest symbol says from which libc on it runs.
libc=$(grep -aoE 'GLIBC_[0-9]+\.[0-9]+' "$tree/usr/bin/tidehold" | sort -uV | tail -n 1)
depends="libc6 (>= ${libc#GLIBC_}), libgcc-s1, init-system-helpers (>= 1.54~)"
[ -n "$libc" ] || depends="init-system-helpers (>= 1.54~)" # linked to nothing

mkdir "$tree/DEBIAN"
sed -e "s/@VERSION@/$version/" -e "s/@ARCHITECTURE@/$architecture/" -e "s/@DEPENDS@/$depends/" \
  -e "s/@SIZE@/$(du -sk --apparent-size --exclude=DEBIAN "$tree" | cut -f1)/" "$here/control" >"$tree/DEBIAN/control"
printf '/etc/tidehold/config.toml\n' >"$tree/DEBIAN/conffiles"
install -m 0755 "$here/postinst" "$here/prerm" "$here/postrm" "$tree/DEBIAN/"
(cd "$tree" && find etc usr -type f ! -path 'etc/*' -print0 | LC_ALL=C sort -z | xargs -0 md5sum >DEBIAN/md5sums)
chmod 0644 "$tree/DEBIAN/md5sums" "$tree/DEBIAN/conffiles" "$tree/DEBIAN/control"
find "$tree" -newermt "@$SOURCE_DATE_EPOCH" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +

mkdir -p "$output"
package=$output/tidehold_${version}_${architecture}.deb
dpkg-deb --build --root-owner-group -Zxz "$tree" "$package" >/dev/null
printf '%s\n' "$package"
