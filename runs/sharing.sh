#!/usr/bin/env bash
# Beyond the paper: at which shares do clones share what they learn? Seed by seed (results/LOG.md, 27 to 33).
#
#   bash runs/sharing.sh                                   # 5M characters, seeds 4 to 8: two hours on two cores
#   TIMES=0.6 SEEDS="9 10" bash runs/sharing.sh            # of 3M, as long as the demo's
SCALE=cpu SEEDS=${SEEDS:-4 5 6 7 8}
PRECISION=${PRECISION:-fp32}
source "$(dirname "$0")/lib.sh"
corpus clones
TIMES=${TIMES:-1}
LENGTHS="0.8 0.5 0.35 0.2 0.1 0.05"

for SEED in $SEEDS; do
    seed "$SEED"
    into "sharing-${TIMES}x"
    yardstick
    run 90-10          "${TIMES}x" --ratio 0.9
    run 50-50          "${TIMES}x" --ratio 0.5
    run no-space-90-10 "${TIMES}x" --ratio 0.9 --shared  # the clones share nothing
    run 80-20          "${TIMES}x" --ratio 0.8
    run 95-5           "${TIMES}x" --ratio 0.95
    RUNS+=("$FOLDER"/{90-10,50-50,80-20,95-5,no-space-90-10})
done

also python align.py "${RUNS[@]}" --only embeddings hidden --sequences 20 --out "$PAGE"
also python -m paper.sharing "${FOLDERS[@]}" --out "$PAGE"
