#!/usr/bin/env bash
# Beyond the paper: what pieces.sh asks of clones, asked of English and French. As many characters as in Table 3, in 1,024
# BPE pieces of each language, with the batches that do best for clones.
SCALE=cpu
source "$(dirname "$0")/lib.sh"
REAL_DATA=$NOVEL_DATA-1024 PIECES="--pieces bpe --vocab-size 1024"
corpus real
ONE=$(awk "BEGIN { print $ONE / 2.6 }") # characters in a piece

into pieces-real
for language in en fr; do
    for times in 0.5 0.3 0.2 0.1 0.05; do
        run "mono-$language-${times}x" "${times}x" --languages "$language" --ratio 1 --batch 2
    done
done
for vocab in disjoint anchored; do
    for ratio in 50 90 10; do
        run "$vocab-$ratio-$((100 - ratio))" 1x --languages en fr --vocab "$vocab" --ratio "0.$ratio" --batch 16
    done
done

also python fit_scaling.py "${FOLDERS[@]}" --out "$PAGE"
