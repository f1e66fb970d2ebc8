# SPDX-License-Identifier: GPL-2.0-or-later
# bash completion for ejectable: commands, options and their values; else file names (-o default).
_ejectable() {
    local IFS=$'\n'
    # shellcheck disable=SC2207  # one answer a line
    COMPREPLY=($(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD _EJECTABLE_COMPLETE=complete_bash "$1" 2>/dev/null))
}
complete -o default -F _ejectable ejectable
