# scripts/bundle: the folder runs a job in a root that has nothing but glibc.
source "$(dirname "$0")/lib.sh"
if [ "$(id -u)" != 0 ] || ! command -v patchelf > /dev/null || ! unshare -m true 2> /dev/null; then
  [ -z "${CI:-}" ] || fail "root and patchelf are needed: PRAETOR_DEV_TOOLS=1 scripts/bootstrap"
  echo "skipped: root and patchelf are needed (PRAETOR_DEV_TOOLS=1 scripts/bootstrap)"
  exit 4
fi
"$root/scripts/bundle" "$work/root/opt/praetor" "$praetor" 2> "$work/err" || { cat "$work/err"; fail "bundle"; }
status=0; "$root/scripts/bundle" "$work/root/opt/praetor" "$praetor" 2> "$work/err" || status=$?
[ "$status" = 64 ] && grep -q "is there already" "$work/err" || fail "an old folder was written over"
if [ -f "$(dirname "$praetor")/../lib/libpraetor_cuda.so" ]; then
  [ -f "$work/root/opt/praetor/lib/libpraetor_cuda.so" ] || fail "the GPU library stayed behind"
fi

bare=$work/root
mkdir -p "$bare"/{lib64,proc,dev,tmp,etc}
mkdir -p "$bare/lib/x86_64-linux-gnu"
cp -L /lib64/ld-linux-x86-64.so.2 "$bare/lib64"
for name in libc.so.6 libm.so.6 libdl.so.2 librt.so.1 libpthread.so.0 libutil.so.1 libresolv.so.2; do
  cp -L "/lib/x86_64-linux-gnu/$name" "$bare/lib/x86_64-linux-gnu"
done
tiny_job 1 4 | sed "s#$work/runs#/tmp/runs#" > "$bare/job.yaml"
timeout 200 unshare -m -p -f sh -c "
  mount -t proc proc '$bare/proc' && touch '$bare/dev/null' '$bare/dev/urandom' && mount --bind /dev/null '$bare/dev/null' &&
  mount --bind /dev/urandom '$bare/dev/urandom' && exec chroot '$bare' /opt/praetor/bin/praetor train /job.yaml" > "$work/out" 2> "$work/err" ||
  { cat "$work/err"; fail "a job in a bare root"; }
tiny_job 1 4 > "$work/job.yaml"
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || fail "the same job here"
same_run "$work/runs/tiny" "$bare/tmp/runs/tiny" "in a bare root"
