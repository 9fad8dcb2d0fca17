#!/usr/bin/env bash
# Figure 10 is Figure 4 with MLTE beside it, from the same runs.
exec bash "$(dirname "$0")/figure4.sh" "$@"
