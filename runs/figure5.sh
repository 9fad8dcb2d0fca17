#!/usr/bin/env bash
# Figure 5: the laws of all sizes and languages. The runs are those of Tables 1 and 3 and of Figures 2 and 4.
source "$(dirname "$0")/lib.sh"
for model in $STANDARD_SIZE $OTHER_SIZES; do
    size "$model"
    corpus clones
    if [ "$model" = "$STANDARD_SIZE" ]; then into table1; else into figure2; fi
    yardstick
    corpus real
    if [ "$model" = "$STANDARD_SIZE" ]; then into table3; else into figure4; fi
    yardstick en
    yardstick fr
done
also python -m paper.figures 5 "${FOLDERS[@]}" --out "$PAGE"
also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
