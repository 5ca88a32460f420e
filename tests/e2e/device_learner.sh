# learner.device: cuda. Without a GPU a job says what is missing before it does anything; over a library in the place of LibTorch's CUDA half,
# whose devices are the processor (tests/support/emulated_device.cpp), whole jobs run as they are shipped: in one process and over two ranks,
# resumed, exported and replayed.
source "$(dirname "$0")/lib.sh"
emulated=$(dirname "$praetor")/../tests/libpraetor_torch_processor.so
kernels=$(dirname "$praetor")/../tests/libpraetor_cuda_processor.so
for library in "$emulated" "$kernels"; do [ -f "$library" ] || fail "no $library"; done

on_gpu() { sed 's/learner: {optimizer: {/learner: {device: cuda, optimizer: {/'; }  # of every stage
tiny_job 1 6 | sed "s#$work/runs#$work/cpu#" > "$work/cpu.yaml"
tiny_job 1 6 | on_gpu > "$work/job.yaml"
"$praetor" validate "$work/job.yaml" > "$work/out" 2>&1 || { cat "$work/out"; fail "validate"; }

refused() {  # STATUS WORDS COMMAND...
  local want=$1 words=$2 status=0
  shift 2
  "$praetor" "$@" > "$work/out" 2>&1 || status=$?
  [ "$status" -eq "$want" ] || { cat "$work/out"; fail "status $status of $*"; }
  grep -qF -- "$words" "$work/out" || { cat "$work/out"; fail "what $* says"; }
}
refused 78 "learner.optimizer.offload: a learner on the CPU has what its optimizer keeps there already" validate "$work/cpu.yaml" --set stages.sft.learner.optimizer.offload=true
PRAETOR_TORCH_CUDA_LIBRARY=$work/none.so refused 66 \
  "stage sft: learner.device: cuda: LibTorch's CUDA half: PRAETOR_TORCH_CUDA_LIBRARY names $work/none.so, which is not there" train "$work/job.yaml"
[ ! -e "$work/runs" ] || fail "a run was begun without a GPU"
echo text > "$work/text.so"
PRAETOR_TORCH_CUDA_LIBRARY=$work/text.so refused 66 "PRAETOR_GPU=1 scripts/bootstrap fetches CUDA's libraries" train "$work/job.yaml"
# As this machine is: where a GPU is seen there is nothing to refuse.
if ! "$praetor" doctor --json 2> /dev/null | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["torch_cuda"]["devices"] == 0)'; then
  refused 66 "stage sft: learner.device: cuda: " train "$work/job.yaml"
  [ ! -e "$work/runs" ] || fail "a run was begun without a GPU"
fi

export PRAETOR_TORCH_CUDA_LIBRARY=$emulated
"$praetor" doctor --json 2> /dev/null | python3 -c 'import json, sys; sys.exit(json.load(sys.stdin)["torch_cuda"]["devices"] != 4)' || fail "doctor"
# Without the GPU library at first: AdamW steps by LibTorch's operators.
export PRAETOR_CUDA_LIBRARY=$work/none.so TMPDIR=$work
"$praetor" train "$work/cpu.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the run on the CPU"; }
"$praetor" train "$work/job.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the colocated run"; }
calm=$work/runs/tiny
grep -q "learns on cuda:0" "$calm/logs/train.log" || { cat "$work/err"; fail "the learner's device is not told"; }
said=$(grep -c "AdamW on cuda:0 steps by LibTorch's operators, to the same bits: .*PRAETOR_CUDA_LIBRARY names $work/none.so, which is not there" "$calm/logs/train.log" || true)
[ "$said" = 1 ] || { cat "$work/err"; fail "that there is no GPU library is told $said times"; }
"$praetor" verify "$calm" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify"; }

near "$work/cpu/tiny" "$calm" 1e-4 sft reward_model
"$praetor" replay "$calm" --stage ppo --step 3 > "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }
grep -q '"identical":true' "$work/replay.json" || { cat "$work/replay.json"; fail "replay"; }

# Stopped and gone on with, by the GPU library's kernel: the same run, on the emulated device bit for bit.
export PRAETOR_CUDA_LIBRARY=$kernels
sed "s#$work/runs#$work/stopped#" "$work/job.yaml" > "$work/stopped.yaml"
"$praetor" train "$work/stopped.yaml" > "$work/out" 2> "$work/err" & pid=$!
await_rows "$pid" "$work/stopped/tiny" 23
kill -TERM "$pid" 2> /dev/null || true
wait "$pid" || true
"$praetor" train "$work/stopped.yaml" --resume auto > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "the resumed run"; }
same_run "$calm" "$work/stopped/tiny" "resumed"
! grep -q "AdamW on" "$work/stopped/tiny/logs/train.log" || fail "AdamW by operators, with a GPU library"
# The kernel it is that steps: a wrong sign in one, and the weights are others.
sed "s#$work/runs#$work/wrong#" "$work/job.yaml" > "$work/wrong.yaml"
touch "$work/sign"
PRAETOR_PROCESSOR_CORRUPT_STEP=$work/sign "$praetor" train "$work/wrong.yaml" --until sft > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "a wrong sign"; }
[ ! -e "$work/sign" ] || fail "no step by the kernel"
! cmp -s "$work/wrong/tiny/stages/sft/model.safetensors" "$calm/stages/sft/model.safetensors" || fail "a wrong sign, and the same weights"
# A checkpoint of the device goes on on the CPU.
"$praetor" export "$calm" --to "$work/exported" > "$work/out" 2>&1 || { cat "$work/out"; fail "export"; }
cmp "$work/exported/model.safetensors" "$calm/stages/ppo/model.safetensors" || fail "export"

# Two ranks with weights in parts and moments in the host's memory, workers of their own; adapters on a device.
sed 's/optimizer: {learning_rate: 0.003}/sharding: {stage: 3}, optimizer: {learning_rate: 0.003, offload: true}/' "$work/job.yaml" > "$work/parts.yaml"
cp "$work/parts.yaml" "$work/job.yaml"
separate_job "$work/s" 1 1 2 > "$work/separate.yaml"
"$praetor" train "$work/separate.yaml" > "$work/out" 2> "$work/err" & pid=$!
await_end "$pid" "$work/s" "two ranks"
near "$work/cpu/tiny" "$work/s/tiny" 1e-3 sft reward_model
cat "$work"/s/tiny/logs/* > "$work/logs"
for gpu in 0 1; do grep -q "learns on cuda:$gpu" "$work/logs" || { cat "$work/logs"; fail "no rank has GPU $gpu"; }; done

# Engine and learner on GPUs in one process, the learner with an adapter in bfloat16.
tiny_job 1 3 | on_gpu | sed "s#$work/runs#$work/both#; s/hidden_size: 32/hidden_size: 16/; s/    ppo: {/    engine: {device: cuda, max_sequences: 16, max_step_tokens: 64}\n    ppo: {/
  s/learner: {device: cuda, optimizer: {learning_rate: 0.001}}/learner: {device: cuda, precision: bfloat16, lora: {rank: 2}, optimizer: {learning_rate: 0.001}}/" > "$work/both.yaml"
"$praetor" train "$work/both.yaml" > "$work/out" 2> "$work/err" || { cat "$work/err"; fail "engine and learner on GPUs"; }
"$praetor" verify "$work/both/tiny" > "$work/verify.json" || { cat "$work/verify.json"; fail "verify"; }
echo "learners on an emulated GPU"
