#!/usr/bin/env bash
# Figure 13 comes from the same runs and measurements as Table 4.
exec bash "$(dirname "$0")/table4.sh" "$@"
