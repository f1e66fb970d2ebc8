# SPDX-License-Identifier: GPL-2.0-or-later
# fish completion for ejectable: commands, options and their values beside file names.
complete --command ejectable --arguments "(env _EJECTABLE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS=(commandline -cp) ejectable 2>/dev/null)" --condition "env _EJECTABLE_COMPLETE=complete_fish _TYPER_COMPLETE_FISH_ACTION=is-args _TYPER_COMPLETE_ARGS=(commandline -cp) ejectable 2>/dev/null"
