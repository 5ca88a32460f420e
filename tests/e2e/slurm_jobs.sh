# Jobs on two Slurm nodes: to the end, bit for bit the run of one process; in two components; as a chain of jobs; cancelled;
# what is told before and when Slurm refuses.
source "$(dirname "$0")/lib.sh"
source "$(dirname "$0")/slurm_lib.sh"
calm_run 8

# --dry-run makes nothing.
slurm_job dry 8 > "$work/dry.yaml"
"$praetor" submit "$work/dry.yaml" --dry-run --set launcher.slurm.partition=main --set launcher.slurm.gpus_per_node=4 > "$work/script"
for line in '#!/bin/bash' '#SBATCH --nodes=2' '#SBATCH --partition=main' '#SBATCH --gpus-per-node=4' '#SBATCH --requeue'; do
  grep -qxF -- "$line" "$work/script" || { cat "$work/script"; fail "no line $line"; }
done
grep -q "^exec .*/praetor train $work/runs/dry/resolved.yaml --resume $work/runs/dry\$" "$work/script" || { cat "$work/script"; fail "the last line"; }
[ ! -e "$work/runs/dry" ] || fail "--dry-run made a run directory"
bash -n "$work/script" || fail "the script is no shell"

# Slurm's own words, and nothing is left; without Slurm it is said what to do.
status=0
"$praetor" submit "$work/dry.yaml" --set launcher.slurm.partition=nowhere > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 78 ] && grep -q "invalid partition specified: nowhere" "$work/err" || { cat "$work/err"; fail "a partition that is not there: $status"; }
[ ! -e "$work/runs/dry" ] || fail "a refused job left a run directory"
status=0
PATH=/nowhere "$praetor" submit "$work/dry.yaml" > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 66 ] && grep -q "sbatch: no such program in PATH; .*login node" "$work/err" || { cat "$work/err"; fail "no sbatch: $status"; }
status=0
"$praetor" train "$work/dry.yaml" --set launcher.kind=slurm > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 64 ] && grep -q "praetor submit" "$work/err" || { cat "$work/err"; fail "train outside of an allocation: $status"; }
[ ! -e "$work/runs/dry" ] || fail "train outside of an allocation left a run directory"

status=0
"$praetor" train "$work/dry.yaml" --until pop > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 64 ] && grep -q "until pop: the job has the stages language, sft, reward_model, ppo" "$work/err" || { cat "$work/err"; fail "a stage that is not there: $status"; }
for what in "$work/dry.yaml" "$work/nowhere" "$calm"; do
  status=0; "$praetor" cancel "$what" > "$work/out" 2> "$work/err" || status=$?
  [ "$status" = 66 ] || { cat "$work/err"; fail "cancel of $what: $status"; }
done

# To the end, with workers on both nodes.
slurm_job whole 8 > "$work/whole.yaml"
submit whole
grep -q "squeue -j $id" "$work/err" && grep -q "praetor status $run" "$work/err" || { cat "$work/err"; fail "how to watch it"; }
check_run "two nodes"
grep -q "processes start on 2 nodes of Slurm job $id" "$run/logs/slurm-$id.log" || fail "the nodes are not told"
status=0; "$praetor" cancel "$run" > "$work/out" || status=$?
[ "$status" = 0 ] && grep -q "\"ended\":\[\"$id\"\]" "$work/out" || { cat "$work/out"; fail "cancel of a job that has ended"; }

# In an allocation of the user's own, whose nodes the servers must be open to.
status=0
salloc -Q -N2 "$praetor" train "$work/whole.yaml" --set launcher.kind=slurm --set launcher.slurm.nodes=1 > "$work/out" 2> "$work/err" || status=$?
[ "$status" = 78 ] && grep -q 'network.bind: "127.0.0.1" is the loopback, which node n1' "$work/err" || { cat "$work/err"; fail "the loopback in an allocation: $status"; }
salloc -Q -N2 "$praetor" train "$work/whole.yaml" --set launcher.kind=slurm > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "train in an allocation"; }
same_run "$calm" "$work/runs/whole-2" "in an allocation"

# Two learner ranks as one MPI job over the nodes, in a heterogeneous job whose second component has the workers; each step in a
# container, for whose engine a script stands in.
cat > "$work/engine" <<'SH'
#!/bin/sh
[ "$1 $2" = "exec praetor.sif" ] || exit 64
shift 2
echo "$1 $2" >> "$(dirname "$0")/contained"
exec "$@"
SH
chmod +x "$work/engine"
ln -s "$praetor" "$work/inside"
slurm_job het 8 > "$work/het.yaml"
submit het --set roles.learner.ranks=2 --set threads=2 --set launcher.slurm.nodes=1 --set launcher.slurm.workers.nodes=1 \
  --set "launcher.slurm.container=[$work/engine, exec, praetor.sif]" --set "launcher.slurm.program=$work/inside"
await_state "$id" COMPLETED 120 "two components"
"$praetor" verify "$run" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify of the heterogeneous job"; }
no_orphans "$run" "heterogeneous"
[ "$(sort -u "$work/contained")" = "$work/inside learner
$work/inside worker" ] || { cat "$work/contained"; fail "steps outside of the container"; }

# Two ranks over two nodes, a job a stage. The chain waits for its turns on the same run directory.
slurm_job chain 8 > "$work/chain.yaml"
submit chain --set roles.learner.ranks=2 --set threads=2 --set launcher.slurm.stages=chain
[ "$(grep -c "^submitted Slurm job" "$work/err")" = 3 ] || { cat "$work/err"; fail "three stages that train are three jobs"; }
last=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))["jobs"][-1])' "$work/submitted")
scontrol show job -o "$last" | grep -q "Dependency=afterok:" || fail "the last job does not wait"
await_state "$last" COMPLETED 180 "a chain"
[ "$(state_of "$id")" = COMPLETED ] || fail "the first job of the chain"
"$praetor" verify "$run" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify of the chain"; }
for stage in sft reward_model ppo; do
  cmp "$work/runs/het/stages/$stage/model.safetensors" "$run/stages/$stage/model.safetensors" || fail "$stage: other weights in a chain"
done

# Cancelled by the job file: it ends, is not queued again, and goes on later from what it saved.
slurm_job end 400 > "$work/end.yaml"
submit end
await_metrics "$run" 24 "a job to cancel"
"$praetor" cancel "$work/end.yaml" > "$work/out"
grep -q "\"cancelled\":\[\"$id\"\]" "$work/out" || { cat "$work/out"; fail "cancel"; }
for _ in $(seq 150); do [ -z "$(squeue -h -j "$id" 2> /dev/null)" ] && break; sleep 0.2; done
[ "$(state_of "$id")" = CANCELLED ] || { show_logs; fail "a cancelled job is $(state_of "$id")"; }
no_orphans "$run" "cancelled"
