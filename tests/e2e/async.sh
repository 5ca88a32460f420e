# Sampling ahead of training: a run of separate roles with max_staleness ends with an account that holds and no sample beyond the
# bound, also when workers and learner are killed in the middle and when it is interrupted and resumed; its steps replay bit for bit.
source "$(dirname "$0")/lib.sh"

tiny_job 1 16 > "$work/job.yaml"

# async_job OUTPUT BOUND [ROLLOUT]
async_job() {
  separate_job "$1" "${3:-1}" 1 | sed "s/^    eval: {every: 5}/    max_staleness: $2\n&/"
}

# within RUN BOUND: what the metrics and the account say.
within() {
  rm -rf "$work/books" && mkdir "$work/books" && cp "$1"/ledger.db* "$work/books/"
  python3 - "$1" "$2" "$work/books/ledger.db" <<'PY' || fail "$1 with bound $2"
import json, sqlite3, sys
run, bound = sys.argv[1], int(sys.argv[2])
rows = [json.loads(line) for line in open(run + "/metrics.jsonl")]
rows = [r for r in rows if r["stage"] == "ppo" and r["step"] > 0]
assert [r["step"] for r in rows] == list(range(1, 17)), [r["step"] for r in rows]
for row in rows:
    assert 0 <= row["staleness/mean"] <= row["staleness/max"] <= bound, row
    assert row.get("mismatch/logprob_max", 0) < 1e-4, row  # of tokens of the present weights
    assert ("mismatch/weight_max" in row) == (bound > 0) and row.get("mismatch/weight_max", 0) <= 2, row
    assert row["idle/learner"] >= 0, row
assert max(r["staleness/max"] for r in rows) == bound, "nothing was sampled ahead"
# Every sample is in one batch, and what was asked for ahead was trained.
ledger = sqlite3.connect(sys.argv[3])
stage = ledger.execute("SELECT stage FROM stages WHERE name = 'ppo'").fetchone()[0]
counts = ledger.execute("SELECT COUNT(*), COUNT(DISTINCT ordinal) FROM batch_samples WHERE stage = ?", (stage,)).fetchone()
assert counts == (256, 128), counts
worst = ledger.execute("SELECT MAX(b.step - 1 - r.weight_version) FROM batch_samples b JOIN rollouts r ON r.stage = b.stage AND "
                       "r.ordinal = b.ordinal AND r.sample = b.sample WHERE b.stage = ?", (stage,)).fetchone()[0]
assert worst == bound, worst
PY
  local step
  for step in 2 11 16; do
    "$praetor" replay "$1" --step "$step" > "$work/replay.json" || { cat "$work/replay.json"; fail "replay of step $step ($1)"; }
    grep -q '"identical":true' "$work/replay.json" || fail "replay of step $step ($1)"
  done
}

start() { "$praetor" train "$work/separate.yaml" "$@" > "$work/out" 2> "$work/err" & pid=$!; }

# Bounds 0, 1 and 3, the last over two workers whose responses do not go on under newer weights.
for bound in 0 1; do
  async_job "$work/k$bound" "$bound" > "$work/separate.yaml"
  start
  await_end "$pid" "$work/k$bound" "bound $bound"
  within "$work/k$bound/tiny" "$bound"
done
"$praetor" status "$work/k1/tiny" --json | grep -q '"staleness/max":1' || fail "status says nothing of staleness"
async_job "$work/k3" 3 2 > "$work/separate.yaml"
start --set stages.ppo.partial_rollouts=false
await_end "$pid" "$work/k3" "bound 3"
within "$work/k3/tiny" 3

# One process of each role is killed in the middle. 21 rows are of the stages before.
for member in rollout-0 reward-0 learner-0 controller; do
  out=$work/kill-$member
  async_job "$out" 1 > "$work/separate.yaml"
  start
  while [ ! -d "$out/tiny" ]; do sleep 0.05; done
  target=$(pid_of "$out/tiny" "$member")
  await_rows "$pid" "$out/tiny" 29
  kill -KILL "$target" 2> /dev/null || fail "$member had ended before row 29"
  await_end "$pid" "$out" "kill -9 of $member"
  grep -q "died:" "$work/err" || { cat "$work/err"; fail "nobody said that $member died"; }
  grep -q "equivalent, not identical" "$work/err" && fail "a step trained again came out otherwise ($member)"
  within "$out/tiny" 1
done

# Ctrl-C saves, and the run goes on with what was sampled ahead.
out=$work/stop
async_job "$out" 2 > "$work/separate.yaml"
start
while [ ! -d "$out/tiny" ]; do sleep 0.05; done
pid_of "$out/tiny" learner-0 > /dev/null
await_rows "$pid" "$out/tiny" 29
kill -TERM "$pid"
status=0; wait "$pid" || status=$?
[ "$status" -eq 143 ] || { cat "$work/err"; fail "SIGTERM gave status $status"; }
start --resume auto
await_end "$pid" "$out" "resumed"
grep -q "equivalent, not identical" "$work/err" && fail "resuming was called another run"
within "$out/tiny" 2

# A worker that is slow has responses under way when new weights come: they go on under them, each token under its own.
out=$work/slow
async_job "$out" 1 > "$work/separate.yaml"
sed -i "s/max_positions: 64/max_positions: 512/; s/max_new_tokens: 16/max_new_tokens: 160, min_new_tokens: 120/" "$work/separate.yaml"
start --set stages.ppo.engine.max_sequences=1 --set stages.ppo.ppo.epochs=1 --set stages.ppo.ppo.minibatches=1
while [ ! -d "$out/tiny" ]; do sleep 0.05; done
target=$(pid_of "$out/tiny" rollout-0)
await_rows "$pid" "$out/tiny" 22
while kill -STOP "$target" 2> /dev/null; do
  sleep 0.04
  kill -CONT "$target" 2> /dev/null || break
  sleep 0.01
done
await_end "$pid" "$out" "a slow worker"
within "$out/tiny" 1
python3 - "$out/tiny" "$work/books/ledger.db" <<'PY' || fail "no response went on under newer weights"
import sqlite3, sys
rows = sqlite3.connect(sys.argv[2]).execute("SELECT segment, position FROM rollouts WHERE stage = 3").fetchall()
def version(segment, position):  # of the payload, behind the record's length and checksum
    with open(f"{sys.argv[1]}/rollouts/{segment:06d}.seg", "rb") as file:
        file.seek(position + 8)
        return file.read(1)[0]
mixed = sum(version(*row) == 2 for row in rows)
print(mixed, "of", len(rows), "responses are of several weights")
sys.exit(mixed == 0)
PY

# In one process the same bound makes samples as old, each time alike.
tiny_job > "$work/one.yaml"
for name in one two; do
  "$praetor" train "$work/one.yaml" --set stages.ppo.max_staleness=2 --set output="$work/$name" > "$work/out" 2> "$work/err" ||
    { cat "$work/err"; fail "colocated"; }
  grep -q "makes samples older and saves no time" "$work/err" || fail "nobody said that nothing overlaps"
done
same_run "$work/one/tiny" "$work/two/tiny" "colocated with a bound"
true
