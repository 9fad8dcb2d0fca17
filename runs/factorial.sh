#!/usr/bin/env bash
# Beyond the paper: do clones share what they learn with one embedding matrix or two, rotary or learned
# positions, the space shared or not? Seed by seed (results/LOG.md, 31 to 33); 3 seeds: 2 hours on two cores.
#
#   bash runs/factorial.sh                # seeds 4, 5 and 6, beside the runs of runs/sharing.sh
SCALE=cpu SEEDS=${SEEDS:-4 5 6}
PRECISION=${PRECISION:-fp32}
source "$(dirname "$0")/lib.sh"
corpus clones

for SEED in $SEEDS; do
    seed "$SEED"
    into sharing-1x
    for model in "" "learned-" "untied-" "untied-learned-"; do
        flags=""
        [[ $model != *untied* ]] || flags+=" --no-tied"
        [[ $model != *learned* ]] || flags+=" --positions learned"
        for mix in 90-10 50-50; do
            run "$model$mix"            1x --ratio "0.${mix%?-*}" $flags
            run "${model}no-space-$mix" 1x --ratio "0.${mix%?-*}" $flags --shared
            RUNS+=("$FOLDER/$model$mix" "$FOLDER/${model}no-space-$mix")
        done
        for times in 0.5 0.2 0.1 0.05; do # the yardstick of each model
            run "mono-$model${times}x" "${times}x" --ratio 1 $ALONE $flags
        done
    done
done

also python align.py "${RUNS[@]}" --only embeddings hidden --sequences 20 --out "$PAGE"
also python -m paper.sharing "${FOLDERS[@]}" --out "$PAGE"
