# bash completion for lunactl: commands, options and their words, ids of jobs and names of
# decoders as the broker knows them.

_lunactl_ids() {
    timeout 1 lunactl "${_lunactl_broker[@]}" jobs ${1:+--state "$1"} 2>/dev/null |
        sed -n '2,$s/ .*//p'
}

_lunactl_decoders() {
    timeout 1 lunactl "${_lunactl_broker[@]}" decoders 2>/dev/null | sed -n '2,$s/  .*//p'
}

_lunactl_words() {
    case $1 in
    submit)
        printf '%s\n' --latents --affix --no-subdir --format --png-compression --png-bits --lossy-quality \
            --lossless-webp --vae --output-dir --save-path --filename --model-name \
            --filename-index --prompt --workflow --metadata --no-embed --sidecar --parameters \
            --quality-gate --min-quality --save-mode --priority --deadline --job-id --wait
        ;;
    jobs) printf '%s\n' --state --limit ;;
    show | wait) _lunactl_ids ;;
    cancel)
        _lunactl_ids pending
        _lunactl_ids in_progress
        ;;
    retry) echo --failed; _lunactl_ids failed ;;
    priority | next) _lunactl_ids pending ;;
    resume) _lunactl_decoders ;;
    drain) echo --wait; _lunactl_decoders ;;
    top) echo --once ;;
    status | decoders | pause | key | metrics) ;;
    *)
        printf '%s\n' submit status jobs show wait cancel retry priority next decoders pause resume \
            drain key metrics top --version
        ;;
    esac
    printf '%s\n' --broker --json --help
}

_lunactl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD - 1]}
    local command='' i _lunactl_broker=()
    local IFS=$'\n'  # a decoder's name may hold spaces
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --broker)
            i=$((i + 1))
            _lunactl_broker=(--broker "${COMP_WORDS[i]}")
            # To bash each colon of an endpoint is a word.
            while [[ ${COMP_WORDS[i + 1]} == : ]]; do
                _lunactl_broker[1]+=:${COMP_WORDS[i + 2]}
                i=$((i + 2))
            done
            ;;
        -*) ;;
        *) [[ $command ]] || command=${COMP_WORDS[i]} ;;
        esac
    done
    case $before in
    --latents | --prompt | --workflow | --metadata)
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
        return
        ;;
    --output-dir)
        mapfile -t COMPREPLY < <(compgen -d -- "$word")
        return
        ;;
    --state) set -- pending in_progress completed failed cancelled ;;
    --format) set -- png webp jpeg avif jxl 'no save' ;;
    --quality-gate) set -- disabled variance edge_density both ;;
    --save-mode) set -- daemon database_store ;;
    --broker | --affix | --png-compression | --lossy-quality | --vae | --save-path | \
        --filename | --model-name | --filename-index | --min-quality | --priority | \
        --deadline | --job-id | --limit) return ;;
    *)
        mapfile -t COMPREPLY < <(compgen -W "$(_lunactl_words "$command")" -- "$word")
        return
        ;;
    esac
    mapfile -t COMPREPLY < <(compgen -W "$*" -- "$word")
}

complete -o filenames -F _lunactl lunactl
