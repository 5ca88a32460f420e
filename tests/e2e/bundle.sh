# scripts/bundle: the folder runs a job, in one process, as separate roles and with two learner ranks under its own mpirun, in a root that
# has a shell and no library at all.
source "$(dirname "$0")/lib.sh"
busybox=$(command -v busybox || true)
if [ "$(id -u)" != 0 ] || ! command -v patchelf > /dev/null || [ -z "$busybox" ] || ldd "$busybox" > /dev/null 2>&1 || ! unshare -m true 2> /dev/null; then
  [ -z "${CI:-}" ] || fail "root, patchelf and a static busybox are needed: PRAETOR_DEV_TOOLS=1 scripts/bootstrap"
  echo "skipped: root, patchelf and a static busybox are needed (PRAETOR_DEV_TOOLS=1 scripts/bootstrap)"
  exit 4
fi
"$root/scripts/bundle" "$work/root/opt/praetor" "$praetor" 2> "$work/err" || { cat "$work/err"; fail "bundle"; }
status=0; "$root/scripts/bundle" "$work/root/opt/praetor" "$praetor" 2> "$work/err" || status=$?
[ "$status" = 64 ] && grep -q "is there already" "$work/err" || fail "an old folder was written over"
if [ -f "$(dirname "$praetor")/../lib/libpraetor_cuda.so" ]; then
  [ -f "$work/root/opt/praetor/lib/libpraetor_cuda.so" ] || fail "the GPU library stayed behind"
fi

bare=$work/root
mkdir -p "$bare"/{bin,proc,sys,dev,tmp,etc}
# The shell is another libc's, or links none: nothing of this machine's glibc is there but what the bundle has.
cp "$busybox" "$bare/bin/busybox"
for name in sh readlink dirname; do ln -s busybox "$bare/bin/$name"; done
tiny_job 1 4 > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || fail "the job here"
mkdir "$bare/jobs"
sed "s#$work/runs#/tmp/one#" "$work/job.yaml" > "$bare/jobs/one.yaml"
separate_job /tmp/roles > "$bare/jobs/roles.yaml"
separate_job /tmp/ranks 1 1 2 > "$bare/jobs/ranks.yaml"
separate_job "$work/ranks" 1 1 2 > "$work/ranks.yaml"
"$praetor" train "$work/ranks.yaml" > "$work/out" 2> "$work/err" || fail "the job of two ranks here"
for job in one roles ranks; do
  timeout 100 unshare -m -p -f sh -c "
    mount -t proc proc '$bare/proc' && mount --rbind /sys '$bare/sys' && touch '$bare/dev/null' '$bare/dev/urandom' && mount --bind /dev/null '$bare/dev/null' &&
    mount --bind /dev/urandom '$bare/dev/urandom' && exec chroot '$bare' /opt/praetor/bin/praetor train /jobs/$job.yaml" \
    > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "$job: a job in a bare root"; }
  here=$work/runs; [ "$job" != ranks ] || here=$work/ranks
  same_run "$here/tiny" "$bare/tmp/$job/tiny" "$job: in a bare root"
done
