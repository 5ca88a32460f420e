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

  mount -t tmpfs -o size=200m tmpfs "$work/small"
  timeout 100 "$praetor" train "$work/small.yaml" > "$work/out" 2> "$work/err" & pid=$!
  await_rows "$pid" "$work/small/tiny" 24
  # A file that is open for writing keeps its mount writable; -f is for what is detached: the kernel refuses, so the
  # whole file system is turned read-only below it.
  mount -o remount,ro "$work/small" 2> /dev/null || true
  status=0; wait "$pid" || status=$?
  echo "read-only: $status"; tail -n 5 "$work/err"
  mount -o remount,rw "$work/small"
  umount "$work/small"
done
