# Workers whose calls go through relays: the run is the colocated one bit for bit, also when a relay, or a worker behind one, is
# killed or stopped in the middle; by hand, a worker joins over a relay as over the controller.
source "$(dirname "$0")/lib.sh"

tiny_job > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny

# relayed OUTPUT: three workers behind two relays.
relayed() {
  separate_job "$1" 2 1
  echo "  relay: {workers: 2}"
}

out=$work/plain
relayed "$out" > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$out/tiny" ]; do sleep 0.05; done
pid_of "$out/tiny" relay-1 > /dev/null
"$praetor" status "$out/tiny" > "$work/status" 2>&1 && { grep -q "relay-0 *relay" "$work/status" || { cat "$work/status"; fail "status shows no relay"; }; }
# One more, by hand, as long as the run lasts.
"$praetor" worker --join "$out/tiny" --relay relay-0 --name extra --threads 1 2> "$work/extra" & extra=$!
wait "$extra" || { cat "$work/extra"; fail "a worker by hand over a relay"; }
grep -q "the run is over" "$work/extra" || { cat "$work/extra"; fail "the worker by hand did not hear of the end"; }
finish "$pid" "$out" "two relays"
[ ! -e "$out/tiny/relay-0.json" ] || fail "a relay that is gone can still be found"
# Nobody but the relays and the learner's side called the controller.
grep -q "Worker.LeaseSome" "$out/tiny/logs/controller.log" || fail "no call was combined"
! grep -q "Worker.Lease:" "$out/tiny/logs/controller.log" || fail "a worker asked the controller itself"

for strike in "KILL relay-0 24" "STOP relay-0 25" "KILL rollout-1 26" "KILL relay-1 23"; do
  set -- $strike
  out=$work/strike
  rm -rf "$out"
  relayed "$out" > "$work/separate.yaml"
  "$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -d "$out/tiny" ]; do sleep 0.05; done
  target=$(pid_of "$out/tiny" "$2")
  await_rows "$pid" "$out/tiny" "$3"
  kill "-$1" "$target" 2> /dev/null || fail "$2 had ended before row $3"
  finish "$pid" "$out" "$1 of $2 at row $3"
  grep -q "$2 died:" "$work/err" || { cat "$work/err"; fail "nobody said that $2 died"; }
done

"$praetor" worker --join 127.0.0.1:1 --relay relay-0 2> "$work/err" && fail "--relay with an address was taken"
grep -q "give the address of the relay there" "$work/err" || { cat "$work/err"; fail "no word of what is right"; }
true
