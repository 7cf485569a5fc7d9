"""Which keys a body of the generate protocol may have, by the kind of engine."""

ASKED_COUNTS = ("return_num_input_tokens", "return_num_output_tokens")
# How long an answer must be at least. An engine refuses one that is above the bound.
LEAST_TOKENS = frozenset({"min_tokens", "min_length", "sampling_param_min_tokens"})

# What a vLLM sampling parameter may be called. `best_of` computes answers nobody sees.
VLLM_SAMPLING = frozenset(
    [
        "n",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "stop",
        "stop_token_ids",
        "max_tokens",
        "min_tokens",
        "ignore_eos",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "logprobs",
        "prompt_logprobs",
        "skip_special_tokens",
        "include_stop_str_in_output",
    ]
)
_COMMON = frozenset({"text_input", "id", *ASKED_COUNTS})
KEYS: dict[str, frozenset[str]] = {
    "vllm": _COMMON
    | frozenset(
        [
            "stream",
            "sampling_parameters",
            "parameters",
            "exclude_input_in_output",
            "return_finish_reason",
            "return_cumulative_logprob",
            "return_logprobs",
        ]
    ),
    "tensorrtllm": _COMMON
    | frozenset(
        [
            "max_tokens",
            "stream",
            "bad_words",
            "stop_words",
            "end_id",
            "pad_id",
            "top_k",
            "top_p",
            "temperature",
            "seed",
            "random_seed",
            "length_penalty",
            "repetition_penalty",
            "min_length",
            "presence_penalty",
            "frequency_penalty",
            "return_log_probs",
            "return_context_logits",
            "return_generation_logits",
            "beam_width",
            "num_return_sequences",
            "exclude_input_in_output",
        ]
    ),
    "llmapi": _COMMON
    | frozenset(
        [
            "streaming",
            "exclude_input_in_output",
            "return_finish_reason",
            "return_stop_reason",
            "return_cumulative_logprob",
            "sampling_param_max_tokens",
            "sampling_param_n",
            "sampling_param_temperature",
            "sampling_param_top_p",
            "sampling_param_top_k",
            "sampling_param_seed",
            "sampling_param_stop",
            "sampling_param_frequency_penalty",
            "sampling_param_presence_penalty",
            "sampling_param_repetition_penalty",
        ]
    ),
}
# Of a body for any other model, where the catalog does not list the inputs: what is no tensor.
RESERVED_PREFIXES = (
    "triton_",
    "sequence_",
    "shared_memory",
    "binary_data",
    "headers",
    "parameters",
)
RESERVED_NAMES = frozenset({"priority", "timeout"})
