#!/usr/bin/env bash
# The eight takeaways, judged by all that the other scripts have run so far. This one trains nothing.
source "$(dirname "$0")/lib.sh"
FOLDERS=()
for name in table1 figure1 figure2 figure8 table3 figure3 figure4; do
    into $name
    if [ -d "$FOLDER" ] || [ -n "$DRY" ]; then FOLDERS+=("$FOLDER"); fi
done
[ ${#FOLDERS[@]} != 0 ] || {
    echo "error: there is neither $OUT/table1$SUFFIX nor any other folder of runs; start with bash runs/table1.sh" >&2
    exit 2
}
also python -m paper.compare "${FOLDERS[@]}" --out "$PAGE"
