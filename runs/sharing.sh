#!/usr/bin/env bash
# Beyond the paper: do clones share what they learn, and what does it take? Each seed by itself (results/LOG.md, 27, 28).
#
#   bash runs/sharing.sh                                   # runs of 3M characters, the demo's, on seeds 9 to 13
#   TIMES=1 SEEDS="4 5 6 7 8" bash runs/sharing.sh         # of 5M, the first criterion's
SCALE=cpu
RECIPE=${RECIPE:---precision fp32}
source "$(dirname "$0")/lib.sh"
corpus clones
TIMES=${TIMES:-0.6}
LADDER="0.8 0.5 0.35 0.2 0.1 0.05"
[ "$TIMES" = 1 ] || LADDER="0.35 0.2 0.1 0.05"
RUNS=()

for SEED in ${SEEDS:-9 10 11 12 13}; do
    seed "$SEED"
    into "sharing-${TIMES}x"
    ladder
    run 90-10          "${TIMES}x" --ratio 0.9
    run 50-50          "${TIMES}x" --ratio 0.5
    run no-space-90-10 "${TIMES}x" --ratio 0.9 --shared
    RUNS+=("$FOLDER"/{90-10,50-50,no-space-90-10})
done

also python align.py "${RUNS[@]}" --only embeddings hidden --sequences 40 --out "$PAGE"
also python -m paper.sharing "${FOLDERS[@]}" --out "$PAGE"
