#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# run.sh engine|kernel: play all scripts; engine: and compare the table of doc/conformance.md.
set -euo pipefail
. "$(dirname "$0")/../../scripts/common.sh"

status=0
jobs=2
if [ "$1" = kernel ]; then
    jobs=16 # they wait most of the time
else
    python3 "$ROOT/test/conformance/table.py" check || status=1
fi
"$BUILD/test/conformance/conformance" --peer="$1" --jobs=$jobs "$ROOT"/test/conformance/*/*.pkt ||
    status=$?
exit $status
