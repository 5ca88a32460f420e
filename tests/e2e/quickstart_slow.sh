# The quickstart raises the reward for every one of five seeds, and says so.
source "$(dirname "$0")/lib.sh"
for seed in 1 2 3 4 5; do
  status=0
  "$praetor" train "$root/configs/quickstart.yaml" --set "seed=$seed" --set "output=$work/runs" > "$work/out" 2> "$work/err" || status=$?
  tail -n 14 "$work/err"
  [ "$status" -eq 0 ] || fail "seed $seed ended with $status"
  grep -q '"status":0' "$work/out" || fail "no closing line on stdout"
done
