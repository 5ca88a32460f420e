#!/usr/bin/env bash
# praetor validate: exit codes, and all errors on stderr, a line each.
set -u
praetor=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "FAILED: $*"; cat "$work/out" "$work/err"; exit 1; }
# expect STATUS ARGS...
expect() {
  local want=$1 got
  shift
  "$praetor" validate "$@" >"$work/out" 2>"$work/err"
  got=$?
  [ "$got" = "$want" ] || fail "validate $*: exit $got, $want was wanted"
}

cat >"$work/job.yaml" <<'YAML'
name: small
stages:
  - {kind: toy_language, name: language}
  - {kind: sft, model: {create: {hidden_size: 32}}, data: {train: stage:language/sft.jsonl}, steps: 3}
YAML
expect 0 "$work/job.yaml" --plan
grep -q '^job small: seed 1, colocated, 2 stages, output runs/small$' "$work/out" || fail "no summary"
grep -q '^  steps: 3, 32 sequences each, from 2000 rows$' "$work/out" || fail "no plan"
[ -s "$work/err" ] && fail "words on stderr"

printf 'gpus: [8, 1024]\ntflops: 300\n' >"$work/cluster.yaml"
expect 0 "$work/job.yaml" --cluster "$work/cluster.yaml"
grep -q '^stage sft: seconds of a step of [0-9]* tokens at most$' "$work/out" || fail "no plan of the cluster"
grep -q '^   1024 ' "$work/out" || fail "no row of 1024 GPUs"
printf 'gpu: 8\n' >"$work/cluster.yaml"
expect 78 "$work/job.yaml" --cluster "$work/cluster.yaml"
grep -q "^$work/cluster.yaml:1:1: unknown key \"gpu\", did you mean \"gpus\"?$" "$work/err" || fail "the wrong key is not told"

expect 0 "$work/job.yaml" --set placement=separate --set roles.learner.ranks=500
grep -q '^warning: stage sft: an optimizer step has at most [0-9]* rows, so that [0-9]* of the 500 ranks' "$work/err" || fail "idle ranks are not told"
expect 78 "$work/job.yaml" --set roles.learner.ranks=500
grep -q 'roles.learner.ranks: with placement: colocated the learner is one rank, not 500' "$work/err" || fail "ranks that there are not"

expect 0 "$work/job.yaml" --resolved --set stages.sft.steps=4 --set seed=5
cp "$work/out" "$work/resolved.yaml"
grep -q '^seed: 5$' "$work/resolved.yaml" || fail "the override is not in the resolved job"
expect 0 "$work/resolved.yaml" --resolved
cmp -s "$work/out" "$work/resolved.yaml" || fail "a resolved job does not resolve to itself"

expect 78 "$work/job.yaml" --set sede=1 --set stages.sft.steps=0 --set stages.sft.data.train=none.jsonl
[ "$(wc -l <"$work/err")" = 3 ] || fail "three errors were wanted, a line each"
grep -q '^--set sede=1: unknown key "sede", did you mean "seed"?$' "$work/err" || fail "the unknown key is not told"
expect 78 "$work/job.yaml" --set nothing
printf 'name: x\nname: y\n' >"$work/twice.yaml"
expect 78 "$work/twice.yaml"
grep -q "^$work/twice.yaml:2:1: duplicate key \"name\", first given in line 1$" "$work/err" || fail "the duplicate is not told"
expect 66 "$work/none.yaml"
expect 64
expect 64 "$work/job.yaml" --plam
