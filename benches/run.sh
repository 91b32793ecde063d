#!/usr/bin/env bash
# Installs what is missing, fetches the peers, builds in release mode and measures; see benches/README.md.
#
#   ./benches/run.sh                        every section
#   ./benches/run.sh pulls mirror --quick   some, as a smoke run
#   ./benches/run.sh pulls --only '2.x tree-gzip' --rounds 3
#
# Containerds take root: as another user, the measuring program is run through sudo.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/support/packages.sh
. tests/support/packages.sh

install_prerequisites
fetch_parts_and_peers
TIDEHOLD_TEST_CACHE=$(parts_cache)
export TIDEHOLD_TEST_CACHE

options=(--locked)
if [ "$(id -u)" -ne 0 ] && command -v sudo >/dev/null; then
  options+=(--config "target.'cfg(unix)'.runner=['sudo','env','TIDEHOLD_TEST_CACHE=$TIDEHOLD_TEST_CACHE']")
fi
exec cargo bench "${options[@]}" --bench peers -- "$@"
