# A disk that fills up, or becomes read-only, in the middle of a run ends it with status 74 and words that say what to do;
# once there is room again the run goes on and gives bit for bit what it would have given.
source "$(dirname "$0")/lib.sh"

inside=${PRAETOR_TEST_MOUNTS:-}
if [ -z "$inside" ]; then
  for words in "unshare -m" "unshare -rm"; do
    $words true 2> /dev/null && PRAETOR_TEST_MOUNTS=1 exec $words bash "$0" "$praetor"
  done
  [ "${CI:-}" != true ] || fail "no mount can be made here"
  echo "skipped: no mount can be made here (unshare -m)"; exit 4
fi

tiny_job > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the calm run"; }
calm=$work/runs/tiny
whole=$(du -sk "$calm" | cut -f1)

# ends_with_74 NAME: the run in $work/small has ended for want of a disk, and said so.
ends_with_74() {
  [ "$status" -eq 74 ] || { tail -n 20 "$work/err"; fail "$1: status $status"; }
  grep -qE "$2" "$work/err" || { tail -n 20 "$work/err"; fail "$1: nobody said what is wrong"; }
  no_orphans "$work/small" "$1"
}
goes_on() {
  "$praetor" train "$work/small.yaml" --resume auto > "$work/out" 2> "$work/err" || { tail -n 20 "$work/err"; fail "$1, resumed"; }
  "$praetor" verify "$work/small/tiny" > "$work/verify.json" || { cat "$work/verify.json"; fail "$1: verify"; }
  same_run "$calm" "$work/small/tiny" "$1"
  umount "$work/small"
}

mkdir "$work/small"
trap 'umount "$work/small" 2> /dev/null || true; rm -rf "$work"' EXIT
for placement in colocated separate; do
  if [ "$placement" = colocated ]; then sed "s#$work/runs#$work/small#" "$work/job.yaml" > "$work/small.yaml"
  else separate_job "$work/small" 1 1 > "$work/small.yaml"; fi

  for share in 45 75; do
    mount -t tmpfs -o "size=$((whole * share / 100))k" tmpfs "$work/small"
    status=0; timeout 100 "$praetor" train "$work/small.yaml" > "$work/out" 2> "$work/err" || status=$?
    ends_with_74 "$placement, a full disk at $share %" "No space left on device|disk is full"
    mount -o remount,size=200m "$work/small"
    goes_on "$placement, a full disk at $share %"
  done

  # A file system that has become read-only when the run is to go on.
  mount -t tmpfs -o size=200m tmpfs "$work/small"
  "$praetor" train "$work/small.yaml" > "$work/out" 2> "$work/err" & pid=$!
  while [ ! -d "$work/small/tiny" ]; do sleep 0.05; done
  await_rows "$pid" "$work/small/tiny" 24
  kill -TERM "$pid"
  status=0; wait "$pid" || status=$?
  [ "$status" -eq 143 ] || { tail -n 20 "$work/err"; fail "$placement, SIGTERM: status $status"; }
  mount -o remount,ro "$work/small"
  status=0; timeout 100 "$praetor" train "$work/small.yaml" --resume auto > "$work/out" 2> "$work/err" || status=$?
  ends_with_74 "$placement, read-only" "[Rr]ead-only|writable"
  mount -o remount,rw "$work/small"
  goes_on "$placement, read-only"
done

# A file system that stops answering, as one of the network may: said, waited for, and gone on from.
separate_job "$work/small" 1 1 > "$work/small.yaml"
truncate -s 128M "$work/image"
if ! mkfs.ext4 -q -F "$work/image" 2> /dev/null || ! mount -o loop "$work/image" "$work/small" 2> "$work/err"; then
  echo "passed over: no loop device here ($(head -c 200 "$work/err"))"
  exit 0
fi
trap 'fsfreeze -u "$work/small" 2> /dev/null || true; umount "$work/small" 2> /dev/null || true; rm -rf "$work"' EXIT
"$praetor" train "$work/small.yaml" > "$work/out" 2> "$work/err" & pid=$!
while [ ! -d "$work/small/tiny" ]; do sleep 0.05; done
await_rows "$pid" "$work/small/tiny" 24
fsfreeze -f "$work/small"
for tries in $(seq 300); do grep -q "has not answered" "$work/err" && break; sleep 0.1; done
fsfreeze -u "$work/small"
grep -q "has not answered" "$work/err" || { cat "$work/err"; fail "nobody said that the file system does not answer"; }
finish "$pid" "$work/small" "a file system that stopped answering"
umount "$work/small"
