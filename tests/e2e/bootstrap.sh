#!/usr/bin/env bash
# scripts/bootstrap where something is missing: it says what to do, ends with 69, and does so soon. Nothing is fetched.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; cat "$work/out" "$work/err"; exit 1; }
[ "$(uname -m)" = x86_64 ] && /usr/bin/python3 -m pip --version >/dev/null 2>&1 ||
  { echo "skipped: LibTorch is pinned for x86_64, and python3-pip is wanted"; exit 4; }

# Programs that stand in for the machine's: packages that are all there ($1 = there) or not, an ordinary user
# without sudo, a disk with room.
mkdir "$work/bin"
stub() { printf '#!/bin/sh\n%s\n' "$2" >"$work/bin/$1"; chmod +x "$work/bin/$1"; }
stub dpkg-query '[ -e "$STATE/there" ] || exit 1; shift 2; for p; do echo "install ok installed $p"; done'
stub id 'echo 1000'
stub sudo 'exit 1'
stub apt-get 'touch "$STATE/apt-get"; exit 1'
stub df 'echo head; echo disk 0 0 99999999 0% /'

# bootstrap STATUS [NAME=VALUE...]: nothing answers at the index's address. As a user runs it: without the developers' tools.
bootstrap() {
  local want=$1 got
  shift
  env -u PRAETOR_DEV_TOOLS -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u all_proxy -u ALL_PROXY PIP_CONFIG_FILE=/dev/null \
    PIP_INDEX_URL=http://127.0.0.1:9/simple PATH="$work/bin:$PATH" STATE="$work" PRAETOR_CACHE="$work/cache" "$@" \
    timeout 60 "$root/scripts/bootstrap" >"$work/out" 2>"$work/err"
  got=$?
  [ "$got" = "$want" ] || fail "bootstrap: exit $got, $want was wanted"
  [ ! -s "$work/out" ] || fail "words on stdout"
}

bootstrap 69
grep -qE '^bootstrap: these packages are missing and need root: run as root: apt-get install g\+\+ cmake .* catch2( |$)' "$work/err" ||
  fail "the missing packages are not told"
[ ! -e "$work/apt-get" ] || fail "apt-get was called without root"
[ ! -e "$work/cache" ] || fail "something was written before the packages were there"

touch "$work/there"
bootstrap 69
grep -q "^bootstrap: could not fetch LibTorch's wheels; is the Python package index reachable?" "$work/err" ||
  fail "the index is not named"
[ ! -e "$work/cache/libtorch" ] || fail "half of a LibTorch was left"

: >"$work/file"
bootstrap 69 PRAETOR_CACHE="$work/file/cache"
grep -q "^bootstrap: cannot write to $work/file/cache" "$work/err" || fail "the place is not named"

# A LibTorch that is there is left alone, in silence.
target=$work/cache/libtorch-$(sha256sum "$root/scripts/libtorch-wheels.txt" | cut -c1-16)
mkdir -p "$target"
touch "$target/complete"
bootstrap 0
[ ! -s "$work/err" ] || fail "words where nothing was to be done"
[ "$(readlink "$work/cache/libtorch")" = "$target" ] || fail "the link to LibTorch is missing"
