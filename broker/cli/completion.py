"""`brokerctl completion bash|zsh`: a script for the shell, made from the command line itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.cli import groups

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_BASH: Final = """\
# Completion of brokerctl. For this shell: source <(brokerctl completion bash)
_brokerctl() {
    local word path= words current="${COMP_WORDS[COMP_CWORD]}" at
    declare -A known=(
%s
    )
    for ((at = 1; at < COMP_CWORD; at++)); do
        word="${COMP_WORDS[at]}"
        [[ -n "${known["$path $word"]+set}" ]] && path="$path $word"
    done
    words="${known["${path:- }"]}"
    [[ "$current" == -* ]] || words="${words//--+([a-z-])/}"
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
    if [[ ${#COMPREPLY[@]} == 0 && "$current" != -* ]]; then
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}
shopt -s extglob
complete -o filenames -F _brokerctl brokerctl
"""
_ZSH: Final = """\
#compdef brokerctl
# Completion of brokerctl. For this shell: source <(brokerctl completion zsh)
_brokerctl() {
    local word path=
    local -A known
    known=(
%s
    )
    for word in ${words[2,CURRENT-1]}; do
        (( ${+known[$path $word]} )) && path="$path $word"
    done
    local -a found
    found=(${=known[${path:- }]})
    [[ ${words[CURRENT]} == -* ]] || found=(${found:#--*})
    compadd -a found || _files
}
compdef _brokerctl brokerctl
"""
_SCRIPTS: Final = {
    "bash": (_BASH, "        ['{}']='{}'"),
    "zsh": (_ZSH, "        '{}' '{}'"),
}


def register(commands: groups.Commands) -> None:
    """Add the command."""
    leaf = groups.command(
        commands,
        "completion",
        lambda options: _print(options, commands),
        help="a script that completes brokerctl's commands in a shell",
        example="source <(brokerctl completion bash)",
    )
    leaf.add_argument("shell", choices=sorted(_SCRIPTS))


def _print(options: argparse.Namespace, commands: groups.Commands) -> int:
    script, entry = _SCRIPTS[options.shell]
    known = [entry.format(path or " ", " ".join(words)) for path, words in _words("", commands)]
    print(script % "\n".join(known), end="")
    return 0


def _words(path: str, commands: groups.Commands) -> Iterator[tuple[str, list[str]]]:
    """What may follow each command: its sub-commands, its options, its choices."""
    yield path, list(commands.choices)
    for name, parser in commands.choices.items():
        below = f"{path} {name}"
        if parser.commands is not None:
            yield from _words(below, parser.commands)
        else:
            yield below, list(_options(parser))


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to ask
        yield from (option for option in action.option_strings if option.startswith("--"))
        yield from map(str, action.choices or ())
