#!/usr/bin/env bash
# Table 3: English and French. Which results of Table 1 hold for real languages? (Takeaways 6 to 8)
source "$(dirname "$0")/lib.sh"
corpus real
for SEED in $SEEDS; do
    seed "$SEED"
    into table3

    yardstick en # rows 1 to 3
    yardstick fr # rows 4 to 6

    #   name                      tokens
    run disjoint-50-50           1x --languages en fr --vocab disjoint --ratio 0.5                  # row 7
    run disjoint-90-10           1x --languages en fr --vocab disjoint --ratio 0.9                  # row 8
    run disjoint-10-90           1x --languages en fr --vocab disjoint --ratio 0.1                  # row 9
    run disjoint-90to10          1x --languages en fr --vocab disjoint --ratio 0.9,0.1              # row 10
    run anchored-50-50           1x --languages en fr --vocab anchored --ratio 0.5                  # row 11
    run anchored-90-10           1x --languages en fr --vocab anchored --ratio 0.9                  # row 12
    run anchored-10-90           1x --languages en fr --vocab anchored --ratio 0.1                  # row 13
    run anchored-90to10          1x --languages en fr --vocab anchored --ratio 0.9,0.1              # row 14
    run anchored-90to10to50      1x --languages en fr --vocab anchored --ratio 0.9,0.1,0.5,0.5      # row 15
    once run anchored-95to35     1x --languages en fr --vocab anchored --ratio 0.95,0.35,0.35,0.35  # row 16
    once run anchored-50-50-2x   2x --languages en fr --vocab anchored --ratio 0.5                  # row 17
    once run anchored-90to10-2x  2x --languages en fr --vocab anchored --ratio 0.9,0.1              # row 18
    once run anchored-50-50-3x   3x --languages en fr --vocab anchored --ratio 0.5                  # row 19
    once run anchored-90to10-3x  3x --languages en fr --vocab anchored --ratio 0.9,0.1              # row 20
    once yardstick_2x # which rows 17 to 20 need
done

also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
