#!/usr/bin/env bash
# Beyond the paper: do clones share what they learn with one embedding matrix or two, rotary or learned
# positions, the space shared or not? Seed by seed (results/LOG.md, 31 to 33); 3 seeds: 2 hours on two cores.
#
#   bash runs/factorial.sh                # seeds 4, 5 and 6, beside the runs of runs/sharing.sh
SCALE=cpu SEEDS=${SEEDS:-4 5 6}
PRECISION=${PRECISION:-fp32}
source "$(dirname "$0")/lib.sh"
corpus clones
RUNS=()

for SEED in $SEEDS; do
    seed "$SEED"
    into sharing-1x
    for mix in 90-10 50-50; do
        share=0.${mix%?-*}
        run "$mix"                          1x --ratio "$share"
        run "no-space-$mix"                 1x --ratio "$share" --shared
        run "learned-$mix"                  1x --ratio "$share" --positions learned
        run "learned-no-space-$mix"         1x --ratio "$share" --positions learned --shared
        run "untied-$mix"                   1x --ratio "$share" --no-tied
        run "untied-no-space-$mix"          1x --ratio "$share" --no-tied --shared
        run "untied-learned-$mix"           1x --ratio "$share" --no-tied --positions learned
        run "untied-learned-no-space-$mix"  1x --ratio "$share" --no-tied --positions learned --shared
        RUNS+=("$FOLDER"/{,untied-}{,learned-}{,no-space-}"$mix")
    done
    for times in 0.5 0.2 0.1 0.05; do # the yardstick of each model
        run "mono-${times}x"                ${times}x --ratio 1 $ALONE
        run "mono-learned-${times}x"        ${times}x --ratio 1 $ALONE --positions learned
        run "mono-untied-${times}x"         ${times}x --ratio 1 $ALONE --no-tied
        run "mono-untied-learned-${times}x" ${times}x --ratio 1 $ALONE --no-tied --positions learned
    done
done

also python align.py "${RUNS[@]}" --only embeddings hidden --sequences 20 --out "$PAGE"
also python -m paper.sharing "${FOLDERS[@]}" --out "$PAGE"
