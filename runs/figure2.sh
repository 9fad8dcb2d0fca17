#!/usr/bin/env bash
# Figures 2 and 9: clones at 50/50 and 90/10, by training tokens (1x to 4x) and by model size. (Takeaway 4)
# Three quarters of the runs at the standard size are Table 1's. With SCALE=cpu also ten clones at twice the
# tokens, since at 1x each has little to read. (Takeaway 3)
source "$(dirname "$0")/lib.sh"
corpus clones
for SEED in $SEEDS; do
    seed "$SEED"
    into table1
    yardstick
    run 50-50            1x --ratio 0.5
    run 90-10            1x --ratio 0.9
    run 50-50-2x         2x --ratio 0.5
    run 50-50-3x         3x --ratio 0.5

    into figure2
    run 50-50-4x         4x --ratio 0.5
    run 90-10-2x         2x --ratio 0.9
    run 90-10-3x         3x --ratio 0.9
    run 90-10-4x         4x --ratio 0.9
    [ "$SCALE" != cpu ] || run ten-equal-2x 2x --clones 10 --ratio 0.1
    [ "$SCALE" != cpu ] || run ten-main-2x  2x --clones 10 --ratio 0.5
    for model in $OTHER_SIZES; do
        size "$model"
        yardstick
        run 50-50        1x --ratio 0.5
        run 90-10        1x --ratio 0.9
    done
    size "$STANDARD_SIZE"
done

also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.figures 2 "${FOLDERS[@]}" --out "$PAGE"
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
