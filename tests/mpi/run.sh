#!/usr/bin/env bash
# run.sh PROGRAM CASE WORLD: the case on WORLD ranks of this machine. "missing", "missing_in_group" and "stopped" must
# end by themselves, with status 75 and the ranks that came naming the one that did not.
set -u
program=$1 case=$2 world=$3
if ! command -v mpirun >/dev/null; then
  echo "skipped: mpirun is not here (apt-get install openmpi-bin)"
  exit 4
fi
export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=1
# Shared memory and loopback alone: no ssh, no other network, and no ptrace rights needed.
export OMPI_MCA_btl=self,vader OMPI_MCA_btl_vader_single_copy_mechanism=none OMPI_MCA_plm=isolated
# What MPI itself leaves behind is not ours to report.
export ASAN_OPTIONS=detect_leaks=0:${ASAN_OPTIONS:-}
export OMPI_MCA_hwloc_base_binding_policy=none PMIX_MCA_gds=hash
log=$(mktemp)
trap 'rm -f "$log"' EXIT
start=$SECONDS
timeout 100 mpirun -n "$world" --oversubscribe --allow-run-as-root "$program" "$case" >"$log" 2>&1
status=$?
cat "$log"
[[ "$case" = missing* || "$case" = stopped ]] || exit $status

fail() { echo "FAILED: $1"; exit 1; }
[ $((SECONDS - start)) -lt 30 ] || fail "mpirun took $((SECONDS - start)) s to end"
[ $status -eq 75 ] || fail "mpirun ended with $status, wanted 75"
absent=$((world - 1))
if [ "$case" = missing_in_group ]; then
  waiting="group shards of ranks $((absent - 1)), $absent: all_reduce #0 of 3 float32 timed out after 2.* s (rank $absent did not come)"
  grep -q "^error: rank $((absent - 1)), $waiting" "$log" || fail "rank $((absent - 1)) did not name rank $absent"
  for ((rank = 0; rank < absent - 1; rank++)); do
    grep -q "^error: rank $rank, group replicas of ranks .*: all_reduce #0 of 3 float32: rank $((absent - 1)) gave up: .* (rank $absent did not come)" "$log" ||
      fail "rank $rank was not told"
  done
  exit 0
fi
if [ "$case" = stopped ]; then
  named="all_reduce #1 of 3 float32 in step 5: timed out after [2-9].* s (rank $absent does not answer"
  grep -qE "^error: rank [0-9]+: ${named/(/\\(}" "$log" || fail "no rank reached its deadline and named rank $absent"
  for ((rank = 0; rank < absent; rank++)); do
    grep -q "^error: rank $rank: .* in step 5.*: $named" "$log" || grep -q "^error: rank $rank: $named" "$log" ||
      fail "rank $rank did not name rank $absent"
  done
  [ "$world" -eq 2 ] || grep -q "rank $((absent - 1)) waits in barrier #[0-9]* over mpi in step 5" "$log" ||
    fail "where rank $((absent - 1)) waits is not told"
  exit 0
fi
for ((rank = 0; rank < absent; rank++)); do
  grep -q "^error: rank $rank: all_reduce #1 of 3 float32 timed out after 1.* s (rank $absent did not come)" "$log" ||
    grep -q "^error: rank $rank: all_reduce #1 of 3 float32: rank .* gave up: .* (rank $absent did not come)" "$log" ||
    fail "rank $rank did not name rank $absent"
done
grep -q "^error: .* timed out after 1" "$log" || fail "no rank reached its deadline"
