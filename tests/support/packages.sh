# shellcheck shell=bash
# What the scripts need from the machine: Debian's and Ubuntu's own packages.
#
# Two kinds, never mixed. Build tools are installed, as any package is. The real parts that the tests run
# (several containerds, runc, a registry, clients) are only fetched and unpacked into a cache folder: nothing of
# them is installed or started, and a containerd that the machine already has is left alone.
#
# Source it, then:
#   install_prerequisites      installs what the build and the tests lack; asks apt only if something is missing
#   fetch_parts                fills the cache; quick and without the network once it is full
#   install_for_deploy         installs what the tests of deploy/ run and most machines lack; goes on without what
#                              cannot be had
#   fetch_parts_and_clients    the same, and what only the tests run: clients of registries, a browser, a small Debian
#   fetch_parts_and_peers      the parts, and the servers that only the benchmark compares with
#   parts_cache                prints the cache folder
#   newest_containerd          prints the folder of the newest containerd that was had
#
# The cache holds one folder for each part (containerd-1.6, containerd-1.7, containerd-2, runc,
# docker-registry, skopeo, podman, chromedriver with its Chromium, nginx, chroot) with the package's tree in it, and
# NAME.missing, with the reason in words, for
# each part that could not be had.

parts_cache() {
  printf '%s\n' "${TIDEHOLD_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/tidehold-tests}"
}

say() { printf '%s\n' "$*" >&2; }

stop_with() {
  say "$*"
  exit 1
}

# Runs a command as root: plainly, or through sudo.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    say "this needs root, and there is no sudo here: $*"
    return 1
  fi
}

require_rust() {
  # rustup puts its programs where only a login shell looks.
  if ! command -v cargo >/dev/null && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
  fi
  local program
  for program in cargo rustc; do
    command -v "$program" >/dev/null || stop_with "$program is missing: install a Rust toolchain (1.90 or later) with rustup, see https://rustup.rs, and run this again"
  done
}

# Installs the packages of the pairs PROGRAM:PACKAGE whose program is not there.
install_missing() {
  local pair wanted=()
  for pair in "$@"; do
    command -v "${pair%%:*}" >/dev/null || wanted+=("${pair#*:}")
  done
  [ "${#wanted[@]}" -gt 0 ] || return 0
  command -v apt-get >/dev/null ||
    stop_with "missing: ${wanted[*]} (Debian's names; there is no apt-get here to install them with)"
  say "installing: ${wanted[*]}"
  # An unrelated source that is down must not end this: what counts is whether the install works.
  as_root apt-get -qq update >&2 || say "apt-get update had errors; going on with what it has"
  as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends \
    -o Dpkg::Use-Pty=0 install "${wanted[@]}" >&2 ||
    stop_with "could not install: ${wanted[*]}"
}

install_prerequisites() {
  require_rust
  install_missing cc:gcc protoc:protobuf-compiler busybox:busybox-static curl:curl flock:util-linux mount:mount
  # For cargo's downloads, and for real registries.
  [ -e /etc/ssl/certs/ca-certificates.crt ] || install_missing certificates:ca-certificates
  local linked
  linked=$(mktemp)
  if ! printf 'int main(void){return 0;}' | cc -x c -o "$linked" - 2>/dev/null; then
    install_missing a-libc-to-link-with:libc6-dev
  fi
  rm -f "$linked"
  # What bookworm's runc is linked to, and a small system may lack.
  if command -v ldconfig >/dev/null && ! ldconfig -p | grep -q 'libseccomp\.so\.2'; then
    install_missing libseccomp.so.2:libseccomp2
  fi
}

# What is missing is skipped by the tests that want it, each with a word.
install_for_deploy() {
  command -v apt-get >/dev/null || return 0
  (install_missing systemd-analyze:systemd lintian:lintian debootstrap:debootstrap) ||
    say "going on without what could not be installed"
}

# --- the parts -----------------------------------------------------------------------------------------

# A client is linked to libraries that a machine without it lacks: its tree has those too.
readonly PARTS="containerd-1.6 containerd-1.7 containerd-2 runc docker-registry"
readonly CLIENTS="skopeo podman"
# A small Debian or Ubuntu of this machine's own release, to install a package in.
readonly SYSTEMS="chroot"
readonly BROWSER="chromedriver"
readonly PEERS="nginx"

fetch_parts() {
  WANTED=$PARTS
  fetch_wanted
}

fetch_parts_and_clients() {
  WANTED="$PARTS $CLIENTS $SYSTEMS $BROWSER"
  fetch_wanted
}

fetch_parts_and_peers() {
  WANTED="$PARTS $PEERS"
  fetch_wanted
}

fetch_wanted() {
  local cache part
  cache=$(parts_cache)
  mkdir -p "$cache"
  (
    # Two runs at once: the second waits, then finds everything there.
    flock 9
    forget_stale_reasons "$cache"
    if [ -n "$(parts_open "$cache")" ]; then
      fetch_open_parts "$cache"
    fi
  ) 9>"$cache/lock"
  for part in $WANTED; do
    [ ! -e "$cache/$part.missing" ] || say "not available: $part: $(cat "$cache/$part.missing")"
  done
}

newest_containerd() {
  local cache major
  cache=$(parts_cache)
  for major in 2 1.7 1.6; do
    if [ -d "$cache/containerd-$major" ]; then
      printf '%s\n' "$cache/containerd-$major"
      return 0
    fi
  done
  return 1
}

# The wanted parts that are neither there nor known not to be had.
parts_open() {
  local part
  for part in $WANTED; do
    [ -d "$1/$part" ] || [ -e "$1/$part.missing" ] || printf '%s\n' "$part"
  done
}

# What a mirror does not offer today is asked for again tomorrow; what failed for want of a network
# (an aged file, see `missing`) at once.
forget_stale_reasons() {
  find "$1" -maxdepth 1 -name '*.missing' -mmin +1440 -delete
}

# missing CACHE PART REASON [again]: records why; `again` has the next run try once more.
missing() {
  printf '%s\n' "$3" >"$1/$2.missing"
  [ "${4:-}" != again ] || touch -d '3 days ago' "$1/$2.missing"
}

fetch_open_parts() {
  local cache=$1 work id codename part
  work=$cache/work
  rm -rf "$work" # a download that was cut off
  mkdir -p "$work"

  # shellcheck source=/dev/null
  id=$(. /etc/os-release && printf '%s' "${ID:-}")
  # shellcheck source=/dev/null
  codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
  MIRROR=$(own_mirror "$codename")
  case $id in
    debian) COMPONENTS=main ;;
    ubuntu) COMPONENTS="main universe" ;;
    *) MIRROR="" ;;
  esac
  if [ -z "$MIRROR" ]; then
    for part in $(parts_open "$cache"); do
      missing "$cache" "$part" "no Debian or Ubuntu mirror among this machine's apt sources" again
    done
    return 0
  fi
  UNREACHED=""
  make_chroot "$cache" "$codename"

  # The suites that have the version, in order of preference. bookworm's runc suits every containerd; the
  # later ones want a newer libc than a bookworm machine has.
  if [ "$id" = debian ]; then
    try_suites "$cache" "containerd-1.6" containerd bookworm
    try_suites "$cache" "containerd-1.7" containerd trixie
    try_suites "$cache" "containerd-2" containerd sid testing
    try_suites "$cache" runc runc bookworm "$codename"
    try_suites "$cache" docker-registry docker-registry "$codename" bookworm trixie
    try_suites "$cache" skopeo skopeo "$codename"
    try_suites "$cache" podman podman "$codename"
    try_suites "$cache" chromedriver chromium-driver "$codename"
    try_suites "$cache" nginx nginx "$codename"
  else
    try_suites "$cache" "containerd-1.6" containerd "$codename-updates" "$codename"
    try_suites "$cache" "containerd-1.7" containerd "$codename-updates" "$codename" noble-updates jammy-updates
    try_suites "$cache" "containerd-2" containerd "$codename-updates" "$codename" devel
    try_suites "$cache" runc runc "$codename-updates" "$codename"
    try_suites "$cache" docker-registry docker-registry "$codename" noble jammy
    try_suites "$cache" skopeo skopeo "$codename"
    try_suites "$cache" podman podman "$codename"
    try_suites "$cache" nginx nginx "$codename"
  fi
  rm -rf "$work"
}

# make_chroot CACHE CODENAME: the release's smallest system, with what every installed one has for its services.
make_chroot() {
  local cache=$1 codename=$2 folder=$1/work/chroot
  case " $(parts_open "$cache" | tr '\n' ' ')" in *" chroot "*) ;; *) return 0 ;; esac
  if ! command -v debootstrap >/dev/null; then
    missing "$cache" chroot "no debootstrap here" again
  elif say "unpacking a small system of $codename" &&
    as_root debootstrap --variant=minbase --include=init-system-helpers "$codename" "$folder" "$MIRROR" \
      >"$cache/work/debootstrap.log" 2>&1; then
    # shellcheck disable=SC2016 # its own arguments
    as_root sh -c 'rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* && mv "$1" "$2"' sh "$folder" "$cache/chroot"
  else
    as_root rm -rf "$folder" || true
    missing "$cache" chroot "debootstrap failed, or it takes root: $(tail -n 1 "$cache/work/debootstrap.log")" again
  fi
}

# The mirror that this machine's own release comes from, as apt itself reads its sources.
own_mirror() {
  command -v apt-get >/dev/null || return 0
  # shellcheck disable=SC2016 # apt's placeholders
  apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v release="$1" '$1 == release { print $2; exit }'
}

# try_suites CACHE PART PACKAGE SUITE…: unpacks the package from the first suite that has the version.
try_suites() {
  local cache=$1 part=$2 package=$3 suite tried="" again="" reason
  shift 3
  case " $WANTED " in *" $part "*) ;; *) return 0 ;; esac
  [ ! -d "$cache/$part" ] && [ ! -e "$cache/$part.missing" ] || return 0
  for suite in "$@"; do
    if ! open_suite "$cache/work" "$suite"; then
      tried="$tried; $suite could not be read"
      again=again
      continue
    fi
    if ! unpack_from "$cache/work" "$suite" "$package"; then
      tried="$tried; $suite has no $package"
      continue
    fi
    if reason=$(unfit "$part" "$cache/work/$suite/tree-$package"); then
      tried="$tried; $suite: $reason"
      continue
    fi
    # In place at once, and so whole or not at all. The tree stays for the next part that may want it.
    cp -a "$cache/work/$suite/tree-$package" "$cache/work/whole"
    mv "$cache/work/whole" "$cache/$part"
    return 0
  done
  missing "$cache" "$part" "${tried#; }" "$again"
}

# Reads a suite's index with a private apt: its own sources, lists and package state, the system's keyring. A
# mirror that lags behind will do, as long as it is signed.
open_suite() {
  local folder=$1/$2 suite=$2 keyring
  case " $UNREACHED " in *" $suite "*) return 1 ;; esac
  [ ! -e "$folder/ready" ] || return 0
  say "reading the package list of $suite"
  mkdir -p "$folder"/{lists/partial,cache/archives/partial,etc}
  : >"$folder/status"
  keyring=$(system_keyring)
  printf 'deb [%s] %s %s %s\n' "${keyring:+signed-by=$keyring}" "$MIRROR" "$suite" "$COMPONENTS" |
    sed 's/ \[\]//' >"$folder/etc/sources.list"
  cat >"$folder/apt.conf" <<CONF
Dir::State "$folder";
Dir::State::lists "$folder/lists";
Dir::State::status "$folder/status";
Dir::Cache "$folder/cache";
Dir::Etc::sourcelist "$folder/etc/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "2";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
Acquire::IndexTargets::deb::CNF::DefaultEnabled "false";
APT::Update::Error-Mode "any";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
CONF
  if apt-get -c "$folder/apt.conf" -qq update >"$folder/log" 2>&1; then
    touch "$folder/ready"
  else
    sed 's/^/  /' "$folder/log" >&2
    UNREACHED="$UNREACHED $suite"
    return 1
  fi
}

system_keyring() {
  local id ending
  # shellcheck source=/dev/null
  id=$(. /etc/os-release && printf '%s' "$ID")
  for ending in pgp gpg; do
    if [ -r "/usr/share/keyrings/$id-archive-keyring.$ending" ]; then
      printf '%s\n' "/usr/share/keyrings/$id-archive-keyring.$ending"
      return 0
    fi
  done
}

unpack_from() {
  local folder=$1/$2 package=$3
  [ ! -d "$folder/tree-$package" ] || return 0
  say "fetching $package from $2"
  (cd "$folder" && apt-get -c "$folder/apt.conf" -qq download "$package" >>"$folder/log" 2>&1) || return 1
  case " $CLIENTS $PEERS chromium-driver " in
    *" $package "*) unpack_needs "$folder" "$package" || return 1 ;;
  esac
  dpkg -x "$folder/$package"_*.deb "$folder/tree-$package"
}

# What this machine would have to install with the package, beneath it. apt locks where the package state is: a copy
# needs no root and waits for nobody.
unpack_needs() {
  local folder=$1 package=$2 needs=$1/needs-$2 deb
  mkdir -p "$needs/partial"
  cp /var/lib/dpkg/status "$needs/status"
  apt-get -c "$folder/apt.conf" -qq -y -o Dir::State::status="$needs/status" -o Dir::Cache::archives="$needs" \
    --no-install-recommends --download-only install "$package" >>"$folder/log" 2>&1 || return 1
  for deb in "$needs"/*.deb; do
    [ ! -e "$deb" ] || dpkg -x "$deb" "$folder/tree-$package" || return 1
  done
}

# Succeeds, with the reason, when the tree is not the part: another version, or one that cannot run here.
unfit() {
  local part=$1 tree=$2 program version lacks libraries asked
  libraries=$(find "$tree/usr/lib" "$tree/lib" -maxdepth 1 -name '*-linux-gnu*' 2>/dev/null | tr '\n' :)
  program=$(find "$tree/usr/bin" "$tree/usr/sbin" -name "${part%%-[0-9]*}" 2>/dev/null | head -n 1)
  if [ ! -x "$program" ]; then
    echo "no $part program in the package"
    return 0
  fi
  lacks=$(LD_LIBRARY_PATH=$libraries ldd "$program" 2>&1 | sed -n 's/^[[:space:]]*\(.*\) => not found.*/\1/p; s/.*version .\(GLIBC_[0-9.]*\). not found.*/\1/p' | sort -u | tr '\n' ' ')
  if [ -n "$lacks" ]; then
    echo "needs ${lacks% }, which this machine lacks"
    return 0
  fi
  case $part in
    nginx) asked=-v ;;
    *) asked=--version ;;
  esac
  # podman makes itself a folder for even this.
  if ! version=$(XDG_RUNTIME_DIR=${tree%/*} LD_LIBRARY_PATH=$libraries "$program" "$asked" 2>&1); then
    echo "does not run here: $(printf '%s' "$version" | head -n 1)"
    return 0
  fi
  case $part in
    containerd-*)
      # "containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+b1"
      version=$(printf '%s' "$version" | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
      case $version. in
        "${part#containerd-}".*) return 1 ;;
      esac
      echo "has $version"
      return 0
      ;;
  esac
  return 1
}
