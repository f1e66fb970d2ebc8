# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for ejectable: loaded on the first TAB; the program itself prints what completes it.
eval "$(_EJECTABLE_COMPLETE=bash_source ejectable 2>/dev/null)"
