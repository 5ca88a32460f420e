# roles.learner.collective: learner ranks on emulated GPUs over an emulated NCCL, whose wire is sockets, give bit for bit what they give over
# MPI and the processor's memory: undisturbed, and when a rank is killed or stopped in the middle of an exchange. What NCCL needs and has not
# is said before anything is computed, or done without.
source "$(dirname "$0")/lib.sh"
libraries=$(dirname "$praetor")/../tests
export PRAETOR_TORCH_CUDA_LIBRARY=$libraries/libpraetor_torch_processor.so PRAETOR_CUDA_LIBRARY=$libraries/libpraetor_cuda_processor.so
for library in "$PRAETOR_TORCH_CUDA_LIBRARY" "$PRAETOR_CUDA_LIBRARY"; do [ -f "$library" ] || fail "no $library"; done
# While the first file is there exchanges stand still in their middle; the rank that removes the second gets a wrong bit.
export PRAETOR_PROCESSOR_DEVICES=4 PRAETOR_PROCESSOR_HOLD=$work/hold PRAETOR_PROCESSOR_CORRUPT=$work/damage TMPDIR=$work

job() {  # OUTPUT RANKS COLLECTIVE SFT REWARD_MODEL PPO: with those sections `sharding`; into job-OUTPUT.yaml
  tiny_job 1 8 | awk -v sft="$4" -v reward="$5" -v ppo="$6" '
    BEGIN { sharding[1] = sft; sharding[2] = reward; sharding[3] = ppo }
    /^    learner: / { sub(/learner: [{]/, "learner: {device: cuda, sharding: {" sharding[++n] "}, ") } { print }' > "$work/job.yaml"
  separate_job "$work/$1" 1 1 "$2" | sed "s/ranks: $2}/ranks: $2, threads: 1, collective: $3}/" > "$work/job-$1.yaml"
}
run() {  # OUTPUT [OPTION...]
  "$praetor" train "$work/job-$1.yaml" "${@:2}" > "$work/out" 2> "$work/err" || { cat "$work/err"; tail -n 20 "$work/$1"/tiny/logs/*; fail "the run $1"; }
  no_orphans "$work/$1/tiny" "$1"
}
says() { grep -qF "learner ranks exchange over $2" "$work/$1/tiny/logs/learners.log" || { cat "$work/$1/tiny/logs/learners.log"; fail "$1 does not say: $2"; }; }
memory="MPI and the processor's memory: "

# Every sharding stage, copies and split layers, two and four ranks.
two=("stage: 1" "stage: 2" "stage: 3")
four=("stage: 3, group: 2" "stage: 1, tensor: 2" "stage: 2, prefetch: 2")
job mpi-2 2 mpi "${two[@]}"; run mpi-2; says mpi-2 "${memory}roles.learner.collective: mpi"
job nccl-2 2 nccl "${two[@]}"; run nccl-2; says nccl-2 "NCCL on 2 GPUs (threads of the processor)"
same_run "$work/mpi-2/tiny" "$work/nccl-2/tiny" "two ranks over NCCL"
job mpi-4 4 mpi "${four[@]}"; run mpi-4
job auto-4 4 auto "${four[@]}"; run auto-4; says auto-4 "NCCL on 4 GPUs"
same_run "$work/mpi-4/tiny" "$work/auto-4/tiny" "four ranks over NCCL"

# What passes over it counts: wrong signs, and the weights are others.
job damaged 2 nccl "${two[@]}"
run damaged --until sft & pid=$!
wrong=-1
while kill -0 "$pid" 2> /dev/null; do
  [ -e "$work/damage" ] || { touch "$work/damage"; wrong=$((wrong + 1)); }
  sleep 0.01
done
wait "$pid" || fail "wrong signs"
rm -f "$work/damage"
[ "$wrong" -ge 2 ] || fail "no learner got anything over NCCL"
! cmp -s "$work/damaged/tiny/stages/sft/model.safetensors" "$work/nccl-2/tiny/stages/sft/model.safetensors" || fail "$wrong wrong signs, and the same weights"

# Two learners and two workers whose engines are on GPUs, too, on a host of four: each has one for itself.
tiny_job 1 3 | sed 's/learner: {optimizer: {/learner: {device: cuda, optimizer: {/; s/hidden_size: 32/hidden_size: 16/
  s/    ppo: {/    engine: {device: cuda, max_sequences: 16, max_step_tokens: 64}\n    ppo: {/' > "$work/job.yaml"
separate_job "$work/spread" 2 1 2 > "$work/job-spread.yaml"
run spread
cat "$work"/spread/tiny/logs/*.log | grep -oE "learns on cuda:[0-3]|GPU [0-3]: processor" | grep -oE "[0-3]" | sort | uniq > "$work/gpus"
[ "$(wc -l < "$work/gpus")" -eq 4 ] || { cat "$work"/spread/tiny/logs/*.log; fail "the four processes have these GPUs: $(tr '\n' ' ' < "$work/gpus")"; }

# A rank that is killed, and one that is stopped, while an exchange stands still. The other one is to say who stands still before the
# controller, which does not hear of the stopped one either, ends the group.
calm=$work/nccl-2/tiny
job lost 2 nccl "${two[@]}"
sed -i 's/lost_after: 2,/lost_after: 30,/; s/collective: nccl}/collective: nccl, timeout: 10}/' "$work/job-lost.yaml"
grep -q "timeout: 10}" "$work/job-lost.yaml" && grep -q "lost_after: 30" "$work/job-lost.yaml" || fail "the job's deadlines"
"$praetor" train "$work/job-lost.yaml" > "$work/out" 2> "$work/err" & pid=$!
hit() {  # SIGNAL MEMBER ROWS LOG TEXT: once so many rows are written; until the log has a line with the text
  local target
  await_rows "$pid" "$work/lost/tiny" "$3"
  touch "$work/hold"
  target=$(pid_of "$work/lost/tiny" "$2")
  sleep 0.5
  kill "-$1" "$target" || fail "no $2"
  for _ in $(seq 300); do
    grep -qE "$5" "$work/lost/tiny/logs/$4" && break
    sleep 0.1
  done
  rm "$work/hold"
  grep -qE "$5" "$work/lost/tiny/logs/$4" || { tail -n 40 "$work/lost/tiny/logs/"*; fail "after $1 of $2 $4 has no line with: $5"; }
}
# What the first rank says passes mpirun, which may be gone; the others have files of their own.
hit KILL learner-0 3 learner-1.log "rank 1: .* in step .*: NCCL: rank 0 has gone"  # of sft, which nothing but exchanges can keep waiting
hit STOP learner-1 13 learners.log "rank 0: [a-z_]+ #[0-9]+ .*in step [0-9]+: timed out after [0-9.]+ s \(rank 1 does not answer\)"  # and of reward_model
finish "$pid" "$work/lost" "ranks that are killed and stopped"
[ "$(grep -c "exchange over NCCL" "$work/lost/tiny/logs/learners.log")" -ge 3 ] || fail "the group was not made anew"

# Without the library, and with fewer GPUs than ranks.
job none 2 nccl "${two[@]}"
status=0
PRAETOR_CUDA_LIBRARY=$work/none.so "$praetor" train "$work/job-none.yaml" > "$work/out" 2>&1 || status=$?
[ "$status" -eq 66 ] && [ ! -e "$work/none" ] || { cat "$work/out"; fail "status $status without the library"; }
grep -qF "roles.learner.collective: nccl: GPU library: PRAETOR_CUDA_LIBRARY names $work/none.so, which is not there; mpi does without it" "$work/out" \
  || { cat "$work/out"; fail "what is said without the library"; }
job without 2 auto "${two[@]}"
PRAETOR_CUDA_LIBRARY=$work/none.so run without --until sft
says without "${memory}rank 0 on $(hostname): GPU library: PRAETOR_CUDA_LIBRARY names $work/none.so, which is not there"
cmp "$work/without/tiny/stages/sft/model.safetensors" "$calm/stages/sft/model.safetensors" || fail "other weights without the library"
job five 5 nccl "stage: 1" "stage: 1" "stage: 1"
status=0
"$praetor" train "$work/job-five.yaml" > "$work/out" 2> "$work/err" || status=$?
[ "$status" -eq 66 ] || { cat "$work/err"; fail "status $status with five ranks on four GPUs"; }
host=$(hostname)
grep -qE "roles.learner.collective: nccl: rank [0-3] on $host and rank [1-4] on $host have one GPU, number [0-3] \\(processor\\), and NCCL wants one for each" "$work/err" \
  || { cat "$work/err"; fail "what is said of five ranks on four GPUs"; }
no_orphans "$work/five/tiny" "five ranks"
echo "learners over an emulated NCCL"
