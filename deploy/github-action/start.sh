#!/usr/bin/env bash
# Starts the daemon as the runner's user and tells the machine's containerd and nerdctl of its mirror.
set -euo pipefail

stop_with() {
  printf '::error title=Tidehold::%s\n' "$*"
  exit 1
}

# Root is needed for /etc/containerd alone.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

readonly program=$TIDEHOLD_HOME/bin/tidehold
# A user's port, since the daemon is a user's; nobody else is on this machine.
readonly port=${TIDEHOLD_PORT:-5789}
readonly run=${RUNNER_TEMP:-/tmp}/tidehold

mkdir -p "$run"
chmod 0700 "$run"
cat >"$TIDEHOLD_CONFIG" <<CONF
data_dir = "$TIDEHOLD_HOME/hold"

[[containerd]]
socket = "$run/content.sock"

[control]
socket = "$run/control.sock"

[mirror]
listen = "127.0.0.1:$port"

[web]
listen = "127.0.0.1:${TIDEHOLD_WEB_PORT:-5790}"

[cache]
max_size = "$TIDEHOLD_MAX_SIZE"

CONF
if [ -n "${TIDEHOLD_CONFIG_MORE:-}" ]; then
  cat -- "$TIDEHOLD_CONFIG_MORE" >>"$TIDEHOLD_CONFIG"
fi
"$program" serve --check --config "$TIDEHOLD_CONFIG" ||
  stop_with "the configuration has faults: see above"

# What a restored hold remembers of another runner's requests, and of what its address had left, is none of this job's.
rm -rf "$TIDEHOLD_HOME/hold/record"

# In a session of its own, so that it outlives this step.
# shellcheck disable=SC2016 # its own process id and arguments
setsid --fork sh -c 'echo $$ >"$1"; exec "$2" serve --config "$3"' sh \
  "$run/pid" "$program" "$TIDEHOLD_CONFIG" >"$run/log" 2>&1 </dev/null
ready() { curl --fail --silent --output /dev/null "http://127.0.0.1:$port/v2/"; }
for _ in {1..300}; do
  ! ready || break
  if [ -s "$run/pid" ] && ! kill -0 "$(cat "$run/pid")" 2>/dev/null; then break; fi
  sleep 0.2
done
if ! ready; then
  cat "$run/log"
  stop_with "the daemon did not become ready: its log is above"
fi

containerd=${CONTAINERD_ADDRESS:-/run/containerd/containerd.sock}
as_root test -S "${containerd#unix://}" ||
  printf '::warning title=Tidehold::%s\n' "no containerd listens at ${containerd#unix://}: nothing is pulled by one until a step starts it"
command -v nerdctl >/dev/null ||
  printf '::notice title=Tidehold::%s\n' "there is no nerdctl here, as on GitHub's own runners: docs/ci.md has a step that installs one"

# By hosts.toml: nothing is restarted, and should the daemon fail, pulls go on without it. So they do where containerd
# cannot be told, which is no reason to stop the job.
as_root "$program" setup --mirror-only --no-units --yes --config "$TIDEHOLD_CONFIG" ||
  printf '::warning title=Tidehold::%s\n' "containerd could not be told of the mirror, so pulls go past it: see above"

{
  echo "TIDEHOLD_RUN=$run"
  echo "TIDEHOLD_CACHE_KEY=${TIDEHOLD_CACHE_KEY:-}"
} >>"$GITHUB_ENV"
echo "mirror=http://127.0.0.1:$port" >>"$GITHUB_OUTPUT"
