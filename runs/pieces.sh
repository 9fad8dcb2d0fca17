#!/usr/bin/env bash
# Beyond the paper: is it the tokeniser? The same text in ever more pieces: clones at 50/50 and 90/10, three seeds each.
# A step and a run read as many characters whatever the pieces are; English alone has batches of 1, with one seed also of 2.
SCALE=cpu
source "$(dirname "$0")/lib.sh"
corpus clones
CHARACTERS=$ONE RUNS=()

for SEED in 0 1 2; do
    SUFFIX=$([ "$SEED" = 0 ] || echo "-seed$SEED") DATA=data/pydocs ONE=$CHARACTERS
    into table1 # characters
    ladder
    run 50-50 1x --ratio 0.5
    run 90-10 1x --ratio 0.9
    RUNS+=("$FOLDER/50-50" "$FOLDER/90-10")

    into pieces
    #     pieces, characters in one, sequences of a step
    for row in "512 1.67 5" "1024 2.23 4" "2048 2.68 3" "4096 3.07 3"; do
        read -r pieces each batch <<<"$row"
        DATA=data/pydocs-$pieces ONE=$(awk "BEGIN { print $CHARACTERS / $each }")
        [ -d "$DATA" ] || also python data.py --pieces bpe --vocab-size "$pieces" --name "pydocs-$pieces"
        run "$pieces-50-50" 1x --ratio 0.5 --batch "$batch"
        run "$pieces-90-10" 1x --ratio 0.9 --batch "$batch"
        RUNS+=("$FOLDER/$pieces-50-50" "$FOLDER/$pieces-90-10")
        for times in 0.5 0.3 0.2 0.1 0.05 0.025; do # a rare clone can be worse than alone
            run "$pieces-mono-${times}x" "${times}x" --ratio 1 --batch 1
        done
        if [ "$SEED" = 0 ]; then
            run "$pieces-mono-0.5x-batch2" 0.5x --ratio 1 --batch 2
            run "$pieces-mono-0.1x-batch2" 0.1x --ratio 1 --batch 2
        fi
    done
done

for each in "${RUNS[@]}"; do also python align.py "$each" --only embeddings hidden --sequences 100; done
also python -m paper.figures pieces "${FOLDERS[@]}" --out "$PAGE"
also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
