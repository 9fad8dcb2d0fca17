#!/usr/bin/env bash
# The paper's second takeaway in about nine minutes on two CPU cores: cloned English, balanced and imbalanced (Table 1, rows 1-5).
#
# Four monolingual runs give the scaling law; 50/50 and 90/10 are compared with it. Runs that are finished are skipped,
# so the script can be stopped and started again at any time.
#
#   bash runs/demo.sh            # seed 0, results in out/demo
#   SEED=1 bash runs/demo.sh     # another seed, results in out/demo-seed1
#   BATCH=8 bash runs/demo.sh    # four times as many steps on the same tokens, results in out/demo-batch8
#   GPUS=4 bash runs/demo.sh     # four processes under torchrun
set -euo pipefail
cd "$(dirname "$0")/.."
[ ! -d .venv ] || PATH="$PWD/.venv/bin:$PATH" # the environment that make creates

SEED=${SEED:-0}
BATCH=${BATCH:-32}
GPUS=${GPUS:-1}
LAUNCH=python # one process needs no launcher
[ "$GPUS" = 1 ] || LAUNCH="torchrun --standalone --nproc-per-node $GPUS"
OUT=out/demo
[ "$BATCH" = 32 ] || OUT=$OUT-batch$BATCH
[ "$SEED" = 0 ] || OUT=$OUT-seed$SEED

#       name       ratio  thousand tokens
EXPERIMENTS="
        mono-100   1      3000
        mono-50    1      1500
        mono-25    1      750
        mono-10    1      300
        50-50      0.5    3000
        90-10      0.9    3000
"

total=0 behind=0 trained=0 number=0
runs=$(grep -c '[^ ]' <<<"$EXPERIMENTS")
while read -r _ _ thousands; do [ -z "$thousands" ] || total=$((total + thousands)); done <<<"$EXPERIMENTS"

time_left() { # from the speed of this start's own runs, evaluation included
    if [ "$trained" = 0 ]; then echo "about 8 minutes in all on two cores"; else
        local seconds=$(((total - behind) * SECONDS / trained))
        echo "about $((seconds / 60))m$(printf %02d $((seconds % 60)))s left"
    fi
}

python data.py
SECONDS=0
while read -r name ratio thousands; do
    [ -n "$name" ] || continue
    number=$((number + 1)) run=$OUT/$name
    if grep -qs '"ppl"' "$run/result.json"; then
        echo "== $number of $runs: $name is done already"
    else
        echo "== $number of $runs: $name, p(EN1) = $ratio, $thousands thousand tokens ($((100 * behind / total))% done, $(time_left))"
        $LAUNCH train.py --data data/pydocs --size nano \
            --ratio "$ratio" --tokens "${thousands}e3" --batch "$BATCH" --seed "$SEED" --out "$run" </dev/null
        python evaluate.py "$run" </dev/null
        trained=$((trained + thousands))
    fi
    behind=$((behind + thousands))
done <<<"$EXPERIMENTS"

echo "== the law, the table and the figure"
python fit_scaling.py "$OUT"
