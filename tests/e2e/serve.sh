# praetor serve: a checkpoint of a run, asked by curl's kind of requests and by the openai client; then a graceful end.
source "$(dirname "$0")/lib.sh"
tiny_job 1 2 | sed 's/max_positions: 64/max_positions: 512/' > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "train"; }
model=$(echo "$work"/runs/tiny/stages/*sft)
[ -f "$model/model.safetensors" ] || fail "no model in $work/runs/tiny/stages"
echo secret-of-the-test > "$work/key"

"$praetor" serve --model "$model" --name tiny --template chatml --port 0 --api-key-file "$work/key" --threads 1 2> "$work/log" &
server=$!
trap 'kill -9 $server 2> /dev/null || true; rm -rf "$work"' EXIT
for _ in $(seq 600); do
  port=$(sed -n 's|.*http://127.0.0.1:\([0-9]*\)/v1.*|\1|p' "$work/log")
  [ -n "$port" ] && break
  kill -0 $server 2> /dev/null || { cat "$work/log"; fail "serve ended"; }
  sleep 0.1
done
[ -n "$port" ] || fail "serve says no port"
grep -q secret "$work/log" && fail "the key is in the log"

python=${PRAETOR_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/praetor}/python-openai
if PYTHONPATH=$python /usr/bin/python3 -c 'import openai' 2> /dev/null; then
  PYTHONPATH=$python PRAETOR_PORT=$port PRAETOR_KEY=$(cat "$work/key") timeout 120 /usr/bin/python3 "$(dirname "$0")/openai_client.py" || fail "the openai client"
elif [ "${CI:-}" = true ]; then
  fail "the openai client is not installed: scripts/bootstrap does so with PRAETOR_DEV_TOOLS=1"
else
  echo "the openai client is not installed (PRAETOR_DEV_TOOLS=1 scripts/bootstrap): its part is passed over"
fi

# A request that is open when the end comes is answered.
/usr/bin/python3 - "$port" > "$work/answer" <<'PY' &
import json, sys, urllib.request
body = {"model": "tiny", "prompt": "a", "max_tokens": 50, "n": 64, "ignore_eos": True, "temperature": 1}
request = urllib.request.Request(f"http://127.0.0.1:{sys.argv[1]}/v1/completions", json.dumps(body).encode(),
                                 {"Authorization": "Bearer secret-of-the-test", "Content-Type": "application/json"})
print(len(json.load(urllib.request.urlopen(request, timeout=60))["choices"]))
PY
asker=$!
for _ in $(seq 600); do
  grep -q '^praetor_requests_running [1-9]' <(/usr/bin/python3 -c "
import urllib.request
r = urllib.request.Request('http://127.0.0.1:$port/metrics', headers={'Authorization': 'Bearer secret-of-the-test'})
print(urllib.request.urlopen(r).read().decode())") && break
  kill -0 $asker 2> /dev/null || break
done
kill -TERM $server
wait $asker || fail "the open request"
[ "$(cat "$work/answer")" = 64 ] || fail "the open request had $(cat "$work/answer") answers"
wait $server || fail "serve ended with $?"
