#!/usr/bin/env bash
# The whole paper, one script after the other; docs/paper.md says what each makes. DRY=1 prints all commands.
# Scripts share the runs of Table 1 and of Table 3. mylanguages.sh, for your languages, is apart.
set -euo pipefail
for page in table1 table2 figure1 figure2 figure6 figure8 table3 table4 figure3 figure4 figure14 figure5 takeaways; do
    echo "=== $page"
    bash "$(dirname "$0")/$page.sh"
done
