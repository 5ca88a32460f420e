# launcher.kind: mpirun over three hosts, two of them reached by a remote shell: bit for bit the run of this machine alone; what dies
# there is started again, on the next host; nothing outlives the run, even when it is killed.
source "$(dirname "$0")/lib.sh"
tiny_job > "$work/job.yaml"
separate_job "$work/two" 1 1 2 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "two ranks on this machine"; }
calm=$work/two/tiny

# A remote shell to hosts that are all this one. It notes what it was asked for.
cat > "$work/remote" <<'SH'
#!/bin/sh
echo "$1" >> "$(dirname "$0")/reached"
shift
exec sh -c "$*"
SH
chmod +x "$work/remote"
mpirun_job() {
  separate_job "$1" 2 1 2
  echo "launcher: {kind: mpirun, hosts: ['alpha:1', 'beta:1', localhost], remote_shell: ['$work/remote']}"
}
status=0
mpirun_job "$work/hosts" > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" --set network.bind=127.0.0.1 > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 78 ] && grep -q 'network.bind: "127.0.0.1" is the loopback' "$work/err" || { cat "$work/err"; fail "the loopback for several hosts: $status"; }

"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/hosts/tiny" ]; do sleep 0.05; kill -0 "$pid"; done
target=$(pid_of "$work/hosts/tiny" rollout-0)
await_rows "$pid" "$work/hosts/tiny" 23
kill -KILL "$target"
finish "$pid" "$work/hosts" "a worker of another host is killed"
grep -q "died:" "$work/err" || { cat "$work/err"; fail "nobody said that the worker died"; }
for host in alpha beta; do grep -qx $host "$work/reached" || fail "$host was not used"; done

# SIGTERM saves; kill -9 of the supervisor leaves nothing either; both are gone on from.
mpirun_job "$work/stop" > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
await_rows "$pid" "$work/stop/tiny" 22
kill -TERM "$pid"
status=0; wait "$pid" || status=$?
[ "$status" -eq 143 ] || { cat "$work/err"; fail "SIGTERM gave status $status"; }
no_orphans "$work/stop/tiny" "SIGTERM"
"$praetor" train "$work/separate.yaml" --resume auto > "$work/out" 2> "$work/err" & pid=$!
await_rows "$pid" "$work/stop/tiny" 26
kill -KILL "$pid"
wait "$pid" 2> /dev/null || true
for _ in $(seq 100); do pgrep -f "$work/stop/tiny" > /dev/null || break; sleep 0.1; done
no_orphans "$work/stop/tiny" "kill -9 of train"
"$praetor" train "$work/separate.yaml" --resume auto > "$work/out" 2> "$work/err" &
finish $! "$work/stop" "resumed over hosts"
