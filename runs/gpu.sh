#!/usr/bin/env bash
# The first half hour on a GPU: five calls of less than ten minutes, each repeatable; a failed check ends it.
#
#   CALL=1 bash runs/gpu.sh   # versions; attention and the loss against float64, and the same bits again
#   CALL=2 bash runs/gpu.sh   # steps, a model split by FSDP, runs that are stopped and go on, two processes
#   CALL=3 bash runs/gpu.sh   # training steps of GPT small
#   CALL=4 bash runs/gpu.sh   # attention and the loss beside PyTorch's
#   CALL=5 bash runs/gpu.sh   # SDPA twice, which has to give the same bits; two runs side by side on one GPU
#
# Results go to results/gpu/NAME-OF-CHIP/, or RESULTS=FOLDER instead of results/gpu. It needs python3, or
# PYTHON, with torch 2.11 or later, numpy, sentencepiece, hypothesis and pytest. DATA=FOLDER: a prepared text;
# without it, the English of Python's libraries is prepared. If kernels are wrong, try a newer ptxas
# (TRITON_PTXAS_PATH), then train.py --no-compile, then --attention sdpa, to see what is to blame.
# On an H100 expect an MFU of 36-40, 39-43 and 40-45% from call 3; below 30%, look at the profile. If call 4
# finds attention of 12 x 64 with backward below 120 TFLOP/s, edit its tiles in ROWS.
set -euo pipefail
cd "$(dirname "$0")/.."
[ ! -d .venv ] || PATH="$PWD/.venv/bin:$PATH" # the environment that make creates
PYTHON=${PYTHON:-$(command -v python3 || command -v python)}
DATA=${DATA:-data/pydocs}
RUNS=out/gpu-calls
CHIP=$("$PYTHON" -c 'import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")')
PAGE=${RESULTS:-results/gpu}/${CHIP// /-}
mkdir -p "$PAGE" "$RUNS"

check() { # WORDS...: run tests, and add their output to the call's file
    "$PYTHON" -m pytest -q -p no:cacheprovider "$@" 2>&1 | tee -a "$PAGE/call$CALL.txt"
}

train() { # NAME FLAGS...: a short run of GPT mini
    local out=$RUNS/$1
    shift
    "$PYTHON" train.py --data "$DATA" --size mini --length 128 --batch 32 --tokens 4e5 --warmup 20 --no-score \
        "$@" --out "$out"
}

versions() {
    "$PYTHON" -c 'import platform, torch; print(platform.platform(), "torch", torch.__version__, "CUDA", torch.version.cuda)'
    "$PYTHON" -c 'import triton; print("triton", triton.__version__)' || echo "no Triton: attention is PyTorch's"
    nvidia-smi || echo "no nvidia-smi"
}

for CALL in ${CALL:-1 2 3 4 5}; do
    echo "== call $CALL, results in $PAGE"
    case $CALL in
    1)
        versions 2>&1 | tee "$PAGE/call1.txt"
        check tests/test_attention.py tests/test_cross_entropy.py
        ;;
    2)
        rm -f "$PAGE/call2.txt"
        check tests/test_model.py tests/test_train.py tests/test_processes.py
        ;;
    3) "$PYTHON" -m tests.bench step --out "$PAGE" | tee "$PAGE/call3.txt" ;;
    4) "$PYTHON" -m tests.bench attention loss --out "$PAGE" | tee "$PAGE/call4.txt" ;;
    5)
        rm -rf "$PAGE/call5.txt" "$RUNS"/sdpa-* "$RUNS"/half-*
        train sdpa-1 --attention sdpa
        train sdpa-2 --attention sdpa
        cmp "$RUNS/sdpa-1/model.pt" "$RUNS/sdpa-2/model.pt" && echo "SDPA: the same bits" | tee -a "$PAGE/call5.txt"
        train half-1 >"$RUNS/half-1.log" 2>&1 &
        train half-2 --seed 1
        wait $! || { cat "$RUNS/half-1.log" && exit 1; }
        for run in sdpa-1 half-2; do # speed of a run alone, and beside another
            tail -n 1 "$RUNS/$run/metrics.jsonl" | tee -a "$PAGE/call5.txt"
        done
        ;;
    *) echo "error: CALL=$CALL: expected a number from 1 to 5" >&2 && exit 2 ;;
    esac
done
