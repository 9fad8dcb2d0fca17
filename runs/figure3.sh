#!/usr/bin/env bash
# Figure 3: English and French by their share, disjoint and anchored. (Takeaway 6) 10, 50 and 90% are Table 3's.
source "$(dirname "$0")/lib.sh"
corpus real
for SEED in $SEEDS; do
    seed "$SEED"
    into table3
    yardstick en
    yardstick fr
    for vocab in disjoint anchored; do
        run $vocab-10-90 1x --languages en fr --vocab $vocab --ratio 0.1
        run $vocab-50-50 1x --languages en fr --vocab $vocab --ratio 0.5
        run $vocab-90-10 1x --languages en fr --vocab $vocab --ratio 0.9
    done

    into figure3
    for vocab in disjoint anchored; do
        for share in 95 80 70 30 20 05; do
            run $vocab-$share-$((100 - 10#$share)) 1x --languages en fr --vocab $vocab --ratio 0.$share
        done
    done
done

also python -m paper.figures 3 "${FOLDERS[@]}" --out "$PAGE"
also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
