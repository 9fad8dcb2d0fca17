#!/usr/bin/env bash
# Table 2: are the hidden states of clones aligned, and more so under imbalance? (Takeaway 2) The runs are
# Table 1's.
source "$(dirname "$0")/lib.sh"
corpus clones
for SEED in $SEEDS; do
    seed "$SEED"
    into table1
    yardstick
    run 50-50            1x --ratio 0.5
    run 90-10            1x --ratio 0.9
    RUNS+=("$FOLDER/50-50" "$FOLDER/90-10")
done

also python align.py "${RUNS[@]}" --out "$PAGE"
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
