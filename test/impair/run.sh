#!/bin/bash
# SPDX-License-Identifier: BSD-3-Clause
# The kernel's TCP sends through a bad wire, to devmem-ncat and to the kernel: see impair.py --help.
set -euo pipefail
. "$(dirname "$0")/../../scripts/common.sh"

need_tun
need_hugepages 512
in_namespace env DEVMEM_BUILD="$BUILD" python3 "$ROOT/test/impair/impair.py" "$@"
