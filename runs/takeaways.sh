#!/usr/bin/env bash
# The eight takeaways, judged by all that the other scripts have run so far. This one trains nothing.
source "$(dirname "$0")/lib.sh"
for SEED in $SEEDS; do
    seed "$SEED"
    for name in table1 figure1 figure2 figure8 table3 figure3 figure4; do
        if [ -d "$OUT/$name$SUFFIX" ]; then into $name; fi
    done
done
also python -m paper.compare "${FOLDERS[@]:-$OUT/table1$SUFFIX}" --out "$PAGE"
