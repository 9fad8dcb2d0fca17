#!/usr/bin/env bash
# Figure 5: the laws of all sizes and languages. The runs are those of Tables 1 and 3 and of Figures 2 and 4.
source "$(dirname "$0")/scale.sh"
for setting in clones real; do
    corpus $setting
    for model in $STANDARD_SIZE ${SIZES//$STANDARD_SIZE/}; do
        size "$model"
        case $setting:$model in
        clones:"$STANDARD_SIZE") into table1; ladder; CLONES=$FOLDER ;;
        real:"$STANDARD_SIZE") into table3; ladder en; ladder fr; REAL=$FOLDER ;;
        clones:*) into figure2; ladder; CLONE_SIZES=$FOLDER ;;
        real:*) into figure4; ladder en; ladder fr; REAL_SIZES=$FOLDER ;;
        esac
    done
done

report "$CLONES" "$CLONE_SIZES" "$REAL" "$REAL_SIZES" --figure 5
record
