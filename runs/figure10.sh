#!/usr/bin/env bash
exec bash "$(dirname "$0")/figure4.sh" "$@" # Figure 10 is Figure 4 with MLTE beside it, from the same runs.
