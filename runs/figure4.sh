#!/usr/bin/env bash
# Figures 4 and 10: English and French, anchored, at 50/50 and 90/10, by training tokens and by model size.
# (Takeaway 7) The balanced runs at the standard size are Table 3's.
source "$(dirname "$0")/lib.sh"
corpus real
for SEED in $SEEDS; do
    seed "$SEED"
    into table3
    yardstick en
    yardstick fr
    yardstick_2x
    run anchored-50-50         1x --languages en fr --vocab anchored --ratio 0.5
    run anchored-90-10         1x --languages en fr --vocab anchored --ratio 0.9
    run anchored-50-50-2x      2x --languages en fr --vocab anchored --ratio 0.5
    run anchored-50-50-3x      3x --languages en fr --vocab anchored --ratio 0.5

    into figure4
    run anchored-90-10-2x      2x --languages en fr --vocab anchored --ratio 0.9
    run anchored-90-10-3x      3x --languages en fr --vocab anchored --ratio 0.9
    for model in $OTHER_SIZES; do
        size "$model"
        yardstick en
        yardstick fr
        run anchored-50-50     1x --languages en fr --vocab anchored --ratio 0.5
        run anchored-90-10     1x --languages en fr --vocab anchored --ratio 0.9
    done
    size "$STANDARD_SIZE"
done

also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.figures 4 "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
