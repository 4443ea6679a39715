#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# Play all scripts: run.sh engine|kernel. Those for the kernel wait most of their time: many at once.
set -euo pipefail
. "$(dirname "$0")/../../scripts/common.sh"
exec "$BUILD/test/conformance/conformance" --peer="$1" --jobs=$([ "$1" = kernel ] && echo 16 || echo 1) \
    "$ROOT"/test/conformance/*/*.pkt
