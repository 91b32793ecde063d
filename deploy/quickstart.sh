#!/usr/bin/env bash
# Shows what Tidehold does on this machine: 150 pulls without it, 150 with it, and a container that runs.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=tests/support/packages.sh
. tests/support/packages.sh

usage() {
  cat <<'TEXT'
usage: ./deploy/quickstart.sh [--pulls N] [--keep]
       ./deploy/quickstart.sh --upstream URL [--image REF] [--pulls N] [--keep]
       ./deploy/quickstart.sh --stop

Builds Tidehold, starts a stand-in for Docker Hub on loopback that allows 100 counted GETs, and lets a private
containerd pull the same image 150 times, each time as a node that has nothing: first straight from the
registry, then through Tidehold. Prints what either cost, and runs a container from the pulled image.

  --pulls N       how many pulls (150; with --upstream 3)
  --upstream URL  pull through Tidehold from a real registry instead, for example https://registry-1.docker.io.
                  Only the pulls with Tidehold are made, since those without would spend your limit, and only 3
                  of them unless --pulls says otherwise
  --image REF     what to pull from it (docker.io/library/busybox:latest)
  --keep          leave everything running at the end, and say how to look around
  --stop          end what an earlier --keep left running
  --help          this text

It installs the packages that are missing, fetches a containerd and runc into a cache folder without installing
them, and needs root for the private containerd (through sudo where it can). The machine's own containerd is not
touched. Everything that it started is stopped and removed when it ends.
TEXT
}

# Where a run that was kept is remembered.
readonly KEPT=/run/tidehold-quickstart
readonly LIMIT=100

misused() {
  say "$* (see --help)"
  exit 2
}

upstream="" image="" pulls="" keep=no stop=no built=no
while [ $# -gt 0 ]; do
  case $1 in
    --upstream | --image | --pulls)
      [ $# -gt 1 ] || misused "$1 needs a value"
      printf -v "${1#--}" %s "$2"
      shift
      ;;
    --keep) keep=yes ;;
    --stop) stop=yes ;;
    --built) built=yes ;; # what it says to itself when it has built and goes on as root
    -h | --help) usage && exit 0 ;;
    *) misused "unknown option $1" ;;
  esac
  shift
done
[ -n "$pulls" ] || pulls=$([ -n "$upstream" ] && echo 3 || echo 150)
[[ $pulls =~ ^[1-9][0-9]*$ ]] || misused "--pulls takes a number"
[ -z "$image" ] || [ -n "$upstream" ] || misused "--image goes with --upstream: the stand-in has an image of its own"
[[ -z $upstream || $upstream =~ ^https?://[^/]+$ ]] || misused "--upstream takes http://HOST or https://HOST, without a path"
if [ -z "$upstream" ]; then
  image=docker.io/library/tide:latest
else
  image=${image:-docker.io/library/busybox:latest}
fi
registry=${image%%/*}
[[ $image == */* && $registry == *[.:]* ]] ||
  misused "--image takes a reference with its registry, as in docker.io/library/busybox:latest"

# --- built as whoever runs this, gone on with as root ---------------------------------------------------

if [ "$stop$built" = nono ]; then
  install_prerequisites
  fetch_parts
  newest_containerd >/dev/null || stop_with "no containerd could be fetched: see above"
  [ -d "$(parts_cache)/runc" ] || stop_with "no runc could be fetched: see above"
  say "building (the first time takes some minutes)"
  cargo build --release --locked --bin tidehold --example hub
fi
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null ||
    stop_with "a private containerd mounts file systems and makes namespaces, which takes root, and there is no sudo here: run this as root"
  say "going on with sudo: a private containerd mounts file systems and makes namespaces"
  again=(--built --pulls "$pulls")
  [ -z "$upstream" ] || again+=(--upstream "$upstream" --image "$image")
  [ "$keep" = no ] || again+=(--keep)
  [ "$stop" = no ] || again+=(--stop)
  exec sudo env "TIDEHOLD_TEST_CACHE=$(parts_cache)" "CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}" "$0" "${again[@]}"
fi
readonly PROGRAMS=${CARGO_TARGET_DIR:-target}/release

# --- what runs, and its end -----------------------------------------------------------------------------

# start NAME COMMAND…: runs it apart from the terminal; its log and process id are in $work. It ends with this
# script, however that ends, unless it is to be kept.
start() {
  local name=$1 leash=(setpriv --pdeathsig TERM)
  shift
  [ "$keep" = no ] || leash=()
  setsid "${leash[@]}" "$@" >"$work/$name.log" 2>&1 </dev/null &
  echo $! >"$work/$name.pid"
}

# await NAME COMMAND…: until the command succeeds. Stops where NAME has ended, or is late.
await() {
  local name=$1 pid _
  shift
  pid=$(cat "$work/$name.pid")
  for _ in {1..200}; do
    ! "$@" >/dev/null 2>&1 || return 0
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.1
  done
  tail -n 20 "$work/$name.log" >&2
  stop_with "$name did not become ready; the end of its log is above"
}

# end NAME: asks it to stop, waits, insists.
end() {
  local pid
  pid=$(cat "$work/$1.pid" 2>/dev/null) || return 0
  # Where it is a containerd, the process that was started holds its namespaces, and it stands behind that.
  kill -TERM "$(cat "$work/$1/pid" 2>/dev/null || echo "$pid")" 2>/dev/null || true
  gone "$pid" || { kill -KILL "$pid" 2>/dev/null && gone "$pid"; } || true
  rm -f "$work/$1.pid"
}

gone() {
  local _
  for _ in {1..100}; do
    kill -0 "$1" 2>/dev/null || return 0
    sleep 0.1
  done
  return 1
}

end_everything() {
  local name
  for name in without with tidehold hub-without hub-with; do
    end "$name"
  done
  rm -rf "$work"
}

end_kept() {
  if [ -r "$KEPT" ]; then
    work=$(cat "$KEPT")
    end_everything
    rm -f "$KEPT"
    say "stopped what an earlier run had left running"
  elif [ "$stop" = yes ]; then
    say "nothing is running"
  fi
}

end_kept
[ "$stop" = no ] || exit 0

work=$(mktemp -d /var/tmp/tidehold-quickstart.XXXXXX)
trap end_everything EXIT
trap 'exit 130' INT TERM HUP

# --- the parts ------------------------------------------------------------------------------------------

# A loopback port that nothing listens on.
free_port() {
  local port
  while port=$((20000 + RANDOM % 10000)); do
    (: >"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
  done
  echo "$port"
}

# start_hub NAME: a stand-in with a full limit; its address goes to $hub.
start_hub() {
  start "$1" "$PROGRAMS/examples/hub" --listen 127.0.0.1:0 --limit "$LIMIT"
  await "$1" grep -q '^hub ready on ' "$work/$1.log"
  hub=$(sed -n 's/^hub ready on //p' "$work/$1.log")
}

# The figures of a half, one a line: what the stand-in counted, or what Tidehold says that it asked.
figures() {
  local asked name
  printf '%s\n' "$pulls" "$succeeded" "$failed"
  if [ "$demo" = yes ]; then
    asked=$(curl -fsS "$hub/_hub/counters" | tr -d ' \n')
    for name in manifest_gets manifest_heads cdn_gets; do
      printf '%s\n' "$asked" | sed -n "s/.*\"$name\":\([0-9]*\).*/\1/p"
    done
  else
    asked=$(grep 'asked upstream' "$work/tidehold.log" || true)
    printf '%s\n' "$asked" | grep -c 'method=GET .*kind="manifest"' || true
    printf '%s\n' "$asked" | grep -c 'method=HEAD .*kind="manifest"' || true
    printf '%s\n' "$asked" | grep -c 'method=GET .*kind="blob" .*status=20[06]' || true
  fi
}

start_tidehold() {
  local mirror_port web_port
  mirror_port=$(free_port)
  web_port=$(free_port)
  mirror=http://127.0.0.1:$mirror_port
  cat >"$work/tidehold.toml" <<CONF
data_dir = "$work/hold"

[[containerd]]
name = "quickstart"
socket = "$work/content.sock"

[mirror]
listen = "127.0.0.1:$mirror_port"

[control]
socket = "$work/control.sock"

[web]
listen = "127.0.0.1:$web_port"

[tags]
fresh_for = "0s"        # so that every pull asks the registry whether the tag moved

[registries."$registry"]
upstream = "$upstream"
CONF
  start tidehold env RUST_LOG=info,tidehold::upstream::record=debug "$PROGRAMS/tidehold" serve --config "$work/tidehold.toml"
  await tidehold curl -fsS "$mirror/v2/"
}

# start_containerd NAME URL [CONTENT_SOCKET]: it asks for everything at URL, and keeps its content in its own
# store, or behind the socket. $work/NAME/ctr is its client.
start_containerd() {
  local folder=$work/$1 proxy="" differ="" unpack="" launcher=$PWD/tests/support/private-containerd
  local disabled='"io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"'
  mkdir -p "$folder/certs.d/$registry"
  printf 'server = "%s"\n[host]\n' "$2" >"$folder/certs.d/$registry/hosts.toml"
  if [ $# -gt 2 ]; then
    disabled+=', "io.containerd.content.v1.content"'
    proxy="[proxy_plugins.tidehold]
  type = \"content\"
  address = \"$3\""
    if [ "$major" != 1.6 ]; then
      proxy+="
[proxy_plugins.tidehold-diff]
  type = \"diff\"
  address = \"$3\"
[plugins.\"io.containerd.service.v1.diff-service\"]
  default = [\"tidehold-diff\", \"walking\"]"
      differ="
  differ = \"tidehold-diff\""
    fi
  fi
  if [ "$major" = 2 ]; then
    disabled+=', "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.nri.v1.nri"'
    disabled+=', "io.containerd.podsandbox.controller.v1.podsandbox", "io.containerd.grpc.v1.sandbox-controllers"'
  fi
  if [ "$major" != 1.6 ]; then
    unpack="[[plugins.\"io.containerd.transfer.v1.local\".unpack_config]]
  platform = \"$platform\"
  snapshotter = \"$snapshotter\"$differ"
  fi
  cat >"$folder/config.toml" <<CONF
version = 2
root = "$folder/root"
state = "$folder/state"
disabled_plugins = [$disabled]
required_plugins = ["io.containerd.metadata.v1.bolt"]
[grpc]
  address = "$folder/grpc.sock"
[ttrpc]
  address = "$folder/ttrpc.sock"
$proxy
$unpack
CONF
  cat >"$folder/ctr" <<CTR
#!/bin/sh
exec env -i HOME=/root PATH="$programs_path" nsenter --mount --pid --root --target "\$(cat "$folder/pid")" \\
  ctr --address "$folder/grpc.sock" "\$@"
CTR
  chmod +x "$folder/ctr"
  [ "$keep" = no ] || launcher+=" --outlive"
  # shellcheck disable=SC2086 # the launcher and its option
  start "$1" env -i HOME=/root PATH="$programs_path" $launcher "$folder/config.toml"
  await "$1" "$folder/ctr" version
}

# --- the pulls ------------------------------------------------------------------------------------------

pull() {
  local options=(--snapshotter "$snapshotter" --platform "$platform" --hosts-dir "$work/$1/certs.d")
  # Else 2.x asks for the manifests of every platform.
  [ "$major" != 2 ] || options+=(--skip-metadata)
  timeout --foreground --kill-after=5 120 "$work/$1/ctr" images pull "${options[@]}" "$image"
}

# pull_all NAME WORDS: pulls, and removes the image with its content before the next pull, as if every pull
# were a new node's. Counts into $succeeded and $failed.
pull_all() {
  local name=$1 words=$2 started=$EPOCHSECONDS i
  succeeded=0 failed=0
  for ((i = 1; i <= pulls; i++)); do
    if pull "$name" >"$work/pull.log" 2>&1; then
      succeeded=$((succeeded + 1))
    else
      failed=$((failed + 1))
      [ "$failed" -gt 1 ] || cp "$work/pull.log" "$work/first-failure"
    fi
    [ "$i" -eq "$pulls" ] || "$work/$name/ctr" images rm --sync "$image" >/dev/null 2>&1 || true
    [ ! -t 2 ] || printf '\r\033[K%s: pull %s of %s, %s failed' "$words" "$i" "$pulls" "$failed" >&2
  done
  [ ! -t 2 ] || printf '\r\033[K' >&2
  say "$words: $succeeded of $pulls pulls succeeded, in $((EPOCHSECONDS - started)) s"
  [ "$failed" -eq 0 ] ||
    say "  the first failure: $(grep . "$work/first-failure" | tail -n 1 | cut -c 1-300)"
}

# table TITLE: a column for each half that ran.
table() {
  local row names=("pulls" "succeeded" "failed" "counted GETs" "HEADs, which don't count" "blob downloads")
  printf '\n%-26s' "$1"
  [ "${#before[@]}" -eq 0 ] || printf ' %18s' "without Tidehold"
  printf ' %18s\n' "with Tidehold"
  for row in "${!names[@]}"; do
    printf '%-26s' "${names[$row]}"
    [ "${#before[@]}" -eq 0 ] || printf ' %18s' "${before[$row]}"
    printf ' %18s\n' "${after[$row]}"
  done
  printf '\n'
}

run_container() {
  local id=tidehold-quickstart-$$ command=() status=0
  # The stand-in's image has a command that says what it is; of another image nothing is known, but that it may
  # have a shell.
  [ "$demo" = yes ] || command=(/bin/sh -c 'echo its shell runs')
  say "a container from the pulled image prints:"
  # Into a file: on a busy machine ctr can open the container's output too late to get any of it.
  timeout --foreground --kill-after=5 60 "$work/with/ctr" run --rm --snapshotter "$snapshotter" --cgroup "/$id" \
    --log-uri "file://$work/container.log" "$image" "$id" "${command[@]}" >"$work/run.log" 2>&1 || status=$?
  cat "$work/container.log" "$work/run.log" 2>/dev/null | sed 's/^/  /'
  rmdir "/sys/fs/cgroup/$id" /sys/fs/cgroup/*/"$id" 2>/dev/null || true
  [ "$status" -ne 0 ] || return 0
  # It shows nothing wrong with the pull, where the image is one without a shell.
  if [ "$demo" = yes ]; then failed=1; else say "  (not every image has a shell)"; fi
}

how_to_look_around() {
  cat <<TEXT

Left running, with everything in $work:
  containerd's client   $work/with/ctr images ls
                        $work/with/ctr images pull --hosts-dir $work/with/certs.d $image
  Tidehold's mirror     curl -sI '$mirror/v2/${path%:*}/manifests/${path##*:}?ns=$registry'
  its configuration     $work/tidehold.toml
  its log               $work/tidehold.log
TEXT
  [ "$demo" = no ] || printf '  what the hub counted  curl %s/_hub/counters\n' "$hub"
  printf '  to end it all         %s --stop\n' "$0"
}

# overlayfs, where the file system bears it.
usable_snapshotter() {
  mkdir -p "$work"/probe/{lower,upper,work,merged}
  if (cd "$work/probe" && unshare --mount mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work merged) 2>/dev/null; then
    echo overlayfs
  else
    echo native
  fi
}

containerd=$(newest_containerd) || stop_with "no containerd in $(parts_cache)"
major=${containerd##*-}
programs_path=$containerd/usr/bin:$(parts_cache)/runc/usr/sbin:$(parts_cache)/runc/usr/bin:/usr/sbin:/usr/bin:/sbin:/bin
snapshotter=$(usable_snapshotter)
path=${image#*/}
demo=$([ -z "$upstream" ] && echo yes || echo no)
case $(uname -m) in
  x86_64) platform=linux/amd64 ;;
  aarch64) platform=linux/arm64 ;;
  *) stop_with "there is no containerd to fetch for a $(uname -m)" ;;
esac
say "containerd $("$containerd/usr/bin/containerd" --version | awk '{ print $3 }'), private, from $containerd"

before=()
title="$image"
if [ "$demo" = yes ]; then
  title="a limit of $LIMIT GETs"
  start_hub hub-without
  start_containerd without "$hub"
  pull_all without "without Tidehold"
  mapfile -t before < <(figures)
  end without
  end hub-without
  start_hub hub-with
  upstream=$hub
fi

start_tidehold
start_containerd with "$mirror" "$work/content.sock"
pull_all with "with Tidehold"
mapfile -t after < <(figures)
table "$title"
[ "$succeeded" -eq 0 ] || run_container

if [ "$keep" = yes ]; then
  trap - EXIT
  echo "$work" >"$KEPT"
  how_to_look_around
fi
[ "$failed" -eq 0 ]
