#!/usr/bin/env bash
# Beyond the paper: is it the tokeniser? The same text in ever more pieces: clones at 50/50 and 90/10, three seeds each.
# Whatever the pieces, a run reads as many characters. Batches are those that do best, for the rare clone as for English alone.
SCALE=cpu
source "$(dirname "$0")/lib.sh"
corpus clones
CHARACTERS=$ONE RUNS=() LENGTHS=${LENGTHS#2 } # no mix here is longer than 1x

for SEED in 0 1 2; do
    seed "$SEED"
    DATA=data/pydocs ONE=$CHARACTERS
    into table1 # characters
    yardstick
    run 50-50 1x --ratio 0.5
    run 90-10 1x --ratio 0.9
    RUNS+=("$FOLDER/50-50" "$FOLDER/90-10")

    into pieces
    #     pieces, characters in one, batch of a mix, of English alone on half of it, on less
    for row in "512 1.67 8 2 2" "1024 2.23 16 2 2" "2048 2.68 16 4 4" "4096 3.07 16 8 4"; do
        read -r pieces each batch half less <<<"$row"
        DATA=data/pydocs-$pieces ONE=$(awk "BEGIN { print $CHARACTERS / $each }")
        [ -d "$DATA" ] || also python data.py --pieces bpe --vocab-size "$pieces" --name "pydocs-$pieces"
        run "$pieces-50-50" 1x --ratio 0.5 --batch "$batch"
        run "$pieces-90-10" 1x --ratio 0.9 --batch "$batch"
        RUNS+=("$FOLDER/$pieces-50-50" "$FOLDER/$pieces-90-10")
        run "$pieces-mono-0.5x" 0.5x --ratio 1 --batch "$half"
        for times in 0.3 0.2 0.1 0.05; do run "$pieces-mono-${times}x" "${times}x" --ratio 1 --batch "$less"; done
    done
done

for SEED in 3 4; do # with characters the rare clone differs most from seed to seed
    seed "$SEED"
    DATA=data/pydocs ONE=$CHARACTERS
    into table1
    run 90-10 1x --ratio 0.9
    RUNS+=("$FOLDER/90-10")
done

for each in "${RUNS[@]}"; do also python align.py "$each" --only embeddings hidden --sequences 30; done
also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
