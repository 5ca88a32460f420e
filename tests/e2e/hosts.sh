# A run over four hosts: controller, learner and two workers, each in a network namespace of its own, joined by a bridge in a
# fifth, with mutual TLS and weights over streams. It ends with the calm colocated run's weights, bit for bit, also when a
# link is cut, slow, stalls, or is gone without a word. Needs root and ip (iproute2): a user skips it, CI must not.
source "$(dirname "$0")/lib.sh"

missing=""
[ "$(id -u)" -eq 0 ] || missing="root"
command -v ip > /dev/null || missing="${missing:+$missing and }ip (package iproute2)"
prefix=praetor$$
if [ -z "$missing" ] && ! ip netns add "$prefix-try" 2> "$work/why"; then missing="network namespaces ($(cat "$work/why"))"; fi
if [ -n "$missing" ]; then
  [ -z "${CI:-}" ] || fail "CI must run this test; missing: $missing"
  echo "skipped: needs $missing"
  exit 4
fi
ip netns del "$prefix-try"

pids=()
# Only what this script made: its own children, and its own namespaces.
cleanup() {
  local pid name
  for pid in $(jobs -p); do kill -KILL "$pid" 2> /dev/null || true; done
  wait 2> /dev/null || true
  for name in switch controller learner a b; do ip netns del "$prefix-$name" 2> /dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

ip netns add "$prefix-switch"
ip -n "$prefix-switch" link add bridge type bridge
ip -n "$prefix-switch" link set bridge up
number=0
for host in controller learner a b; do
  number=$((number + 1))
  ip netns add "$prefix-$host"
  ip link add eth0 netns "$prefix-$host" type veth peer name "to-$host" netns "$prefix-switch"
  ip -n "$prefix-switch" link set dev "to-$host" master bridge up
  ip -n "$prefix-$host" addr add "10.77.0.$number/24" dev eth0
  ip -n "$prefix-$host" link set lo up
  ip -n "$prefix-$host" link set eth0 up
done
cable() { ip -n "$prefix-switch" link set dev "to-$1" "$2"; }  # HOST up|down: the far end, so that nobody hears of it by a FIN

# on HOST LOG COMMAND...: in the background; its id is the last of pids.
on() {
  local host=$1 log=$2; shift 2
  ip netns exec "$prefix-$host" "$@" > "$work/$log" 2>&1 &
  pids+=($!)
}

tiny_job 1 24 > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

# start NAME: controller and learner of a new run, on hosts of their own.
start() {
  run=$work/$1/tiny
  mkdir -p "$run/logs"
  { separate_job "$work/$1" 0 0 | sed '/^roles:/,$d'
    echo 'roles: {rollout: {workers: 0}, reward: {workers: 0}}'
    echo 'network: {bind: 0.0.0.0, advertise: 10.77.0.1}'
    echo 'publish: {via: stream}'; } > "$run/resolved.yaml"
  on controller "$1.controller" "$praetor" controller "$run"
  controller=${pids[-1]}
  until [ -e "$run/controller.json" ]; do sleep 0.05; kill -0 "$controller" || { cat "$work/$1.controller"; fail "no controller ($1)"; }; done
  on learner "$1.learner" "$praetor" learner "$run" --advertise 10.77.0.2
  learner=${pids[-1]}
}
# worker HOST LOG JOIN...: one that generates and scores.
worker() {
  local host=$1 log=$2; shift 2
  on "$host" "$log" "$praetor" worker --join "$@" --serve generate,score --threads 1 --name "$host"
}
# through HOST PORT MODE: a proxy on HOST before the controller; a worker that joins by address goes through it.
through() {
  on "$1" "$4.proxy-$1" python3 "$root/tests/e2e/proxy.py" "$2" "$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$run/controller.json")" "$3"
  local tries
  for tries in $(seq 100); do grep -q ready "$work/$4.proxy-$1" && return; sleep 0.05; done
  fail "no proxy on $1"
}
# ended NAME [PID...]: the learner ends well, then the controller and those workers; the run is the calm one.
ended() {
  local name=$1 status=0 pid waited=0; shift
  while kill -0 "$learner" 2> /dev/null; do
    sleep 0.2; waited=$((waited + 1))
    [ "$waited" -lt 450 ] || { tail -n 30 "$work/$name".*; fail "no end after 90 s ($name)"; }
  done
  wait "$learner" || status=$?
  [ "$status" -eq 0 ] || { tail -n 30 "$work/$name".*; fail "the learner gave status $status ($name)"; }
  # What the supervisor says at the end of a run that train started.
  kill -TERM "$controller"; wait "$controller" || true
  for pid in "$@"; do kill -TERM "$pid" 2> /dev/null || true; wait "$pid" || true; done
  "$praetor" verify "$run" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify ($name)"; }
  same_run "$calm" "$run" "$name"
}
rows() {  # COUNT: until so many rows of metrics are written
  while [ "$(cat "$run/metrics.jsonl" 2> /dev/null | wc -l)" -lt "$1" ]; do sleep 0.02; kill -0 "$learner" || fail "the learner ended early"; done
}
status_of() {  # MEMBER FIELD
  ip netns exec "$prefix-controller" "$praetor" status "$run" --json 2> /dev/null | python3 -c '
import json, sys
for m in json.load(sys.stdin).get("roles", {}).get("members", []):
    if m["name"] == sys.argv[1]: print(m[sys.argv[2]])' "$1" "$2" || true
}

# Four hosts and nothing else: encrypted, streamed, the same bits.
start plain
worker a plain.a "$run"; worker b plain.b "$run"
grep -q '"tls"' "$run/controller.json" || fail "a wire between hosts without TLS"
[ "$(stat -c %a "$run"/tls)" = 700 ] || fail "the certificates' folder is open to others"
[ -z "$(find "$run/tls" -type f ! -perm 600)" ] || fail "a certificate or key is open to others"
rows 25
# Whoever has the secret but no certificate stays outside.
mkdir -p "$work/outside" && cp -p "$run/secret" "$work/outside/"
run_id=$(sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p' "$run/controller.json")
status=0
ip netns exec "$prefix-a" timeout 20 "$praetor" worker --join "$(sed -n 's/.*"address":"\([^"]*\)".*/\1/p' "$run/controller.json")" \
  --run-id "$run_id" --secret-folder "$work/outside" --serve generate > "$work/outside.log" 2>&1 || status=$?
[ "$status" -eq 77 ] || { cat "$work/outside.log"; fail "a worker without a certificate gave status $status"; }
# The secret and the keys are where they belong, and nowhere else.
secret=$(cat "$run/secret")
for pid in "${pids[@]}"; do
  tr '\0' ' ' < "/proc/$pid/cmdline" 2> /dev/null | grep -qF "$secret" && fail "the secret is an argument of process $pid"
done
ended plain "${pids[@]: -2}"
found=$(grep -rlFa "$secret" "$run" "$work"/plain.* | grep -vx "$run/secret" || true)
[ -z "$found" ] || fail "the secret is in $found"
found=$(grep -rlFa "PRIVATE KEY" "$run" "$work"/plain.* | grep -v "^$run/tls/[a-z]*\.key$" || true)
[ -z "$found" ] || fail "a key is in $found"

# The cable of one worker is out for some seconds: its work goes to the other, and it comes back.
start cut
worker a cut.a "$run"; worker b cut.b "$run"
rows 24
cable a down
sleep 4
cable a up
ended cut "${pids[@]: -2}"
grep -q "lost a on" "$work/cut.controller" || { cat "$work/cut.controller"; fail "nobody missed the worker whose cable was out"; }

# One link is slow, the other stands still for a while, without an end.
start links
run_id=$(sed -n 's/.*"run_id":"\([^"]*\)".*/\1/p' "$run/controller.json")
through a 7001 slow links
through b 7001 stall links
for host in a b; do
  worker "$host" "links.$host" 127.0.0.1:7001 --run-id "$run_id" --secret-folder "$run"
done
ended links "${pids[@]: -2}"
grep -q stalled "$work/links.proxy-b" || fail "the stalling link did not stall"

# A host is gone without a word: no FIN, no RST. It is noticed in time, and the run goes on without it.
start gone
worker a gone.a "$run"; worker b gone.b "$run"
rows 24
cable b down
cut=$(date +%s%N)
until [ "$(status_of b state)" = lost ]; do
  sleep 0.1
  [ $(($(date +%s%N) - cut)) -lt 6000000000 ] || fail "a host that is gone was not noticed within 6 s (lost_after is 2 s)"
done
kill -KILL "${pids[-1]}"
ended gone "${pids[-2]}"
true
