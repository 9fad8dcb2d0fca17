#!/usr/bin/env bash
# Table 1: cloned English. Is a token of a clone worth a token of its own language, and does imbalance help?
# (Takeaways 1 to 5)
#
#   SEEDS="0 1 2" bash runs/table1.sh               # three seeds, where takeaways rest on a row; else the first
#   SEEDS="0 1 2" MORE="3 4" bash runs/table1.sh    # rows 4 and 5 with five
source "$(dirname "$0")/lib.sh"
corpus clones

for SEED in $SEEDS ${MORE:-}; do
    seed "$SEED"
    into table1
    yardstick # rows 1 to 3, and what else the law needs

    #   name             tokens
    run 50-50            1x --ratio 0.5              # row 4
    run 90-10            1x --ratio 0.9              # row 5
    [[ " $SEEDS " = *" $SEED "* ]] || continue       # of MORE
    run ten-equal        1x --clones 10 --ratio 0.1  # row 6
    run ten-main         1x --clones 10 --ratio 0.5  # row 7
    once run 100to0      1x --ratio 1,0              # row 8
    run 90to10           1x --ratio 0.9,0.1          # row 9
    run 50-50-2x         2x --ratio 0.5              # row 10
    run 90to10-2x        2x --ratio 0.9,0.1          # row 11
    run 50-50-3x         3x --ratio 0.5              # row 12
    run 90to10-3x        3x --ratio 0.9,0.1          # row 13

    [ "$SCALE" = cpu ] || continue # the demo's controls, but a longer positive one
    once run placebo     0.25x --ratio 0.4 --languages en noise --batch 2 # a partner that cannot help: TEff at most 1
    once run positive    0.2x --ratio 0.9 --anchors 1 ${ALONE:-}     # EN2 is EN1: TEff is 1 / share = 10
    once run steps-0.5x  0.5x --ratio 1 --batch 4    # alone, in as many steps as row 4
    once run steps-0.1x  0.1x --ratio 1 --batch 1    # alone, in as many steps as row 5, nearly
done

also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
