#!/usr/bin/env bash
# Puts the program where the job's steps find it. Says where the hold is going to be.
set -euo pipefail

stop_with() {
  printf '::error title=Tidehold::%s\n' "$*"
  exit 1
}

[ "$(uname -s)" = Linux ] || stop_with "it runs on Linux alone"
# Everything belongs to the runner's user, so that the cache can be packed by it. Its place must not change from run to
# run: a cache is known by its path as well.
home=$HOME/.local/share/tidehold
mkdir -p "$home/bin" "$home/hold"
program=$home/bin/tidehold

fetch() {
  [ -n "$TIDEHOLD_SHA256" ] || stop_with "sha256 is missing: the SHA-256 of what $TIDEHOLD_URL gives"
  local folder fetched found
  folder=$(mktemp -d "${RUNNER_TEMP:-/tmp}/tidehold.XXXXXX")
  fetched=$folder/${TIDEHOLD_URL##*/}
  curl --fail --silent --show-error --location --retry 3 --output "$fetched" "$TIDEHOLD_URL" ||
    stop_with "$TIDEHOLD_URL could not be fetched"
  printf '%s  %s\n' "$TIDEHOLD_SHA256" "$fetched" | sha256sum --check --status ||
    stop_with "$TIDEHOLD_URL gives something with another SHA-256 than sha256 says"
  case $fetched in
    *.deb) mkdir "$folder/tree" && dpkg-deb --extract "$fetched" "$folder/tree" ;;
    *.tar.gz | *.tgz) mkdir "$folder/tree" && tar --extract --gzip --file "$fetched" --directory "$folder/tree" ;;
    *) mkdir "$folder/tree" && cp "$fetched" "$folder/tree/tidehold" ;;
  esac
  found=$(find "$folder/tree" -type f -name tidehold -print -quit)
  [ -n "$found" ] || stop_with "there is no program tidehold in $TIDEHOLD_URL"
  install -m 0755 "$found" "$program"
  rm -r "$folder"
}

if [ -n "${TIDEHOLD_BINARY:-}" ]; then
  [ -f "$TIDEHOLD_BINARY" ] || stop_with "binary says $TIDEHOLD_BINARY, which is not there"
  install -m 0755 "$TIDEHOLD_BINARY" "$program"
elif [ -n "${TIDEHOLD_URL:-}" ]; then
  fetch
else
  stop_with "say where the program is: binary, a path, or url and sha256"
fi
"$program" --version || stop_with "what was given as the program does not run here"

echo "$home/bin" >>"$GITHUB_PATH"
{
  echo "TIDEHOLD_HOME=$home"
  echo "TIDEHOLD_CONFIG=$home/config.toml"
} >>"$GITHUB_ENV"
echo "data=$home/hold" >>"$GITHUB_OUTPUT"
