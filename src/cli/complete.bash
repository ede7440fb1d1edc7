
# bash splits words at `@`, which is in the names of some sites. They are put together again.
_mountjail() {
    if [[ $COMP_WORDBREAKS != *@* || $COMP_LINE != *@* ]]; then
        _clap_complete_mountjail "$@"
        return
    fi
    local line=$COMP_LINE words=() current=0 nth word blanks
    for nth in "${!COMP_WORDS[@]}"; do
        word=${COMP_WORDS[nth]}
        blanks=${line%%[![:space:]]*}
        line=${line#"$blanks"}
        line=${line#"$word"}
        if [[ -z $blanks && ${#words[@]} -gt 0 && ( $word == @* || ${words[-1]} == *@ ) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        if ((nth == COMP_CWORD)); then
            current=$((${#words[@]} - 1))
        fi
    done
    local COMP_WORDS=("${words[@]}") COMP_CWORD=$current
    local typed=${words[current]}
    _clap_complete_mountjail "$1" "$typed" "$3"
    COMPREPLY=("${COMPREPLY[@]#"${typed%"${typed##*@}"}"}")
}
