#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test; ends with one line that counts them.
#
#   ./tests/run.sh                    all of them
#   ./tests/run.sh --test node        arguments go to cargo test
#   ./tests/run.sh --test node -- 1.6
#
# Some tests run real containerds, which takes root: as another user, the test programs are run through sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/support/packages.sh
. tests/support/packages.sh

install_prerequisites
install_for_deploy
fetch_parts_and_clients
TIDEHOLD_TEST_CACHE=$(parts_cache)
export TIDEHOLD_TEST_CACHE

options=(--locked --no-fail-fast)
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
  options+=(--config "target.'cfg(unix)'.runner=['sudo','env','TIDEHOLD_TEST_CACHE=$TIDEHOLD_TEST_CACHE']")
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT

status=0
cargo test "${options[@]}" "$@" 2>&1 | tee "$log" || status=$?

# Each test program ends with "test result: ok. 5 passed; 0 failed; 1 ignored; …".
read -r passed failed skipped < <(
  awk '/^test result: / {
         for (i = 2; i <= NF; i++) {
           if ($i == "passed;") passed += $(i - 1)
           if ($i == "failed;") failed += $(i - 1)
           if ($i == "ignored;") skipped += $(i - 1)
         }
       }
       END { print passed + 0, failed + 0, skipped + 0 }' "$log"
)

echo
if [ "$skipped" -gt 0 ]; then
  # The reasons; a test that says none is named by its own line.
  grep -E '^skipped: ' "$log" | sort -u || grep -E '^test .* \.\.\. ignored' "$log" || true
fi
if [ "$status" -ne 0 ] && [ "$failed" -eq 0 ]; then
  echo "cargo test ended with status $status before every test had run: see above"
  failed=1
fi
if [ "$((passed + failed))" -eq 0 ]; then
  echo "no test ran"
  status=1
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$status" -eq 0 ] && [ "$failed" -eq 0 ]
