#!/usr/bin/env bash
# Figure 3: English and French by their share, disjoint and anchored. (Takeaway 6) 10, 50 and 90% are Table 3's.
source "$(dirname "$0")/scale.sh"
corpus real
into table3
ladder en
ladder fr
for vocab in disjoint anchored; do
    for tenths in 1 5 9; do run $vocab-${tenths}0-$((10 - tenths))0 1x --languages en fr --vocab $vocab --ratio 0.$tenths; done
done

SHARED=$FOLDER
into figure3
for vocab in disjoint anchored; do
    for share in 95 80 70 30 20 05; do
        run $vocab-$share-$((100 - 10#$share)) 1x --languages en fr --vocab $vocab --ratio 0.$share
    done
done

report "$SHARED" "$FOLDER"
report "$SHARED" "$FOLDER" --figure 3
record
