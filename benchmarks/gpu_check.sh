#!/usr/bin/env bash
# All that asks for an NVIDIA GPU, in one call: builds every engine of a model, holds them against the stored
# results, lets the program check itself, and measures. A step that fails is told and the others still run;
# the exit code is 1 then. Engines go to a temporary copy of the model folder; only JSON stays.
#
#   PYTHON  interpreter (python3)
#   MODEL   shipped model or model folder (face68)
#   RUN     folder of the run that the model is from: adds PyTorch to the figures
#   OUT     folder for the JSON (benchmarks/results)
#   ROUNDS  turns of each candidate (30)
#   QUICK   1: a first look, FP16 at batch 1 in a few rounds
#   BUDGET  seconds for all of it (520); building on a Jetson takes longer: give it 7200
#
# Where only TensorRT 8 is there, benchmarks.legacy_trt86 measures instead.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3} model=${MODEL:-face68} out=${OUT:-$root/benchmarks/results}
budget=${BUDGET:-520} rounds=${ROUNDS:-30} quick=${QUICK:-0}
precisions=(fp16 fp32 int8) batches=(1 4 16)
if [ "$quick" = 1 ]; then
    precisions=(fp16) batches=(1) rounds=${ROUNDS:-5}
fi
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}

die() {
    echo "gpu_check: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || die "no $python here: set PYTHON to an interpreter"
[ -f "$model/model.json" ] || model=$root/edge_kp/models/$model
[ -f "$model/model.json" ] || die "no model.json in $model: set MODEL to a shipped model or a folder"

# Of the driver itself, so that this works without any library.
"$python" - <<'EOF' || exit 1
import ctypes
import sys

try:
    cuda = ctypes.CDLL("libcuda.so.1")
except OSError:
    sys.exit("gpu_check: no GPU: no NVIDIA driver is loaded (try nvidia-smi)")
count = ctypes.c_int(0)
if cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count)) or count.value == 0:
    sys.exit("gpu_check: no GPU: the driver finds none (try nvidia-smi, look at CUDA_VISIBLE_DEVICES)")
EOF

found=$("$python" - <<'EOF'
import importlib
import sys

why = []
for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
    try:
        module = importlib.import_module(name)
    except (ImportError, OSError) as error:
        why.append(str(error))
        continue
    if getattr(module, "__file__", None) is None:
        why.append(f"{name} is a mere folder of that name")
        continue
    print(name, module.__version__)
    break
else:
    sys.exit(f"gpu_check: no TensorRT in {sys.executable} ({'; '.join(why)})")
EOF
) || exit 1
read -r library version <<<"$found"
echo "$library $version, $("$python" --version), at most $budget s"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
failed=()

# step NAME RESERVE COMMAND...: run it for as long as leaves RESERVE seconds of the budget.
step() {
    local name=$1 left=$((budget - $2 - SECONDS)) start=$SECONDS code=0
    shift 2
    printf '\n== %s\n' "$name"
    if [ "$left" -le 0 ]; then
        echo "== $name: NOT RUN, the time is spent (BUDGET=$budget)"
        failed+=("$name")
        return
    fi
    timeout --foreground --kill-after=10 "$left" "$@" || code=$?
    if [ "$code" = 0 ]; then
        echo "== $name: passed in $((SECONDS - start)) s"
        return
    fi
    [ "$code" != 124 ] || echo "stopped after $left s (BUDGET=$budget)"
    echo "== $name: FAILED in $((SECONDS - start)) s, exit code $code"
    failed+=("$name")
}

# What is left for the measuring, after which a minute is kept for its last round and for power.
seconds_left() {
    local left=$((budget - SECONDS - 60))
    echo $((left > 1 ? left : 1))
}

if [ "$library" = tensorrt ] && [ "${version%%.*}" -lt 10 ]; then
    step "measure with TensorRT $version" 0 "$python" -m benchmarks.legacy_trt86 --model "$model" \
        --precision "${precisions[@]}" --batch "${batches[@]}" --rounds "$rounds" \
        --seconds "$(seconds_left)" --out "$out"
else
    copy=$work/$(basename "$(cd "$model" && pwd)")
    cp -rL "$model" "$copy"
    verify=(--verify)
    if [ ! -f "$copy/references.npz" ]; then
        echo "verify: FAILED, the model has no references.npz; export it again"
        failed+=(verify)
        verify=()
    fi
    [ "$library" = tensorrt ] && timings=(--timing-cache "$work/timings") || timings=() # RTX times nothing
    for precision in "${precisions[@]}"; do
        step "build $precision" 200 "$python" "$root/build_engine.py" --model "$copy" \
            --precision "$precision" --batch "${batches[@]}" "${timings[@]}" "${verify[@]}"
    done
    for cascade in fused staged; do
        step "check $cascade" 150 "$python" -m edge_kp.run --check --backend tensorrt --cascade "$cascade" \
            --model "$copy"
    done
    step measure 0 "$python" -m benchmarks.gpu --model "$copy" ${RUN:+--run "$RUN"} \
        --precision "${precisions[@]}" --batch "${batches[@]}" --rounds "$rounds" \
        --seconds "$(seconds_left)" --out "$out"
fi

echo
if [ ${#failed[@]} -gt 0 ]; then
    echo "gpu_check: ${#failed[@]} failed after $SECONDS s: $(printf '%s, ' "${failed[@]}" | sed 's/, $//')"
    exit 1
fi
echo "gpu_check: all passed in $SECONDS s; figures in $out"
