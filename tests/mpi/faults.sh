#!/usr/bin/env bash
# faults.sh PROGRAM KIND WORLD: the last of so many learner ranks, processes of this machine, is killed, stopped or slowed (KIND) at several
# exchanges of an update, of a save and of a load. The others end by their deadline of 2 s and name it, mpirun with them, and no process is
# left; a slow one makes no difference.
set -u
program=$1 kind=$2 world=$3
if ! command -v mpirun >/dev/null; then
  echo "skipped: mpirun is not here (apt-get install openmpi-bin)"
  exit 4
fi
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
# As in run.sh.
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_plm=isolated
export ASAN_OPTIONS=detect_leaks=0:${ASAN_OPTIONS:-}
export OMPI_MCA_hwloc_base_binding_policy=none PMIX_MCA_gds=hash
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log absent=$((world - 1))
fail() { echo "FAILED: $1"; cat "$log"; exit 1; }

hit() {  # PHASE PER_CENT
  local what="$kind rank $absent of $world in $1, $2 %" folder=$work/$1-$2 status=0 start rank left call said
  mkdir "$folder"
  : > "$log"
  mpirun -n "$world" --oversubscribe --allow-run-as-root "$program" "$kind" "$1" "$2" "$folder" > "$log" 2>&1 &
  local pid=$! tenths=0
  # From the blow on: 2 s of the deadline, 1 s that a rank which has failed gives the others to say so, mpirun's own end.
  until grep -q "^$kind at exchange" "$log"; do
    kill -0 "$pid" 2> /dev/null || break
    sleep 0.1
    tenths=$((tenths + 1))
    [ "$tenths" -lt 600 ] || { kill "$pid"; fail "$what: no blow within 60 s"; }
  done
  start=$(date +%s%N)
  wait "$pid" || status=$?
  local millis=$((($(date +%s%N) - start) / 1000000))
  echo "$what: status $status after $millis ms"
  call=$(sed -n "s/^$kind at exchange [0-9]*: //p" "$log")
  [ -n "$call" ] || fail "$what: no blow"
  left=$(pgrep -f "$folder" || true)
  [ -z "$left" ] || { ps -fp $left; kill -KILL $left; fail "$what: processes are left over"; }
  if [ "$kind" = slow ]; then
    [ "$status" -eq 0 ] && grep -q "^the same weights" "$log" || fail "$what: status $status"
    return
  fi
  [ "$millis" -lt 8000 ] || fail "$what: mpirun took $millis ms to end"
  if [ "$kind" = kill ]; then
    # mpirun sees it at once, and ends the others.
    [ "$status" -eq 137 ] || fail "$what: status $status, wanted 137"
    grep -qE "process rank $absent .*exited on signal 9" "$log" || fail "$what: mpirun does not name the rank"
    return
  fi
  [ "$status" -eq 75 ] || fail "$what: status $status, wanted 75"
  grep -qE "^error: .* timed out after 2.* s \\(rank $absent (did not come|came, but did not finish)" "$log" || fail "$what: no rank reached its deadline and named it"
  grep -qF "$call" <(grep "^error: " "$log") || fail "$what: nobody names $call"
  for ((rank = 0; rank < absent; rank++)); do
    grep -qE "^error: rank $rank[:,] .*rank $absent (did not come|came, but did not finish)" "$log" || fail "$what: rank $rank does not name it"
  done
}

for per_cent in 0 35 70 100; do hit update $per_cent; done
for per_cent in 0 50 100; do hit save $per_cent; done
hit load 50
