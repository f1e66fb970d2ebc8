# SPDX-License-Identifier: GPL-2.0-or-later
# fish completion for ejectable: the program itself prints what completes it.
env _EJECTABLE_COMPLETE=fish_source ejectable 2>/dev/null | source
