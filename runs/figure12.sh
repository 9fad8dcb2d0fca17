#!/usr/bin/env bash
exec bash "$(dirname "$0")/table4.sh" "$@" # Figure 12, gradients of anchored languages, comes from the runs of Table 4.
