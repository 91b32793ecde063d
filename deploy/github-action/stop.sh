#!/usr/bin/env bash
# Says what the pulls cost, ends the daemon, and says what is to be saved and under which name.
set -euo pipefail

if [ -z "${TIDEHOLD_RUN:-}" ]; then
  echo "::notice title=Tidehold::it was not started in this job: there is nothing to save"
  exit 0
fi
readonly program=$TIDEHOLD_HOME/bin/tidehold
pid=$(cat "$TIDEHOLD_RUN/pid")

{
  echo "### What this job's pulls cost"
  echo
  echo '```'
  "$program" budget --config "$TIDEHOLD_CONFIG" 2>&1 || echo "(the daemon does not say)"
  echo '```'
} >>"$GITHUB_STEP_SUMMARY"

if [ "${TIDEHOLD_UNDO:-}" = true ]; then
  if [ "$(id -u)" -eq 0 ]; then sudo() { "$@"; }; fi
  sudo "$program" setup --undo --yes --config "$TIDEHOLD_CONFIG"
fi

# In a job's container there may be nobody who takes note of processes that have ended: they stay as zombies.
runs() { kill -0 "$pid" 2>/dev/null && ! grep -q '^State:.*Z' "/proc/$pid/status" 2>/dev/null; }

# It lets what runs go on for 30 s, and then brings its index to the disk.
kill -TERM "$pid" 2>/dev/null || true
for _ in {1..450}; do
  runs || break
  sleep 0.1
done
echo "::group::Tidehold's log"
cat "$TIDEHOLD_RUN/log"
echo "::endgroup::"
if runs || ! grep -q 'tidehold::app.* stopped' "$TIDEHOLD_RUN/log"; then
  echo "::warning title=Tidehold::it did not end in good order: what it holds is not saved"
  exit 0
fi
{
  echo "data=$TIDEHOLD_HOME/hold"
  echo "key=${TIDEHOLD_CACHE_KEY:-}"
} >>"$GITHUB_OUTPUT"
