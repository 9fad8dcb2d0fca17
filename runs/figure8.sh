#!/usr/bin/env bash
# Figure 8: balanced clones that share a part of their vocabulary. Do a few anchor points help? Without any:
# Table 1, row 4.
source "$(dirname "$0")/lib.sh"
corpus clones
for SEED in $SEEDS; do
    seed "$SEED"
    into table1
    yardstick
    run 50-50            1x --ratio 0.5

    into figure8
    for percent in 05 10 20 40 80; do
        run anchors-$percent 1x --ratio 0.5 --anchors 0.$percent
    done
done

also python -m paper.figures 8 "${FOLDERS[@]}" --out "$PAGE"
also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
