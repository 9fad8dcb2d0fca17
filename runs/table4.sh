#!/usr/bin/env bash
# Table 4: are the hidden states of English and French aligned? (Takeaway 6) The runs are Table 3's.
#
#   PARALLEL=multi30k bash runs/table4.sh     # aligned lines, multi30k.en and .fr; default: Europarl
source "$(dirname "$0")/lib.sh"
corpus real
aligned
for SEED in $SEEDS; do
    seed "$SEED"
    into table3
    yardstick en
    yardstick fr
    for vocab in disjoint anchored; do
        run $vocab-50-50 1x --languages en fr --vocab $vocab --ratio 0.5
        run $vocab-90-10 1x --languages en fr --vocab $vocab --ratio 0.9
        RUNS+=("$FOLDER/$vocab-50-50" "$FOLDER/$vocab-90-10")
    done
done

also python align.py "${RUNS[@]}" --parallel "en=$PARALLEL.en" "fr=$PARALLEL.fr" --out "$PAGE"
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
